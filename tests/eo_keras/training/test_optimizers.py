"""Optimizers: decay, rates by layer, and clipping; several devices are in test_distribution."""

import keras
import numpy as np
import pytest

from eo_keras.errors import OptionError
from eo_keras.training.optimizers import _orthogonal, make_optimizer, make_schedule
from eo_keras.training.options import OPTIMIZERS, OptimizerOptions


def variable(value, name="kernel"):
    return keras.Variable(np.asarray(value, np.float32), name=name)


def constant(**changes):
    """Options of a constant rate, without decay unless asked for."""
    given = {"schedule": "linear", "final_lr_fraction": 1.0, "warmup_epochs": 0, "weight_decay": 0.0, "momentum": 0.0}
    return OptimizerOptions(**(given | changes))


def optimizer_of(options, variables, **keywords):
    return make_optimizer(options, make_schedule(options, 1, 10), variables, **keywords)


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop"])
def test_weight_decay_is_for_kernels_alone(name):
    options = OptimizerOptions(name, learning_rate=0.5, weight_decay=0.1, warmup_epochs=0, momentum=0.0)
    kernel, bias, gamma = (keras.Variable(np.ones(3), name=title) for title in ("kernel", "bias", "gamma"))
    optimizer = make_optimizer(options, make_schedule(options, 1, 10_000), [kernel, bias, gamma])
    optimizer.apply([np.zeros(3, np.float32)] * 3, [kernel, bias, gamma])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(kernel), 0.95, rtol=1e-6)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(bias), 1)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(gamma), 1)


def test_decay_under_momentum_is_as_strong_as_said():
    # Decoupled decay takes rate * decay a step; an L2 penalty p under momentum m settles at rate * p / (1 - m) a step.
    options = OptimizerOptions(learning_rate=0.01, weight_decay=0.02, momentum=0.9, nesterov=False, warmup_epochs=0)
    decoupled = keras.Variable(1.0, name="kernel")
    optimizer = make_optimizer(options, make_schedule(options, 1, 10**9), [decoupled])
    for _ in range(400):
        optimizer.apply([np.float32(0)], [decoupled])
    weight, velocity = 1.0, 0.0
    for _ in range(400):
        velocity = 0.9 * velocity - 0.01 * 0.02 * (1 - 0.9) * weight
        weight += velocity
    assert float(decoupled) == pytest.approx(weight, rel=2e-3)


def test_the_whole_gradient_is_clipped():
    one, other = variable([0.0, 0.0]), variable([0.0], "bias")
    optimizer = optimizer_of(constant(learning_rate=1.0, nesterov=False, clip_norm=1.0), [one, other])
    optimizer.apply([np.float32([3.0, 0.0]), np.float32([4.0])], [one, other])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(one), [-0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(other), [-0.8], rtol=1e-6)
    # What is short enough already stays as it is.
    optimizer.apply([np.float32([0.3, 0.0]), np.float32([0.4])], [one, other])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(one), [-0.9, 0.0], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop"])
def test_layers_farther_from_the_head_change_less(name):
    layers = [keras.layers.Dense(1, name=title) for title in ("first", "second", "head")]
    for layer in layers:
        layer.build((None, 1))
        layer.kernel.assign([[1.0]])
    variables = [layer.kernel for layer in layers]
    options = constant(optimizer=name, learning_rate=0.1, layer_decay=0.5, weight_decay=0.2)
    optimizer = optimizer_of(options, variables, groups={"first": 0, "second": 1, "head": 2})
    optimizer.apply([np.float32([[0.5]])] * 3, variables)
    moved = [1.0 - float(one[0, 0]) for one in variables]
    # Decay and step alike: a rate that is half as high.
    np.testing.assert_allclose([moved[1] / moved[2], moved[0] / moved[2]], [0.5, 0.25], rtol=0.02)


@pytest.mark.parametrize("shape", [(90, 12), (12, 90), (20, 20)])
def test_directions_are_made_orthogonal(shape):
    random = np.random.default_rng(3)
    left, _, right = np.linalg.svd(random.normal(size=shape), full_matrices=False)
    matrix = (left * np.geomspace(1, 0.02, min(shape))) @ right
    found = keras.ops.convert_to_numpy(_orthogonal(keras.ops.convert_to_tensor(matrix, "float32")))
    values = np.linalg.svd(found, compute_uv=False)
    assert 0.6 < values.min() and values.max() < 1.3
    # The singular vectors stay: in their basis it is diagonal.
    inside = left.T @ found @ right.T
    np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=2e-3)


def test_muon_turns_kernels_and_moves_the_rest_by_sgd():
    random = np.random.default_rng(4)
    kernel, beta = variable(random.normal(size=(3, 3, 8, 16))), variable([1.0], "beta")
    options = constant(optimizer="muon", learning_rate=0.1, sgd_learning_rate=0.5, momentum=0.9)
    optimizer = optimizer_of(options, [kernel, beta], normalised={kernel.path})
    before = kernel.numpy()
    gradient = random.normal(size=before.shape).astype(np.float32)
    optimizer.apply([gradient, np.float32([2.0])], [kernel, beta])
    after = kernel.numpy()
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), rel=1e-5)
    # A step of a tenth of the kernel's length, about at a right angle to it, against the gradient.
    cosine = (after * before).sum() / np.linalg.norm(before) ** 2
    assert np.arccos(cosine) == pytest.approx(0.1, rel=0.1)
    assert ((after - before) * gradient).sum() < 0
    # Nesterov's first step: (1 + momentum) times rate and gradient.
    np.testing.assert_allclose(beta.numpy(), 1 - 0.5 * 1.9 * 2.0, rtol=1e-5)


def test_muon_lets_a_kernel_grow_that_no_batch_normalisation_follows():
    inner, logits = variable(np.ones((1, 1, 5, 4)), "inner"), variable(np.ones((1, 1, 4, 3)), "logits")
    options = constant(optimizer="muon", learning_rate=0.1, sgd_learning_rate=0.5, momentum=0.5)
    optimizer = optimizer_of(options, [inner, logits], normalised={inner.path})
    optimizer.apply([np.ones(one.shape, np.float32) for one in (inner, logits)], [inner, logits])
    assert np.linalg.norm(inner.numpy()) == pytest.approx(np.sqrt(20), rel=1e-5)
    # Nesterov's first step: (1 + momentum) times rate and gradient.
    np.testing.assert_allclose(logits.numpy(), 1 - 0.5 * 1.5, rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_momentum_a_step_depends_on_its_gradient_alone(name):
    random = np.random.default_rng(4)
    start, gradients = random.normal(size=(3, 3, 4, 8)), random.normal(size=(2, 3, 3, 4, 8)).astype(np.float32)
    kernel, same = variable(start), variable(start)
    options = constant(optimizer=name, learning_rate=0.1, momentum=0.0, weight_decay=0.0, nesterov=True)
    optimizers = [optimizer_of(options, [one], normalised={one.path}) for one in (kernel, same)]
    optimizers[0].apply([gradients[0]], [kernel])
    assert np.isfinite(kernel.numpy()).all() and np.abs(kernel.numpy() - start).max() > 1e-3
    if name in ("sgd", "muon"):
        # What came before leaves nothing behind but the weights.
        same.assign(kernel)
        for optimizer, one in zip(optimizers, (kernel, same), strict=True):
            optimizer.apply([gradients[1]], [one])
        np.testing.assert_array_equal(kernel.numpy(), same.numpy())


def test_depthwise_kernels_do_not_decay():
    kernel, depthwise = keras.Variable(np.ones(3), name="kernel"), keras.Variable(np.ones(3), name="kernel")
    depthwise._path = "sep_depthwise/kernel"
    optimizer = optimizer_of(
        constant(learning_rate=0.5, weight_decay=0.1), [kernel, depthwise], undecayed={"sep_depthwise/kernel"}
    )
    optimizer.apply([np.zeros(3, np.float32)] * 2, [kernel, depthwise])
    np.testing.assert_allclose(kernel.numpy(), 0.95, rtol=1e-6)
    np.testing.assert_array_equal(depthwise.numpy(), 1)


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_adam_with_decay_is_adamw(momentum):
    own, theirs = variable([0.5, -2.0]), variable([0.5, -2.0])
    options = constant(optimizer="adamw", learning_rate=0.01, weight_decay=0.3, momentum=momentum)
    optimizer = optimizer_of(options, [own])
    reference = keras.optimizers.AdamW(0.01, weight_decay=0.3, beta_1=momentum)
    reference.build([theirs])
    for step in range(5):
        gradient = np.float32([np.sin(step), 1.0])
        optimizer.apply([gradient], [own])
        reference.apply([gradient], [theirs])
    np.testing.assert_allclose(own.numpy(), theirs.numpy(), rtol=1e-6)


def test_half_precision_scales_its_loss_and_clips_what_is_scaled_back():
    kernel = variable([0.0])
    options = constant(learning_rate=1.0, nesterov=False, clip_norm=1.0)
    optimizer = optimizer_of(options, [kernel], scale_loss=True)
    factor = float(optimizer.scale_loss(np.float32(1.0)))
    assert factor > 1000
    optimizer.apply([np.float32([0.5 * factor])], [kernel])
    np.testing.assert_allclose(kernel.numpy(), [-0.5], rtol=1e-3)
    optimizer.apply([np.float32([np.inf])], [kernel])
    np.testing.assert_allclose(kernel.numpy(), [-0.5], rtol=1e-3)  # Left out.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": "lion"}, "one of sgd, adamw, rmsprop, muon"),
        ({"schedule": "step"}, "one of cosine, linear, poly, piecewise"),
        ({"learning_rate": 0.0}, "learning_rate: 0.0"),
        ({"momentum": 1.0}, "momentum: 1.0"),
        ({"sgd_learning_rate": 0.0}, "sgd_learning_rate: 0.0"),
        ({"final_lr_fraction": 1.5}, "final_lr_fraction: 1.5"),
        ({"layer_decay": 0.0}, "layer_decay: 0.0"),
        ({"clip_norm": -1.0}, "clip_norm: -1.0"),
        ({"weight_decay": -1.0}, "weight_decay: -1.0"),
        ({"decay_epochs": (3,)}, "expected `schedule=piecewise`"),
        ({"schedule": "piecewise"}, "decay_epochs: none are given"),
    ],
)
def test_options_that_cannot_work(change, words):
    with pytest.raises(OptionError, match=words):
        OptimizerOptions(**change)


def test_epochs_outside_the_run():
    with pytest.raises(OptionError, match="warmup_epochs: 5 in a run of 5 epochs"):
        make_schedule(OptimizerOptions(warmup_epochs=5), 5, 10)
    with pytest.raises(OptionError, match="decay_epochs: 7 in a run of 5 epochs"):
        make_schedule(OptimizerOptions(schedule="piecewise", decay_epochs=(2, 7)), 5, 10)
