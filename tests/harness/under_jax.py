"""Runs networks and losses under JAX where there is no TensorFlow; see tests/eo_keras/models/test_jax.py.

    KERAS_BACKEND=jax python tests/harness/under_jax.py FOLDER

FOLDER holds the reduced networks as `NAME.keras`; `found.npz` and the trained networks are written into it.
"""

import dataclasses
import pathlib
import sys

sys.modules["tensorflow"] = None  # Any import of it fails.

import jax  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402

from eo_keras import models  # noqa: E402
from eo_keras.errors import OptionError  # noqa: E402
from eo_keras.losses.classification import softmax_cross_entropy  # noqa: E402
from eo_keras.losses.segmentation import DenseLoss, right_pixels  # noqa: E402
from eo_keras.losses.uncertainty import TaskWeights  # noqa: E402
from eo_keras.models.layers.unpooling import MaxPoolingWithIndices, MaxUnpooling  # noqa: E402
from eo_keras.training.optimizers import OptimizerOptions, make_optimizer, make_schedule  # noqa: E402
from tests.eo_keras.losses.test_segmentation import CLASSES, OPTIONS, maps  # noqa: E402
from tests.eo_keras.models.layers.test_unpooling import unpooling_case  # noqa: E402
from tests.harness.networks import UNDER_JAX, fused_images, images, network_spec, reduced, reduced_info  # noqa: E402


def draw_by_numpy():
    """Lets NumPy draw initial weights: JAX compiles a function for each shape, which takes most of the time."""

    def draw(initializer, shape, dtype=None):
        return jax.numpy.asarray(np.random.default_rng(0).normal(0, np.prod(shape[:-1]) ** -0.5, shape), dtype)

    for kind in ("VarianceScaling", "TruncatedNormal", "RandomNormal"):
        getattr(keras.initializers, kind).__call__ = draw


def saved_networks(folder):
    """Predictions of the networks that TensorFlow saved."""
    results = {}
    for name in UNDER_JAX:
        model = keras.saving.load_model(folder / f"{name}.keras", safe_mode=True)
        inference = models.inference_model(model)
        results[f"{name}/probabilities"] = inference.predict_on_batch(images(2, 33, 41))
        results[f"{name}/macs"] = models.count_macs(model, 33, 41)
        assert models.depth_groups(models.logits_model(model))["logits"] > 0
    fused = models.inference_model(keras.saving.load_model(folder / "fused.keras", safe_mode=True))
    results["fused/probabilities"] = fused.predict_on_batch(fused_images())
    finer = models.inference_model(keras.saving.load_model(folder / "deeplab_resnet50.keras"), None, 8)
    assert models.output_stride_of(finer) == 8
    results["deeplab_resnet50/stride8"] = finer.predict_on_batch(images(2, 33, 41))
    return results


def built_networks():
    """Networks are built and trained under JAX: precision, dropout, a step of an optimizer, refusals."""
    info = reduced_info("compact", stem=(8, 8), widths=(8,), blocks=(1,))
    training = models.logits_model(info("compact", network_spec(dropout=0.5, seed=1)))
    assert len(models.seed_states(training)) == 1
    values = [
        [one.value for one in group] for group in (training.trainable_variables, training.non_trainable_variables)
    ]
    states = jax.jit(lambda image: training.stateless_call(*values, image, training=True)[1])(images())
    assert any(state.shape == (2,) and state[1] == 1 for state in states)  # Dropout has drawn once.
    draw_by_numpy()
    half = reduced("resnet50", dtype_policy="mixed_bfloat16").predict_on_batch(images())
    assert half.dtype == np.float32 and abs(half.sum(axis=1) - 1).max() < 1e-6
    inception = reduced_info("inception_v3", blocks=(0, 0, 1), enlarge=2)("inception_v3", network_spec(patch_size=32))
    enlarged = keras.Model(inception.input, inception.get_layer("enlarged").output).predict_on_batch(images())
    assert enlarged.shape == (2, 64, 64, 3) and np.isfinite(enlarged).all()
    weight = keras.Variable(np.ones(2), name="kernel")
    optimizer = make_optimizer(OptimizerOptions(warmup_epochs=0), make_schedule(OptimizerOptions(), 2, 10), [weight])
    optimizer.apply([np.ones(2, np.float32)], [weight])
    assert float(weight[0]) < 1
    try:
        reduced("resnet50", synchronized=True)
    except OptionError as error:
        assert "synchronized batch normalization under the jax backend" in str(error)
    else:
        raise AssertionError("synchronized was taken")


def training_steps(folder):
    """Steps on one batch: losses, and logits of the networks that are saved as `OPTIMIZER.keras`.

    A step has no side effects, as JAX requires: weights, moving moments, the state of the dropout and the optimizer's
    variables are its arguments and its results.
    """
    brightness = 60 + 15 * np.arange(10)[:, None, None, None]  # Shows the class.
    image = np.clip(np.random.default_rng(1).normal(brightness, 20, (10, 32, 32, 3)), 1, 255).astype(np.uint8)
    statistics = models.Normalization((128.0,) * 3, (50.0,) * 3)
    results = {"steps/images": image}
    for name, policy, rate in (("sgd", "float32", 0.01), ("muon", "mixed_bfloat16", 0.02)):
        spec = network_spec(dtype="uint8", num_classes=10, patch_size=32, normalization=statistics, seed=1)
        spec = dataclasses.replace(spec, dropout=0.1, dtype_policy=policy)
        model = reduced_info("resnet50", blocks=(1,))("resnet50", spec)
        training = models.logits_model(model)
        options = OptimizerOptions(name, rate, schedule="linear", warmup_epochs=0, final_lr_fraction=1.0)
        optimizer = make_optimizer(options, make_schedule(options, 1, 4), training.trainable_variables)
        groups = (training.trainable_variables, training.non_trainable_variables, optimizer.variables)
        step, state, values = _step(training, optimizer), [[one.value for one in group] for group in groups], []
        for _ in range(4):
            *state, loss = step(*state, image, np.arange(10))
            values.append(float(loss))
        for group, last in zip(groups, state, strict=True):
            for variable, value in zip(group, last, strict=True):
                variable.assign(value)
        inference = models.inference_model(model, 32)
        inference.save(folder / f"{name}.keras")
        logits = keras.Model(inference.input, inference.get_layer("logits").output).predict_on_batch(image)
        results |= {f"steps/{name}/losses": values, f"steps/{name}/logits": logits}
    return results


def _step(training, optimizer):
    def loss_of(trainable, others, image, label):
        logits, others = training.stateless_call(trainable, others, image, training=True)
        return softmax_cross_entropy(label, keras.tree.flatten(logits)[0]).mean(), others

    @jax.jit
    def step(trainable, others, slots, image, label):
        (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable, others, image, label)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return trainable, others, slots, loss

    return step


def losses():
    """Losses, gradients and counts."""
    smoothed = softmax_cross_entropy(np.array([1, 0]), np.array([[0.0, 1.0], [0.0, 1.0]]), label_smoothing=0.1)
    assert abs(np.asarray(smoothed) - [0.363262, 1.263262]).max() < 1e-5
    kinds = [DenseLoss(options, CLASSES) for options in OPTIONS]

    @jax.jit
    def everything(labels, logits):
        def values(logits):
            return jax.numpy.stack([loss.combine(loss.terms(labels, logits)) for loss in kinds])

        return values(logits), jax.jacrev(values)(logits)

    results = {}
    for case, ignored in (("some", 0.3), ("all", 2.0)):
        results[f"losses/{case}"], results[f"gradients/{case}"] = map(np.asarray, everything(*maps(ignored=ignored)))
    labels, logits = maps()
    results["correct"] = np.asarray(right_pixels(labels, logits))
    labels[0, 0, 0] = CLASSES
    results["outside"] = np.asarray(everything(labels, logits)[0])
    return results


def unpooling():
    """The gradient of maxima that are put back where they were, and that of the weights of tasks."""
    image, factors = unpooling_case()

    def loss_of(image):
        maxima, indices = MaxPoolingWithIndices()(image)
        return (MaxUnpooling()(maxima, indices, image) * factors).sum()

    weights = TaskWeights(("mask", "distance"))
    assert float(weights.combine({"mask": 0.5, "distance": 2.0})) == 2.5
    of_weights = jax.grad(lambda values: _total(weights, values))([0.0, 1.0])
    return {"unpooling/gradient": np.asarray(jax.grad(loss_of)(image)), "weights/gradient": np.asarray(of_weights)}


def _total(weights, values):
    with keras.StatelessScope(state_mapping=list(zip(weights.variables, values, strict=True))):
        return weights.combine({"mask": 0.5, "distance": 2.0})


if __name__ == "__main__":
    assert keras.config.backend() == "jax"
    folder = pathlib.Path(sys.argv[1])
    built_networks()
    np.savez(folder / "found.npz", **saved_networks(folder), **training_steps(folder), **losses(), **unpooling())
