"""Networks for pre-training: what they predict, and which weights a network of classes takes from them."""

import dataclasses

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.errors import OptionError
from eo_keras.models.pretrained.weights import load_backbones
from tests.harness.networks import outputs_of, reduced, reduced_info, several_images, several_inputs, weights_of

NAMES, RATIOS = ("s2", "s1"), {"s1": 2}
CLASSES = 5
"""As many as the bands: shapes alone would not tell the heads apart."""


def network(name, fusion, **choices):
    spec = several_inputs(NAMES, CLASSES, ratios=RATIOS, fusion=fusion, **choices)
    if name == "segnet":
        return spec, reduced(name, spec)
    return spec, reduced_info(name, blocks=(1, 1))(name, dataclasses.replace(spec, output_stride=8))


CASES = [
    ("segnet", None),
    ("deeplab_resnet50", "residual"),
    *(
        pytest.param("deeplab_resnet50", fusion, marks=pytest.mark.slow)
        for fusion in models.FUSIONS
        if fusion != "residual"
    ),
]


@pytest.mark.parametrize(("name", "fusion"), CASES)
def test_all_but_the_head_starts_from_a_reconstruction(name, fusion, tmp_path):
    spec, before = network(name, fusion, seed=1, reconstruction=CLASSES)
    assert spec.channels == CLASSES
    image = several_images(NAMES, ratios=RATIOS)
    (found,) = outputs_of(before, image)
    assert found.shape == (2, 32, 32, CLASSES) and found.dtype == np.float32
    (logits,) = keras.tree.flatten(models.logits_model(before)(image))
    np.testing.assert_array_equal(logits, found)
    saved = models.inference_model(before)
    saved.save(tmp_path / "a.keras")
    np.testing.assert_allclose(outputs_of(keras.saving.load_model(tmp_path / "a.keras"), image)[0], found, atol=1e-5)

    spec, after = network(name, fusion, seed=2)
    bands = {one: given.bands for one, given in spec.inputs.items()}
    report = load_backbones(after, tmp_path / "a.keras", bands, spec.stems)
    given, own = weights_of(saved), weights_of(after)
    taken = {path for path in own if path.split("/")[0] in report.loaded}
    assert taken == own.keys() & given.keys()
    for path in taken:
        np.testing.assert_array_equal(own[path], given[path])
    heads = {path.split("/")[0] for path in own.keys() - taken}
    assert heads == set(report.initialized) and not report.inflated
    assert all("scores" in one or one == "logits" or "joined" in one or "correction3" in one for one in heads), heads
    assert {path.split("/")[0] for path in given.keys() - own.keys()}.isdisjoint(report.loaded)


def test_what_does_not_reconstruct():
    with pytest.raises(OptionError, match="reconstruction: it is given together with `distance_classes`"):
        several_inputs(NAMES, distance_classes=5, reconstruction=5)
    with pytest.raises(OptionError, match="reconstruction: for compact, a classification network"):
        models.build("compact", several_inputs(NAMES, reconstruction=5))
    with pytest.raises(OptionError, match="reconstruction: 0 bands; expected at least 1"):
        several_inputs(NAMES, reconstruction=0)
