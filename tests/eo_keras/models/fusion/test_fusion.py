"""Promises of all fusions, on reduced networks: outputs, precision, seeds, saving, sizes, what learns, missing data."""

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.models.graph import sources
from eo_keras.models.layers.factory import is_head
from tests.harness.networks import FUSED_INPUTS as NAMES
from tests.harness.networks import FUSED_RATIOS as RATIOS
from tests.harness.networks import outputs_of, reduced, reduced_fusion, several_images, several_inputs, weights_of

CASES = [
    ("resnet", "vfusenet", "siamese"),
    ("resnet", "attention", "siamese"),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ("resnet", "late", None),
            ("resnet", "late_learned", "siamese"),
            ("resnet", "residual", None),
            ("xception", "late", "siamese"),
            ("xception", "vfusenet", None),
            ("xception", "attention", None),
        )
    ),
]
"""Backbone, fusion and dates."""

STREAMS = [fusion for fusion in models.FUSIONS if fusion != "early"]


def fused(backbone, fusion, dates=None, names=NAMES, ratios=RATIOS, **choices):
    if backbone == "resnet":
        return reduced_fusion(fusion, dates, names=names, ratios=ratios, **choices)
    choices = {"seed": 3, "zero_last_gamma": False} | choices
    return reduced("deeplab_xception65", several_inputs(names, ratios=ratios, fusion=fusion, dates=dates, **choices))


def gradients_of(model, image):
    """Returns the gradient of each trainable weight by path."""
    tf = pytest.importorskip("tensorflow")
    trained = models.logits_model(model)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(trained(image, training=True)[..., 0] ** 2)
    paths = [one.path for one in trained.trainable_variables]
    return dict(zip(paths, tape.gradient(loss, trained.trainable_variables), strict=True))


@pytest.mark.parametrize(("backbone", "fusion", "dates"), CASES)
def test_fusion(backbone, fusion, dates, tmp_path):
    model = fused(backbone, fusion, dates, synchronized=keras.config.backend() == "tensorflow")
    half = fused(backbone, fusion, dates, dtype_policy="mixed_bfloat16")
    weights, same = weights_of(model), weights_of(half)
    assert set(weights) == set(same) and all(np.array_equal(value, same[path]) for path, value in weights.items())
    kernels = {path: value for path, value in weights.items() if path.endswith("kernel")}
    assert len({value.tobytes() for value in kernels.values()}) == len(kernels)

    image = several_images(NAMES, 37, 50, RATIOS)
    (expected,) = outputs_of(model, image)
    assert expected.shape == (2, 37, 50, 4) and expected.dtype == np.float32 and np.ptp(expected) > 1e-5
    np.testing.assert_allclose(expected.sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(outputs_of(half, image)[0], expected, atol=0.05)
    assert {layer.compute_dtype for layer in half.layers if layer.name.endswith("1_conv")} == {"bfloat16"}
    assert half.get_layer("logits").compute_dtype == "float32"

    models.inference_model(model).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(outputs_of(loaded, image)[0], expected, atol=1e-6)
    warm = models.with_temperature(loaded, 1e6)
    np.testing.assert_allclose(outputs_of(warm, image)[0], 0.25, atol=1e-3)

    gradients = gradients_of(model, image)
    assert not [path for path, one in gradients.items() if one is None or not np.abs(one).max() > 0]
    groups, before = models.depth_groups(model), sources(model)
    assert all(groups[source.name] <= groups[layer.name] for layer, taken in before.items() for source in taken)
    heads = {path.split("/")[0] for path in gradients if is_head(path.split("/")[0])}
    assert {groups[layer] for layer in heads} == {max(groups.values())}
    assert groups["s2_conv1_conv"] == groups["s1_conv1_conv"] == 0
    models.set_trainable(model, only_head=True, frozen_batch_norm=False)
    assert {one.path.split("/")[0] for one in model.trainable_variables} == heads
    assert not any(layer.startswith(("s2_conv", "s1_conv", "s1_block", "virtual_conv")) for layer in heads)


@pytest.mark.parametrize("fusion", STREAMS)
def test_a_missing_modality_does_not_disturb(fusion, dates="siamese"):
    model = fused("resnet", fusion, dates)
    image = several_images(NAMES, 32, 32, RATIOS)
    image["s1"][0] = np.nan
    both = outputs_of(model, image)[0]
    own = [layer for layer in model.layers if layer.name.startswith("s1_") and "_fusion_" not in layer.name]
    for layer in own:
        layer.set_weights([value + 0.5 for value in layer.get_weights()])
    other = outputs_of(model, image)[0]
    np.testing.assert_allclose(other[0], both[0], atol=1e-6)
    assert np.abs(other[1] - both[1]).max() > 1e-4
    image["s2"][1] = 0
    only = outputs_of(model, image)[0]
    for layer in model.layers:
        if layer.name.startswith("s2_") and "_fusion_" not in layer.name:
            layer.set_weights([value + 0.5 for value in layer.get_weights()])
    np.testing.assert_allclose(outputs_of(model, image)[0][1], only[1], atol=1e-6)
    image = {name: one * 0 if name != "s1" else one * np.nan for name, one in image.items()}
    assert np.isfinite(outputs_of(model, image)[0]).all()
