"""DeepLabv3+ under JAX: the same answers as under TensorFlow, from the same file."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest

from eo_keras import models
from eo_keras.models import Normalization
from eo_keras.models.backbones.resnet import resnet_features
from eo_keras.models.segmentation.deeplab import build_deeplab

JAX_SCRIPT = """
import sys
sys.modules["tensorflow"] = None
import keras, numpy as np
from eo_keras import models
folder = sys.argv[1]
assert keras.config.backend() == "jax"
image = np.load(folder + "/image.npy")
model = keras.saving.load_model(folder + "/model.keras", safe_mode=True)
np.save(folder + "/answer.npy", model.predict(image, verbose=0))
twin = models.inference_twin(model, None, 8)
assert models.output_stride_of(twin) == 8
np.save(folder + "/finer.npy", twin.predict(image, verbose=0))
training = models.training_model(model)
assert training.outputs[0].shape == (None, None, None, 3)
assert models.depth_groups(training)["logits"] > 0
assert models.multiply_adds(model, 33, 41) == int(sys.argv[2])
"""


def test_the_same_model_under_jax_without_tensorflow(tmp_path):
    pytest.importorskip("jax")
    backbone = functools.partial(resnet_features, blocks=(1, 1, 1, 1), width=4, zero_last_gamma=False)
    model = build_deeplab(
        bands=("B04", "B03", "B02"),
        num_classes=3,
        normalisation=Normalization((1500.0,) * 3, (800.0,) * 3),
        input_dtype="uint16",
        backbone=backbone,
        depth=8,
        low_depth=4,
        seed=1,
    )
    scores = model.get_layer("decoder_scores")
    scores.kernel.assign(scores.kernel * 100)  # Answers that differ from place to place.
    model.save(tmp_path / "model.keras")
    image = np.random.default_rng(0).integers(1, 3000, (1, 33, 41, 3)).astype("uint16")
    np.save(tmp_path / "image.npy", image)
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # To optimise each small function takes far longer than to run it.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    work = str(models.count_macs(model, 33, 41))
    command = [sys.executable, "-c", JAX_SCRIPT, str(tmp_path), work]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    finer = models.inference_model(model, None, 8)
    for asked, name in ((model, "answer"), (finer, "finer")):
        expected = np.asarray(asked(image))
        assert np.ptp(expected[..., 0]) > 0.05
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected, atol=1e-4)
