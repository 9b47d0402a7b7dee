"""Inception-v3: the same outputs as the published network, weights matched by order, and the stem for any bands."""

import keras
import numpy as np
import pytest

from eo_keras.errors import SourceError
from eo_keras.models import Normalization, build
from eo_keras.models.backbones.inception_v3 import build_inception_v3
from eo_keras.models.pretrained.catalogue import INCEPTION_V3
from eo_keras.models.pretrained.stem import IMAGENET_MEAN, IMAGENET_STD
from eo_keras.models.pretrained.weights import input_scales, load_backbone
from eo_keras.sensors.sentinel2 import NOMINAL_ORDER
from tests.harness.networks import RGB, network_spec

IMAGENET = Normalization(IMAGENET_MEAN, IMAGENET_STD)


def randomise(model):
    """Gives batch normalisation what training would: no zeros and ones."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.beta.assign(random.normal(0, 0.2, layer.beta.shape))
            layer.moving_mean.assign(random.normal(0, 0.5, layer.moving_mean.shape))
            layer.moving_variance.assign(random.uniform(0.5, 1.5, layer.moving_variance.shape))
    return model


def reduced(bands=RGB, weights=None, normalization=IMAGENET, patch_size=None, **arguments):
    scale = input_scales(weights, {"image": bands}, "by_name", INCEPTION_V3)["image"]
    spec = network_spec(bands, patch_size=patch_size, normalization=normalization, scale=scale, seed=5, dropout=0)
    return build_inception_v3(spec, **{"blocks": (2, 1, 1), "width": 1 / 16, "padding": "valid"} | arguments)


def load(model, path, bands=RGB):
    return load_backbone(model, path, bands, published=INCEPTION_V3)


@pytest.fixture(scope="module")
def foreign():
    """A reduced network as `keras.applications` would build it: counters for names, fed with `x / 127.5 - 1`."""

    def clone(layer):
        config = layer.get_config()
        if layer.weights:
            del config["name"]
        return layer.__class__.from_config(config)

    own = reduced()
    x = keras.Input((None, None, 3))
    start = own.get_layer("conv1_conv")
    inner = keras.Model(start.input, own.get_layer("mixed5").output)
    return randomise(keras.models.clone_model(inner, input_tensors=x, clone_function=clone))


@pytest.mark.parametrize("form", [".keras", ".h5", ".weights.h5"])
@pytest.mark.filterwarnings("ignore")
def test_layers_are_matched_by_their_order(foreign, form, tmp_path):
    path = tmp_path / f"foreign{form}"
    (foreign.save_weights if form == ".weights.h5" else foreign.save)(path)
    model = reduced(weights=path)
    report = load(model, path)
    assert report.initialized == ("logits",) and not report.inflated
    image = np.random.default_rng(1).integers(1, 256, (2, 80, 75, 3)).astype("uint16")
    expected = np.asarray(foreign(image / np.float32(127.5) - 1))
    found = np.asarray(keras.Model(model.input, model.get_layer("mixed5").output)(image))
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_stem_of_13_bands_responds_as_rgb_where_the_other_bands_are_at_their_mean(foreign, tmp_path):
    path = tmp_path / "foreign.weights.h5"
    foreign.save_weights(path)
    mean = dict(zip(RGB, IMAGENET_MEAN, strict=True))
    std = dict(zip(RGB, IMAGENET_STD, strict=True))
    statistics = Normalization(
        tuple(mean.get(band, 2000.0) for band in NOMINAL_ORDER), tuple(std.get(band, 300.0) for band in NOMINAL_ORDER)
    )
    model = reduced(NOMINAL_ORDER, path, statistics)
    report = load(model, path, NOMINAL_ORDER)
    assert report.inflated == ("conv1_conv",)
    image = np.full((1, 64, 64, 13), 2000, "uint16")
    colours = np.random.default_rng(3).integers(1, 255, (1, 64, 64, 3)).astype("uint16")
    image[..., [NOMINAL_ORDER.index(band) for band in RGB]] = colours
    batch_norms = [layer for layer in foreign.layers if isinstance(layer, keras.layers.BatchNormalization)]
    expected = keras.Model(foreign.input, batch_norms[0].output)(colours / np.float32(127.5) - 1)
    found = keras.Model(model.input, model.get_layer("conv1_bn").output)(image)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_weights_of_another_architecture_are_refused(foreign, tmp_path):
    path = tmp_path / "foreign.weights.h5"
    foreign.save_weights(path)
    with pytest.raises(SourceError, match="layers like Conv2D are not the [0-9]+ of model 'inception_v3'"):
        load(reduced(blocks=(1, 1, 1)), path)
    with pytest.raises(SourceError, match="layers like Conv2D are not the [0-9]+ of model"):
        load(reduced(width=1 / 8), path)


def test_padding_and_enlarging():
    for padding, enlarge, grids in (("same", 1, [8, 4, 2]), ("same", 2, [16, 8, 4]), ("valid", 2, [13, 6, 2])):
        model = reduced(padding=padding, enlarge=enlarge, blocks=(1, 0, 0), patch_size=64)
        assert [model.get_layer(f"mixed{number}").output.shape[1] for number in range(3)] == grids
    image = np.zeros((1, 64, 64, 3), "uint16") + np.arange(1, 65, dtype="uint16")[:, None, None]
    enlarged = np.asarray(keras.Model(model.input, model.get_layer("enlarged").output)(image))
    normalised = np.asarray(model.get_layer("normalisation")(image)).repeat(2, 2)
    assert enlarged.shape == (1, 128, 128, 3)
    between = 0.75 * normalised[:, :-1] + 0.25 * normalised[:, 1:]
    np.testing.assert_allclose(enlarged[:, 1:-1:2], between, atol=1e-5)


@pytest.mark.slow
def test_full_network_predicts_as_the_original(tmp_path):
    original = randomise(keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(80, 80, 3)))
    assert original.count_params() == pytest.approx(21.8e6, rel=0.002)
    path = tmp_path / "inception.weights.h5"
    original.save_weights(path)
    model = reduced(weights=path, blocks=(3, 4, 2), width=1)
    report = load(model, path)
    assert len(report.loaded) == 188 and report.initialized == ("logits",)
    assert model.count_params() == original.count_params() + 2048 * 4 + 4
    image = np.random.default_rng(1).integers(1, 256, (2, 80, 80, 3)).astype("uint16")
    expected = original.predict(image / np.float32(127.5) - 1, verbose=0)
    found = keras.Model(model.input, model.get_layer("mixed10").output).predict(image, verbose=0)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    spec = network_spec(dtype="uint8", num_classes=10, patch_size=64, normalization=IMAGENET, weights=path)
    padded, report = build("inception_v3", spec)
    assert len(report.loaded) == 188
    assert padded.get_layer("mixed10").output.shape[1:] == (2, 2, 2048)
