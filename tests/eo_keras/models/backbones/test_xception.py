"""The Xception-65 of DeepLabv3+: its layers against figure 4 of the paper, strides, rates and padding."""

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.models import depth_groups, depthwise_kernels
from eo_keras.models.backbones.stages import run_stages
from eo_keras.models.backbones.xception import build_xception, xception_stages
from eo_keras.models.graph import sources
from eo_keras.models.layers.factory import LayerFactory
from tests.harness.networks import RGB, images, network_spec, without_weights


def features(output_stride, **arguments):
    factory = LayerFactory(network_spec(seed=1))
    image, x = factory.image()
    return keras.Model(image, run_stages(xception_stages(factory, output_stride, **arguments), x))


def reduced(middle=1, width=1 / 16, **choices):
    spec = network_spec(**{"seed": 3, "zero_last_gamma": False} | choices)
    return build_xception(spec, middle=middle, width=width)


def of_type(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.fixture(scope="module")
def xception65():
    return without_weights(models.MODELS["xception65"], "xception65", network_spec())


def test_layers_of_the_paper(xception65):
    depthwise = of_type(xception65, keras.layers.DepthwiseConv2D)
    convolutions = of_type(xception65, keras.layers.Conv2D)
    shortcuts = [layer for layer in convolutions if layer.name.endswith("_shortcut")]
    assert [layer.filters for layer in shortcuts] == [128, 256, 728, 1024]
    # A separable convolution counts as one, as does its name: 2 + 3 * 3 + 16 * 3 + 6.
    assert len(depthwise) == 63
    assert len(convolutions) - len(shortcuts) - len(depthwise) + len(depthwise) == 65
    channels = [layer.filters for layer in convolutions if layer.name.endswith("_pointwise")]
    entry, exit_ = [128] * 3 + [256] * 3 + [728] * 3, [728, 1024, 1024, 1536, 1536, 2048]
    assert channels == entry + [728] * 48 + exit_
    assert [layer.filters for layer in convolutions[:2]] == [32, 64]
    pairs = list(zip([64, *channels[:-1]], channels, strict=True))
    kernels = sum(9 * one + one * other for one, other in pairs) + 27 * 32 + 9 * 32 * 64
    kernels += sum(one * other for one, other in ((64, 128), (128, 256), (256, 728), (728, 1024)))
    norms = sum(4 * sum(pair) for pair in pairs) + 4 * (32 + 64) + 4 * (128 + 256 + 728 + 1024)
    assert xception65.count_params() == kernels + norms + 2048 * 4 + 4
    assert not of_type(xception65, (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D))


def test_batch_norm_and_rectifier_behind_each_convolution(xception65):
    behind = {layer: [] for layer in xception65.layers}
    for layer, before in sources(xception65).items():
        for source in before:
            behind[source].append(layer)
    for layer in of_type(xception65, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
        (norm,) = behind[layer]
        assert isinstance(norm, keras.layers.BatchNormalization) and norm.epsilon == 1e-3
        (after,) = behind[norm]
        if isinstance(layer, keras.layers.DepthwiseConv2D) or not isinstance(after, keras.layers.Add):
            assert after.get_config()["activation"] == "relu"
        else:
            # Behind a sum the rectifier is at the next block's entrance; the exit flow's second block has none.
            entrances = [one for one in behind[after] if isinstance(one, keras.layers.Activation)]
            assert len(entrances) == (0 if layer.name.startswith("exit1") else 1), layer.name


RATES = {
    None: {"entry": 1, "middle": 1, "exit1": 1, "exit2": 1},
    16: {"entry": 1, "middle": 1, "exit1": 1, "exit2": 2},
    8: {"entry": 1, "middle": 2, "exit1": 2, "exit2": 4},
}


@pytest.mark.parametrize("output_stride", RATES)
def test_strides_and_rates(output_stride):
    model = features(output_stride, middle=2, width=1 / 16)
    strided = [layer.name for layer in of_type(model, keras.layers.DepthwiseConv2D) if layer.strides != (1, 1)]
    left = {None: 4, 16: 3, 8: 2}[output_stride]
    assert strided == [f"{name}_unit3_depthwise" for name in ("entry1", "entry2", "entry3", "exit1")][:left]
    for layer in of_type(model, keras.layers.DepthwiseConv2D):
        block = layer.name.split("_")[0]
        rate = RATES[output_stride].get(block) or RATES[output_stride][block[:-1]]
        assert layer.dilation_rate == (rate, rate), layer.name
    assert [output.shape[-1] for output in model.outputs] == [16, 128]
    image = np.ones((1, 97, 65, 3), "uint16")
    low, high = model(image)
    assert low.shape == (1, 25, 17, 16)
    assert high.shape[1:3] == tuple(-(-size // (output_stride or 32)) for size in (97, 65))


def test_padding_is_the_same_on_both_sides():
    model = features(8, middle=1, width=1 / 16)
    zero_pad = {layer.name: layer.padding for layer in of_type(model, keras.layers.ZeroPadding2D)}
    units = {f"{name}_unit3_pad": rate for name, rate in (("entry1", 1), ("entry2", 1), ("entry3", 1), ("exit1", 2))}
    assert zero_pad == {"conv1_pad": ((1, 1), (1, 1))} | {name: ((rate,) * 2,) * 2 for name, rate in units.items()}
    # What the first convolution makes of a pixel lies where the pixel is, for even and odd sizes.
    first = keras.Model(model.input, model.get_layer("conv1_conv").output)
    for size in (32, 33):
        image = np.full((1, size, size, 3), 1500, "uint16")
        flat = np.asarray(first(image))
        image[0, 16, 8] = 3000
        moved = np.abs(np.asarray(first(image)) - flat).sum(axis=(0, 3))
        assert np.argwhere(moved > 1e-6).tolist() == [[8, 4]]


def test_width_and_middle():
    small = reduced(width=0.25, middle=2)
    channels = [layer.filters for layer in of_type(small, keras.layers.Conv2D)]
    assert channels[:2] == [8, 16] and max(channels) == 512 and all(count % 8 == 0 for count in channels)
    assert len(of_type(small, keras.layers.Add)) == 4 + 2


def test_weights_of_another_run(tmp_path):
    model, path, image = reduced(), tmp_path / "model.keras", images(2, 33, 47)
    model.save(path)
    other = reduced(seed=4)
    assert models.load_backbone(other, path, RGB, published=None).initialized == ()
    np.testing.assert_allclose(other(image), model(image), atol=1e-6)
    bands = ("B08", "B02", "B03", "B04")
    other = reduced(bands=bands, seed=4)
    assert models.load_backbone(other, path, bands, published=None).inflated == ("conv1_conv",)
    kernel = np.asarray(model.get_layer("conv1_conv").kernel)
    np.testing.assert_array_equal(other.get_layer("conv1_conv").kernel, kernel[:, :, [0, 2, 1, 0]])


def test_initial_weights_keep_the_spread():
    model = reduced(width=0.5)
    kernel = np.asarray(model.get_layer("middle1_unit1_depthwise").kernel)
    # A normal distribution of 1/3, cut at two deviations.
    assert kernel.shape == (3, 3, 368, 1) and kernel.std() == pytest.approx(0.88 / 3, rel=0.05)
    image = images(2, 64, 64)
    names = [layer.name for layer in model.layers if layer.name.endswith("_depthwise")]
    outputs = keras.Model(model.input, [model.get_layer(name).output for name in names])(image, training=True)
    # Far above the epsilon of batch normalisation, which is added to the variance.
    assert min(float(np.asarray(output).var()) for output in outputs) > 0.03


def test_blocks_start_as_their_shortcuts_from_scratch():
    norms = {True: 0.0, False: 1.0}
    for zero, gamma in norms.items():
        model = reduced(middle=2, zero_last_gamma=zero)
        last = {name: model.get_layer(name.replace("_add", "_unit3_pointwise_bn")) for name in added(model)}
        assert len(last) == 4 + 2
        assert {float(value) for layer in last.values() for value in np.asarray(layer.gamma)} == {gamma}
        others = [layer for layer in of_type(model, keras.layers.BatchNormalization) if layer not in last.values()]
        assert {float(value) for layer in others for value in np.asarray(layer.gamma)} == {1.0}
        inside = keras.Model(model.input, [model.get_layer(f"middle{number}_add").output for number in (1, 2)])
        before, behind = map(np.asarray, inside(images(2, 64, 64)))
        assert before.std() > 0 and np.array_equal(before, behind) is zero


def added(model):
    return [layer.name for layer in of_type(model, keras.layers.Add)]


def test_groups_and_kernels_without_decay():
    model = reduced()
    groups = depth_groups(model)
    blocks = ("conv2", "entry1_unit1", "entry2_unit1", "entry3_unit1", "middle1_unit1", "exit1_unit1", "exit2_unit1")
    found = [groups[f"{name}_pointwise" if "unit" in name else f"{name}_conv"] for name in blocks]
    assert found == [0, 0, 1, 2, 3, 4, 5]
    assert groups["logits"] == 5
    kernels = depthwise_kernels(model)
    assert len(kernels) == 18 and "exit2_unit3_depthwise/kernel" in kernels
    assert {weight.shape[-1] for weight in model.weights if weight.path in kernels} == {1}
