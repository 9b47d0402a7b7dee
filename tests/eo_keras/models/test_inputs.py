"""Several inputs: which go together, early fusion in every network, sizes, pretrained weights."""

import dataclasses

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.errors import OptionError, SourceError
from eo_keras.models.backbones.resnet import build_resnet
from tests.harness.networks import RGB, network_spec, outputs_of, reduced, reduced_info, several_images, several_inputs

NAMES = ("s2", "s2_before", "s1")


@pytest.mark.parametrize(
    ("names", "choices", "message"),
    [
        (("s2",), {}, "inputs: s2; expected one input named 'image', or several by the names of their modalities"),
        (("image", "s1"), {}, "inputs: image, s1; expected one input named 'image'"),
        ((), {}, "inputs: none; expected one input"),
        (("s2_before", "s1"), {}, "inputs: 's2_before' without 's2'; expected both dates"),
        (("s2", "s2_before"), {"fusion": "late"}, "fusion: 'late' for the inputs s2, s2_before; expected at least two"),
        (("image",), {"fusion": "early"}, "fusion: 'early' for the inputs image; expected at least two modalities"),
        (("s2", "s1"), {"fusion": "middle"}, "fusion: 'middle'; expected one of early, late, late_learned"),
        (("s2", "s1"), {"dates": "stacked"}, "dates: 'stacked' for the inputs s2, s1; expected an input named '..._be"),
        (("s2", "s2_before"), {"dates": "both"}, "dates: 'both'; expected one of stacked, siamese"),
        (
            NAMES,
            {"stream_logits": True},
            "stream_logits: fusion 'None'; expected classes, and a fusion out of late",
        ),
        (
            NAMES,
            {"stream_logits": True, "fusion": "late", "reconstruction": 8},
            "stream_logits: it is given together with `reconstruction`; expected classes",
        ),
        (NAMES, {"dates": "siamese"}, "dates: 'siamese' with early fusion, where 's1' has one date"),
    ],
)
def test_inputs_that_do_not_go_together(names, choices, message):
    with pytest.raises(OptionError, match=message):
        several_inputs(names, **choices)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"s1": {"ratio": 0}}, "ratio: 0; expected at least 1"),
        ({"s2": {"ratio": 2}, "s2_before": {"ratio": 2}, "s1": {"ratio": 4}}, "ratio: none of 1 among the inputs"),
        ({"s2_before": {"ratio": 2}}, "two dates of 's2' that differ; expected the same bands, dtype and resolution"),
        (
            {"s1": {"patch_size": 64}},
            "patch_size: s2 None x 1, s2_before None x 1, s1 64 x 1; expected inputs of",
        ),
    ],
)
def test_resolutions_that_do_not_go_together(changes, message):
    inputs = several_inputs(NAMES).inputs
    with pytest.raises(OptionError, match=message):
        models.NetworkSpec({name: dataclasses.replace(one, **changes.get(name, {})) for name, one in inputs.items()}, 4)


def test_modalities_and_stems():
    spec = several_inputs(("s1", "s2_before", "s2"))
    assert spec.modalities == {"s1": ("s1",), "s2": ("s2", "s2_before")}
    assert spec.stems == {"": ("s1", "s2", "s2_before")}
    assert dataclasses.replace(spec, fusion="late").stems == {"s1_": ("s1",), "s2_": ("s2", "s2_before")}
    siamese = dataclasses.replace(spec, fusion="late", dates="siamese")
    assert siamese.stems == {"s1_": ("s1",), "s2_": ("s2",)}
    assert network_spec().stems == {"": ("image",)}


@pytest.mark.parametrize("name", ["resnet50", "googlenet", "deeplab_resnet50"])
def test_every_network_takes_several_inputs_stacked(name, tmp_path):
    model = reduced(name, several_inputs(NAMES, ratios={"s1": 2}, seed=3, zero_last_gamma=False, dropout=0.25))
    image = several_images(NAMES, 40, 36, ratios={"s1": 2})
    image["s1"][0] = np.nan
    models.logits_model(model)(image, training=True)
    models.logits_model(model)(image, training=True)
    expected = outputs_of(model, image)[0]
    assert np.isfinite(expected).all()
    assert expected.shape == ((2, 40, 36, 4) if name.startswith("deeplab") else (2, 4))
    bands = np.asarray(keras.Model(model.input, model.get_layer("stacked_inputs").output)(image))
    assert bands.shape == (2, 40, 36, 8) and not bands[0, ..., 6:].any()
    np.testing.assert_allclose(bands[..., 3:6], (image["s2_before"] - np.float32(1500)) / 800, atol=1e-6)
    assert models.normalizations(model)["s1"].bands == ("VV", "VH")

    inference = models.inference_model(model, 64)
    assert {one.name: one.shape for one in inference.inputs} == {
        "s1": (None, 32, 32, 2), "s2": (None, 64, 64, 3), "s2_before": (None, 64, 64, 3)
    }  # fmt: skip
    models.inference_model(inference).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(outputs_of(loaded, image)[0], expected, atol=1e-6)
    warm = models.with_temperature(loaded, 2.0)
    np.testing.assert_allclose(outputs_of(warm, image)[0], softmax(np.log(expected) / 2), atol=1e-6)


def softmax(values):
    powers = np.exp(values)
    return powers / powers.sum(axis=-1, keepdims=True)


def test_work_and_sizes_of_several_inputs():
    one, several = (
        build_resnet(spec, blocks=(1, 1), width=8)
        for spec in (network_spec(tuple("abcdefgh")), several_inputs(NAMES, ratios={"s1": 2}))
    )
    assert models.count_macs(one, 32, 48) == models.count_macs(several, 32, 48)
    assert models.fewest_values(one, 32) == models.fewest_values(several, 32)


def test_a_classifier_has_no_other_fusion():
    with pytest.raises(OptionError, match="fusion: 'late' for resnet14; expected one of early"):
        models.build("resnet14", several_inputs(("s2", "s1"), fusion="late"))
    spec = several_inputs(("s2", "s1"), patch_size=16)
    with pytest.raises(OptionError, match="patch_size: 16 pixels; expected at least 32"):
        models.build("resnet14", spec)


def test_weights_of_one_input_and_of_the_same_inputs(monkeypatch, tmp_path):
    monkeypatch.setitem(models.MODELS, "resnet50", reduced_info("resnet50"))
    single = reduced("resnet50", normalization=models.Normalization((1500.0,) * 3, (800.0,) * 3), scale=(5.0, 6.0, 7.0))
    models.inference_model(single).save(tmp_path / "single.keras")
    model, report = models.build("resnet50", several_inputs(NAMES, weights=tmp_path / "single.keras"))
    kernel, found = (np.asarray(one.get_layer("conv1_conv").kernel) for one in (single, model))
    expected = np.concatenate([kernel / 3, kernel / 3, kernel[:, :, :2] / 6], axis=2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert report.inflated == ("conv1_conv",) and not report.initialized
    assert "s2_before:B03 from B03 x 0.333" in report.summary() and "s1:VH from B03 x 0.167" in report.summary()
    scales = {name: layer.scale for name, layer in models.normalizations(model).items()}
    assert scales == {"s2": (5.0, 6.0, 7.0), "s2_before": (5.0, 6.0, 7.0), "s1": (5.0, 6.0)}

    models.inference_model(model).save(tmp_path / "several.keras")
    again, report = models.build("resnet50", several_inputs(NAMES, weights=tmp_path / "several.keras", seed=5))
    assert not report.initialized and not report.inflated
    assert models.normalizations(again)["s1"].scale == (5.0, 6.0)
    image = several_images(NAMES)
    np.testing.assert_allclose(outputs_of(again, image)[0], outputs_of(model, image)[0], atol=1e-6)
    found = "a model of the inputs s1:VV,VH; s2:B04,B03,B02; s2_before:B04,B03,B02; expected one input, or image:B04"
    with pytest.raises(SourceError, match=found):
        models.build("resnet50", network_spec(RGB, weights=tmp_path / "several.keras"))
