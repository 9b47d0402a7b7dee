"""Training steps of this package's models under JAX, and whether TensorFlow gives a trained model's answers too.

The step is the same as under TensorFlow: models, losses and optimizers are written in Keras alone. What JAX asks for is
a step without side effects: weights, moving moments, the dropout's random state and the optimizer's variables go in and
come out.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks import measuring
from eo_keras.core import files
from eo_keras.errors import EOKerasError

IMAGES, ANSWERS = "images.npy", "answers.json"
"""What lies beside the saved models: the images that they were asked about under JAX, and what they said."""

LARGEST_DIFFERENCE = 1e-4
"""What the probabilities of two backends may differ by."""

RATES = {"sgd": 0.01, "adamw": 1e-3, "rmsprop": 1e-3, "muon": 0.02}
"""The optimizers, and the constant learning rate of each."""

_AUX_WEIGHT = 0.3  # That of launch.train, whose options cannot be imported without TensorFlow.
_BANDS = ("B04", "B03", "B02")
_CLASSES = 10
_ASKED = 16


class StepError(EOKerasError):
    """A training step under JAX that does not do what it should."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is trained.

    Attributes:
        dtype_policy: `float32` or `mixed_bfloat16`.
        optimizer: a name of `eo_keras.training.options.OPTIMIZERS`.
        batch_size: examples in a step; all steps take the same ones.
        steps: number of steps, 2 or more; the first one, in which the step is compiled, is not timed.
        patch_size: height and width of the images in pixels.
    """

    dtype_policy: str = "float32"
    optimizer: str = "sgd"
    batch_size: int = 64
    steps: int = 10
    patch_size: int = 64


def keep_tensorflow_out() -> None:
    """Makes sure that this process cannot import TensorFlow; to be called before Keras is imported.

    Keras imports it, where it is installed, as soon as a layer's configuration is written down, whatever its backend.

    Raises:
        StepError: if it is there already.
    """
    if sys.modules.setdefault("tensorflow", None) is not None:
        raise StepError("benchmarks.train_step", "TensorFlow is already imported", "a process of its own")


def begin(folder: pathlib.Path) -> None:
    """Makes a folder forget the answers of models that were trained before."""
    (folder / ANSWERS).unlink(missing_ok=True)


def key(name: str, dtype_policy: str) -> str:
    """Returns what a trained model is called in the folder."""
    return f"{name}-{dtype_policy}"


def batch(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Returns images of noise whose brightness tells their class, and the classes."""
    generator = np.random.default_rng(1)
    label = np.arange(settings.batch_size, dtype=np.int32) % _CLASSES
    size = (settings.batch_size, settings.patch_size, settings.patch_size, len(_BANDS))
    image = generator.normal(60 + 15 * label[:, None, None, None], 20, size)
    return np.clip(image, 1, 255).astype(np.uint8), label


def train(name: str, settings: Settings, folder: pathlib.Path) -> dict[str, Any]:
    """Trains a model for some steps on one batch, and saves it with its answers under JAX.

    Args:
        name: a key of `eo_keras.models.MODELS`.
        settings: how.
        folder: where the model, the images and the answers are put, for `check_saved`.

    Returns:
        `images_per_second`, `compile_seconds` (the first step's), `losses` and `falling`, ready for JSON.

    Raises:
        StepError: if a loss is not finite.
    """
    import jax

    from eo_keras import models
    from eo_keras.runs import folder as runs
    from eo_keras.training import optimizers

    image, label = batch(settings)
    statistics = models.Normalization((128.0,) * 3, (50.0,) * 3)
    image_input = models.ImageInput(_BANDS, "uint8", statistics, settings.patch_size)
    spec = models.NetworkSpec({models.IMAGE: image_input}, _CLASSES, dtype_policy=settings.dtype_policy, seed=1)
    model, _ = models.build(name, spec)
    training = models.logits_model(model)
    options = optimizers.OptimizerOptions(
        settings.optimizer, RATES[settings.optimizer], schedule="linear", warmup_epochs=0, final_lr_fraction=1.0
    )
    optimizer = optimizers.make_optimizer(
        options, optimizers.make_schedule(options, 1, settings.steps), training.trainable_variables
    )
    groups = (training.trainable_variables, training.non_trainable_variables, optimizer.variables)
    # Copies: the step gives their memory to what takes their place.
    state = [[jax.numpy.array(variable.value, copy=True) for variable in group] for group in groups]
    on_device = jax.device_put((image, label))
    step = jax.jit(_make_step(training, optimizer), donate_argnums=(0,))
    started = time.perf_counter()
    state, loss = jax.block_until_ready(step(state, *on_device))
    compiled, found = time.perf_counter(), [loss]
    for _ in range(settings.steps - 1):
        state, loss = step(state, *on_device)
        found.append(loss)
    jax.block_until_ready(state)
    seconds = time.perf_counter() - compiled
    losses = [float(loss) for loss in found]
    if not np.isfinite(losses).all():
        raise StepError(f"{name} in {settings.dtype_policy}", f"a loss is not finite: {losses}", "finite numbers")
    for group, values in zip(groups, state, strict=True):
        for variable, value in zip(group, values, strict=True):
            variable.assign(value)
    twin = models.inference_model(model, settings.patch_size)
    saved = key(name, settings.dtype_policy)
    runs.save_model(twin, folder / f"{saved}.keras")
    np.save(folder / IMAGES, image[:_ASKED])
    # A GPU would round the factors of convolutions to 10 bits.
    with jax.default_matmul_precision("highest"):
        answers = _answers(twin, image[:_ASKED])
    path = folder / ANSWERS
    known = json.loads(path.read_text()) if path.is_file() else {}
    files.write_json(path, known | {saved: {name: values.tolist() for name, values in answers.items()}})
    jax.clear_caches()
    return {
        "parameters": twin.count_params(),
        "images_per_second": settings.batch_size * (settings.steps - 1) / seconds,
        "compile_seconds": compiled - started,
        "losses": losses,
        "falling": losses[-1] < losses[0],
    }


def _answers(model: Any, image: np.ndarray) -> dict[str, np.ndarray]:
    """Returns probabilities, and logits: of few steps' training, probabilities may be 0 and 1 and hide a difference."""
    import keras

    from eo_keras.models.layers.factory import LOGITS

    asked = keras.Model(model.input, [model.output, model.get_layer(LOGITS).output])
    probabilities, logits = asked.predict_on_batch(image)
    return {"probabilities": np.asarray(probabilities), "logits": np.asarray(logits)}


def _make_step(training: Any, optimizer: Any) -> Callable[..., Any]:
    import jax
    import keras

    from eo_keras.losses.classification import softmax_cross_entropy

    def loss_of(trainable, others, image, label):
        outputs, others = training.stateless_call(trainable, others, image, training=True)
        logits, *auxiliary = keras.tree.flatten(outputs)
        loss = softmax_cross_entropy(label, logits).mean()
        for more in auxiliary:
            loss += _AUX_WEIGHT * softmax_cross_entropy(label, more).mean()
        return loss, others

    def step(state, image, label):
        trainable, others, slots = state
        (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable, others, image, label)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return [trainable, others, slots], loss

    return step


def line(found: Mapping[str, Any]) -> str:
    """Tells in one line what training came to."""
    first, last = found["losses"][0], found["losses"][-1]
    falling = "falls" if found["falling"] else "DOES NOT FALL"
    return (
        f"loss {falling} from {first:.3f} to {last:.3f}, {found['images_per_second']:,.1f} images/s, "
        f"compiled in {found['compile_seconds']:.0f} s"
    )


def table(result: Mapping[str, Any]) -> list[str]:
    """Returns what was shown as a Markdown table, a row a model and precision; rates are for the device's own log."""
    lines = [
        "| model | precision | first loss | last loss | probabilities differ under TensorFlow by "
        "| logits, as a share of the largest, by |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, policies in result["models"].items():
        for policy, found in policies.items():
            difference = found["largest_difference"]
            missed = "" if difference < LARGEST_DIFFERENCE else f" (more than {LARGEST_DIFFERENCE:g})"
            rising = "" if found["falling"] else " (not lower)"
            lines.append(
                f"| {name} | {policy} | {found['losses'][0]:.3f} | {found['losses'][-1]:.3f}{rising} "
                f"| {difference:.1e}{missed} | {found['largest_logit_difference']:.1e} |"
            )
    return lines


def device() -> dict[str, Any]:
    """Returns what JAX computes on, and the packages' versions."""
    import jax

    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "device": first.device_kind,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
    }


def check_saved(folder: pathlib.Path) -> dict[str, dict[str, float]]:
    """Asks saved models the same under TensorFlow.

    Returns:
        By model, how much it says otherwise than under JAX: `largest_difference` of a probability, and
        `largest_logit_difference` as a share of the largest logit.

    Raises:
        MeasurementError: if the folder has no models of `train`.
        RunError: if a model cannot be loaded.
    """
    if not (folder / ANSWERS).is_file():
        raise measuring.MeasurementError("--check_saved", f"{folder} holds no {ANSWERS}", "a folder of --saved_dir")
    from eo_keras.runs import folder as runs

    image, said = np.load(folder / IMAGES), json.loads((folder / ANSWERS).read_text())
    differences = {}
    for name, answers in said.items():
        found = _answers(runs.load_model(folder / f"{name}.keras"), image)
        apart = {kind: float(np.abs(found[kind] - np.asarray(values)).max()) for kind, values in answers.items()}
        differences[name] = {
            "largest_difference": apart["probabilities"],
            "largest_logit_difference": apart["logits"] / float(np.abs(found["logits"]).max()),
        }
    return differences


def choose_tensorflow() -> None:
    """Makes this process one of TensorFlow on the processor; to be called before Keras is imported."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # The GPU's memory is another process's, which waits for this one.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
