"""What each fusion joins, by numbers: parameters, dates, resolutions, output strides, weights to start from."""

import dataclasses

import keras
import numpy as np
import pytest

from eo_keras import models
from tests.eo_keras.models.fusion.test_fusion import fused
from tests.harness.networks import (
    RGB,
    network_spec,
    outputs_of,
    reduced,
    reduced_info,
    several_images,
    several_inputs,
    without_weights,
)

PAIR = ("s2", "s1")
DATES = ("s2", "s2_before", "s1", "s1_before")


def slow(*names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def inside(model, image, *names):
    """Returns outputs of layers by name."""
    found = keras.Model(model.input, [model.get_layer(name).output for name in names])(image, training=False)
    return [np.asarray(one) for one in keras.tree.flatten(found)]


@pytest.mark.parametrize(
    ("name", "depth", "width"),
    [("deeplab_resnet14", 64, 32), pytest.param("deeplab_resnet50", 256, 64, marks=pytest.mark.slow)],
)
def test_parameters(name, depth, width):
    def count(spec):
        return without_weights(models.MODELS[name], name, spec).count_params()

    fusions = {one: count(several_inputs(PAIR, fusion=one, num_classes=2)) for one in models.FUSIONS}
    # Three bands, two, and all five in one network.
    rgb, radar, early = (count(network_spec(bands, num_classes=2)) for bands in (RGB, ("VV", "VH"), tuple("abcde")))
    head = {"deeplab_resnet14": 389_632 + 15_514, "deeplab_resnet50": 3_035_136 + 165_682}[name]
    norm, hidden, last = 4 * depth, 9 * depth * depth, 2 * depth + 2
    stem, join = 49 * 3 * width, 9 * 2 * width * width

    def gates(channels):
        small = max(8, channels // 16)
        reduced = 2 * channels * small + channels
        return reduced + channels * small + 4 * small + small + 1

    backbones = rgb + radar - 2 * head
    assert fusions == {
        "early": early,
        "late": rgb + radar,
        "late_learned": rgb + radar + 9 * 2 * (depth + 2) * depth + norm + last,
        "residual": rgb + radar + 2 * hidden + norm + hidden + norm + 9 * 2 * depth + 2,
        "vfusenet": backbones + (rgb - head - stem + join) + head,
        "attention": backbones + 2 * (gates(4 * width) + gates(32 * width)) + head,
    }
    assert fusions == {
        "deeplab_resnet14": {
            "early": 2_429_114, "late": 4_850_388, "late_learned": 4_926_806, "residual": 4_962_646,
            "vfusenet": 6_479_802, "attention": 4_847_630,
        },
        "deeplab_resnet50": {
            "early": 26_768_242, "late": 53_520_804, "late_learned": 54_711_206, "residual": 55_296_934,
            "vfusenet": 73_945_458, "attention": 51_923_478,
        },
    }[name]  # fmt: skip


def test_late_fusion_is_the_mean_of_two_networks_logits():
    model, image = fused("resnet", "late", names=PAIR), several_images(PAIR, 32, 32, {"s1": 2})
    scores = inside(model, image, "s2_decoder_scores", "s1_fusion_resized_logits", "fusion_mean_logits", "logits")
    np.testing.assert_allclose(scores[2], (scores[0] + scores[1]) / 2, atol=1e-7)
    assert scores[0].shape == (2, 8, 8, 4) and scores[3].shape == (2, 32, 32, 4)
    np.testing.assert_allclose(scores[3][:, ::4, ::4], scores[2], atol=1e-6)
    image["s1"][1] = np.nan
    found = inside(model, image, "s2_decoder_scores", "fusion_mean_logits")
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("fusion", models.LATE_FUSIONS)
def test_logits_of_each_network_beside_the_joined_ones(fusion):
    plain = fused("resnet", fusion, names=PAIR)
    model = fused("resnet", fusion, names=PAIR, stream_logits=True)
    image = several_images(PAIR, 32, 32, {"s1": 2})
    image["s1"][1] = np.nan
    names = ["logits", "s2_stream_logits", "s1_stream_logits"]
    assert models.logits_model(model).output_names == names
    logits, optical, radar = outputs_of(models.logits_model(model), image)
    for one in (optical, radar):
        assert one.shape == (2, 32, 32, 4)
    # A decoder's scores are interpolated by 4.
    own = inside(model, image, "s2_decoder_scores", "s1_fusion_resized_logits")
    np.testing.assert_allclose(optical[:, ::4, ::4], own[0], atol=1e-6)
    np.testing.assert_allclose(radar[0, ::4, ::4], own[1][0], atol=1e-6)
    np.testing.assert_array_equal(radar[1], logits[1])
    assert np.abs(radar[0] - logits[0]).max() > 1e-3
    # Neither weights nor predictions are others.
    assert [one.path for one in model.weights] == [one.path for one in plain.weights]
    np.testing.assert_array_equal(outputs_of(model, image)[0], outputs_of(plain, image)[0])
    inference = models.inference_model(model)
    assert inference.output_names == ["probabilities"]
    assert not [layer.name for layer in inference.layers if "stream" in layer.name]


@pytest.mark.parametrize("name", ["segnet", "unet"])
@pytest.mark.parametrize("fusion", ["late", *slow("late_learned", "residual")])
def test_late_fusions_of_networks_in_full_size(name, fusion, tmp_path):
    spec = several_inputs(PAIR, ratios={"s1": 2}, fusion=fusion, seed=3)
    model, image = reduced(name, spec), several_images(PAIR, 37, 50, {"s1": 2})
    image["s1"][1] = np.nan
    (found,) = outputs_of(model, image)
    assert found.shape == (2, 37, 50, 4)
    (logits,) = keras.tree.flatten(models.logits_model(model)(image, training=False))
    np.testing.assert_allclose(keras.ops.softmax(logits), found, atol=1e-6)
    if fusion == "late":
        alone, resized, mean = inside(model, image, "s2_logits", "s1_fusion_resized_logits", "fusion_mean_logits")
        assert resized.shape == (2, 37, 50, 4)
        np.testing.assert_allclose(mean[0], (alone + resized)[0] / 2, atol=1e-6)
        np.testing.assert_array_equal(mean[1], alone[1])
        np.testing.assert_array_equal(mean, logits)
    models.inference_model(model).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(outputs_of(loaded, image)[0], found, atol=1e-6)
    groups = models.depth_groups(model)
    heads = {group for layer, group in groups.items() if "logits" in layer}
    assert heads == {max(groups.values())}


def test_a_coarser_stream_lies_on_the_same_ground():
    """A gradient over the ground, as logits of a coarse stream: at the fine stream's pixels its own values."""
    model = fused("resnet", "late", names=PAIR)
    layer = model.get_layer("s1_fusion_resized_logits")
    # Pixel i of the features is pixel 4 i of an image of 20 m: its middle is at 20 * (4 i + 0.5) m.
    ground = 20 * (4 * np.arange(8, dtype="float32") + 0.5)
    found = np.asarray(layer(np.broadcast_to(ground[:, None], (1, 8, 8, 1)), np.zeros((1, 16, 16, 1), "float32")))
    expected = 10 * (4 * np.arange(16) + 0.5)
    np.testing.assert_allclose(found[0, 3, 1:15, 0], expected[1:15], rtol=1e-6)


def test_learned_fusions_get_nothing_of_a_missing_modality():
    image = several_images(PAIR, 32, 32, {"s1": 2})
    image["s1"][0] = np.nan
    for fusion, channels in (("late_learned", 8 + 4), ("residual", 8)):
        (joined,) = inside(fused("resnet", fusion, names=PAIR), image, "fusion_join")
        assert joined.shape == (2, 8, 8, 2 * channels)
        assert (
            not joined[0, ..., channels:].any() and joined[0, ..., :channels].any() and joined[1, ..., channels:].any()
        )


def test_the_virtual_encoder_takes_sums():
    model, image = fused("resnet", "vfusenet", names=PAIR), several_images(PAIR, 32, 32, {"s1": 2})
    image["s1"][0] = np.nan
    own, two, one, total = inside(
        model, image, "virtual_conv2_block1_out", "s2_conv2_block1_out", "s1_conv2_block1_out", "virtual_sum_stage1"
    )
    np.testing.assert_allclose(total[0], (own + two)[0], rtol=1e-5)
    np.testing.assert_allclose(total[1], (own + two + one)[1], rtol=1e-5)
    assert model.get_layer("virtual_conv2_block1_0_conv").input is model.get_layer("virtual_sum_stem").output
    assert model.get_layer("decoder_low_conv").input is model.get_layer("virtual_sum_stage1").output


def test_gates_of_two_dates_come_from_the_other_modalitys_change():
    model = fused("resnet", "attention", "siamese", names=DATES, ratios={})
    image = several_images(DATES)
    channels = inside(model, image, "s2_fusion_low_channels")[0]
    image["s1_before"] = image["s1"].copy()
    still = inside(model, image, "s2_fusion_low_channels", "s2_fusion_low_pixels")
    # Without a change only the biases are left.
    bias = np.asarray(model.get_layer("s2_fusion_low_channels").bias)
    np.testing.assert_allclose(still[0][:, 0, 0], np.broadcast_to(1 / (1 + np.exp(-bias)), (2, len(bias))), atol=1e-6)
    assert np.ptp(still[1]) < 1e-6 and np.abs(channels - still[0]).max() > 1e-4
    image["s1"] *= np.nan
    (mean, own) = inside(model, image, "fusion_low_mean", "s2_of_dates_low_relu")
    np.testing.assert_allclose(mean, own, atol=1e-6)


def test_one_sensor_at_two_dates_through_one_backbone():
    info = reduced_info("deeplab_resnet50")
    names = ("s2", "s2_before")
    model = info("net", several_inputs(names, dates="siamese", seed=3, zero_last_gamma=False))
    single = info("net", network_spec(seed=3, zero_last_gamma=False))
    body = {layer.name for layer in single.layers if layer.weights and layer.name.startswith("conv")}
    for name in body:
        for one, other in zip(model.get_layer(name).weights, single.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(one, other)
    image = several_images(names)
    after, change = inside(model, image, "change_high")
    expected = [inside(single, image[name], "conv5_block1_out")[0] for name in names]
    np.testing.assert_allclose(after, expected[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(change, expected[0] - expected[1], rtol=1e-4, atol=1e-5)
    image["s2_before"][1] = 0
    assert not inside(model, image, "change_low")[1][1].any()
    assert models.count_macs(model, 32, 32) > 1.5 * models.count_macs(single, 32, 32)
    stacked = info("net", several_inputs(names, seed=3))
    assert stacked.get_layer("conv1_conv").kernel.shape[2] == 6


def test_all_sensors_at_two_dates_through_one_backbone():
    ratios = {"s1": 2, "s1_before": 2}
    model = reduced_info("deeplab_resnet50")("net", several_inputs(DATES, dates="siamese", seed=3, ratios=ratios))
    assert model.get_layer("conv1_conv").kernel.shape[2] == 5
    image = several_images(DATES, 40, 32, ratios)
    for one in ("s2", "s1"):
        image[f"{one}_before"] = image[one].copy()
    found = inside(model, image, "change_low")
    assert found[0].any() and not found[1].any()


@pytest.mark.parametrize("fusion", ["attention", *slow("late", "vfusenet")])
def test_another_output_stride(fusion):
    model, finer = (fused("xception", fusion, "siamese", output_stride=stride) for stride in (16, 8))
    names = ("s2", "s2_before", "s1")
    inference, image = models.inference_model(model, None, 8), several_images(names, 48, 33, {"s1": 2})
    assert (models.output_stride_of(model), models.output_stride_of(inference)) == (16, 8)
    np.testing.assert_allclose(outputs_of(inference, image)[0], outputs_of(finer, image)[0], atol=1e-6)


@pytest.mark.parametrize("fusion", ["late", "vfusenet", *slow("residual", "attention")])
def test_each_stream_starts_from_the_same_weights(fusion, monkeypatch, tmp_path):
    monkeypatch.setitem(models.MODELS, "deeplab_resnet50", reduced_info("deeplab_resnet50", blocks=(1, 1)))
    single, _ = models.build("deeplab_resnet50", network_spec(seed=1, output_stride=8, zero_last_gamma=False))
    models.inference_model(single).save(tmp_path / "single.keras")
    spec = several_inputs(PAIR, fusion=fusion, weights=tmp_path / "single.keras", output_stride=8, seed=2)
    model, report = models.build("deeplab_resnet50", spec)
    random = {name for name in report.initialized if "fusion_" not in name}
    assert random == ({"virtual_join_conv", "virtual_join_bn"} if fusion == "vfusenet" else set())
    assert report.inflated == ("s1_conv1_conv",) and "s2_conv1_conv" in report.loaded
    kernel = np.asarray(single.get_layer("conv1_conv").kernel)
    np.testing.assert_allclose(model.get_layer("s1_conv1_conv").kernel, kernel[:, :, :2] / 2, rtol=1e-6)
    image = several_images(PAIR)
    expected = inside(single, image["s2"], "conv3_block1_out")[0]
    np.testing.assert_allclose(inside(model, image, "s2_conv3_block1_out")[0], expected, rtol=1e-4, atol=1e-5)
    if fusion == "late":
        image["s1"] *= np.nan
        np.testing.assert_allclose(outputs_of(model, image)[0], outputs_of(single, image["s2"])[0], atol=1e-6)
    models.inference_model(model).save(tmp_path / "fused.keras")
    again, report = models.build(
        "deeplab_resnet50", dataclasses.replace(spec, weights=tmp_path / "fused.keras", seed=7)
    )
    assert not report.initialized and not report.inflated
    np.testing.assert_allclose(outputs_of(again, image)[0], outputs_of(model, image)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("fusion", "distance_head"),
    [("residual", "cascaded"), pytest.param("attention", "parallel", marks=pytest.mark.slow)],
)
def test_distance_classes_are_fused_too(fusion, distance_head):
    model = fused("resnet", fusion, names=PAIR, distance_classes=5, distance_head=distance_head)
    image = several_images(PAIR, 32, 32, {"s1": 2})
    mask, distance = outputs_of(model, image)
    assert model.output_names == ["probabilities", "distance_logits"]
    assert mask.shape == (2, 32, 32, 4) and distance.shape == (2, 32, 32, 5) and np.ptp(distance) > 1e-4
    trained = models.logits_model(model)
    assert [one.shape[-1] for one in trained.outputs] == [4, 5]
    inference = models.inference_model(model, 32)
    np.testing.assert_allclose(outputs_of(inference, image)[0], mask, atol=1e-6)
    needed = [layer.name for layer in inference.layers if "distance" in layer.name]
    assert bool(needed) == (distance_head == "cascaded")
