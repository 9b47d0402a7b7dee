"""Losses over pixels: what counts, what is ignored, and that sums over devices give the loss of the whole batch."""

import keras
import numpy as np
import pytest
from keras import ops

from eo_keras.errors import OptionError
from eo_keras.losses import SEGMENTATION_LOSSES
from eo_keras.losses.class_weights import effective_number_weights, median_frequency_weights
from eo_keras.losses.segmentation import (
    DenseLoss,
    DenseLossOptions,
    pixel_losses,
    right_pixels,
    whole_sums,
)
from tests.launch.commands import start

CLASSES = 4


def maps(seed=1, shape=(2, 5, 6), ignored=0.3):
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, shape).astype(np.uint8)
    labels[random.random(shape) < ignored] = 255
    return labels, random.normal(0, 2, (*shape, CLASSES))


def entropies(labels, logits):
    """Cross-entropies of the labelled pixels, by plain numpy."""
    shifted = logits - logits.max(-1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    known = labels != 255
    return -np.take_along_axis(logs[known], labels[known].astype(int)[:, None], -1)[:, 0], np.exp(logs[known])


def loss_of(options, labels, logits):
    loss = DenseLoss(options, CLASSES)
    return float(loss.combine(loss.terms(labels, ops.convert_to_tensor(logits))))


def gradient_of(options, labels, logits):
    import tensorflow as tf

    loss, logits = DenseLoss(options, CLASSES), tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss.combine(loss.terms(labels, logits))
    return tape.gradient(value, logits).numpy()


def test_cross_entropy_is_a_mean_over_the_labelled_pixels():
    labels, logits = maps()
    found, _ = entropies(labels, logits)
    assert loss_of(DenseLossOptions(), labels, logits) == pytest.approx(found.mean(), rel=1e-10)


def test_focal_loss_counts_what_is_answered_well_less():
    labels, logits = maps()
    found, _ = entropies(labels, logits)
    expected = ((1 - np.exp(-found)) ** 2 * found).mean()
    assert loss_of(DenseLossOptions("focal"), labels, logits) == pytest.approx(expected, rel=1e-6)
    assert loss_of(DenseLossOptions("focal", focal_gamma=0.0), labels, logits) == pytest.approx(found.mean(), rel=1e-10)


def test_class_weights_multiply_a_pixels_loss_and_not_the_number_of_pixels():
    labels, logits = maps()
    found, _ = entropies(labels, logits)
    weights = (1.0, 2.0, 0.5, 0.0)
    expected = (np.array(weights)[labels[labels != 255]] * found).mean()
    assert loss_of(DenseLossOptions(class_weights=weights), labels, logits) == pytest.approx(expected, rel=1e-10)


def test_label_smoothing_spreads_its_share():
    labels, logits = maps()
    found, probabilities = entropies(labels, logits)
    expected = (0.9 * found - 0.1 * np.log(probabilities).mean(-1)).mean()
    assert loss_of(DenseLossOptions(label_smoothing=0.1), labels, logits) == pytest.approx(expected, rel=1e-10)


def test_dice_is_of_the_classes_that_occur():
    labels, logits = maps()
    labels[labels == 3] = 255
    _, probabilities = entropies(labels, logits)
    truth = np.eye(CLASSES)[labels[labels != 255]]
    coefficients = 2 * (probabilities * truth).sum(0) / (probabilities.sum(0) + truth.sum(0))
    expected = 1 - coefficients[:3].mean()
    assert loss_of(DenseLossOptions("dice"), labels, logits) == pytest.approx(expected, rel=1e-10)
    both = loss_of(DenseLossOptions("cross_entropy+dice"), labels, logits)
    assert both == pytest.approx(expected + loss_of(DenseLossOptions(), labels, logits), rel=1e-10)


@pytest.mark.parametrize("kind", SEGMENTATION_LOSSES)
def test_nothing_labelled_costs_nothing_and_moves_nothing(kind):
    labels, logits = maps()
    labels[:] = 255
    assert loss_of(DenseLossOptions(kind), labels, logits) == 0
    assert (gradient_of(DenseLossOptions(kind), labels, logits) == 0).all()


@pytest.mark.parametrize("kind", SEGMENTATION_LOSSES)
def test_what_is_answered_where_nothing_is_known_does_not_matter(kind):
    labels, logits = maps()
    other = np.where((labels == 255)[..., None], 50.0, logits)
    options = DenseLossOptions(kind)
    assert loss_of(options, labels, other) == pytest.approx(loss_of(options, labels, logits), rel=1e-12)
    assert (gradient_of(options, labels, logits)[labels == 255] == 0).all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_focal_loss_of_a_sure_answer_has_a_gradient(gamma):
    """The root's gradient at 0 is infinite: where p is 1, it would be no number."""
    logits = np.array([[200.0, 0.0, 0.0, 0.0], [0.0, 200.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    gradient = gradient_of(DenseLossOptions("focal", focal_gamma=gamma), np.zeros(3, np.uint8), logits)
    assert np.abs(gradient[0]).max() < 1e-50 and (gradient[1:, 0] < 0).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize("kind", SEGMENTATION_LOSSES)
@pytest.mark.parametrize("label", [4, 77, 254])
def test_a_label_outside_the_legend_is_no_number(kind, label):
    labels, logits = maps()
    labels[0, 0, 0] = label
    assert np.isnan(loss_of(DenseLossOptions(kind), labels, logits))
    # No step is taken with it either.
    assert np.isnan(gradient_of(DenseLossOptions(kind), labels, logits)[0, 0, 0]).all()


@pytest.mark.parametrize("kind", SEGMENTATION_LOSSES)
def test_sums_over_parts_give_the_loss_of_the_whole(kind):
    labels, logits = maps(shape=(4, 5, 6))
    labels[:2] = 255  # All that the first device sees is ignored.
    loss = DenseLoss(DenseLossOptions(kind), CLASSES)
    parts = [loss.terms(labels[half], ops.convert_to_tensor(logits[half])) for half in (slice(0, 2), slice(2, 4))]
    together = loss.combine({name: parts[0][name] + parts[1][name] for name in parts[0]})
    assert float(together) == pytest.approx(loss_of(DenseLossOptions(kind), labels, logits), rel=1e-10)


@pytest.mark.parametrize("kind", SEGMENTATION_LOSSES)
def test_gradients_of_the_devices_add_up_to_those_of_the_whole(kind):
    import tensorflow as tf

    labels, logits = maps(shape=(4, 5, 6))
    labels[1] = 255
    loss = DenseLoss(DenseLossOptions(kind), CLASSES)
    whole = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = loss.combine(loss.terms(labels, whole))
    expected = tape.gradient(value, whole).numpy()
    halves = [slice(0, 2), slice(2, 4)]
    terms = [loss.terms(labels[half], tf.constant(logits[half])) for half in halves]
    for half, other in zip(halves, terms[::-1], strict=True):
        part = tf.Variable(logits[half])
        with tf.GradientTape() as tape:
            own = loss.terms(labels[half], part)
            names = {id(value): name for name, value in own.items()}
            sums = whole_sums(own, lambda value, other=other, names=names: value + other[names[id(value)]])
            together = loss.combine(sums)
        # The same loss on each device, and the gradient of its own pixels.
        assert float(together) == pytest.approx(float(value), rel=1e-10)
        np.testing.assert_allclose(tape.gradient(together, part).numpy(), expected[half], rtol=1e-9, atol=1e-14)


def test_right_answers_are_counted_where_the_truth_is_known():
    labels, logits = maps()
    known = labels != 255
    assert int(right_pixels(labels, ops.convert_to_tensor(logits))) == (logits.argmax(-1) == labels)[known].sum()


def test_a_pixels_loss_is_zero_where_ignored_and_its_shape_is_the_labels():
    labels, logits = maps()
    found = keras.ops.convert_to_numpy(pixel_losses(labels, ops.convert_to_tensor(logits)))
    assert found.shape == labels.shape
    assert (found[labels == 255] == 0).all() and (found[labels != 255] > 0).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "hinge"}, "loss: 'hinge'"),
        ({"focal_gamma": -1.0}, "focal_gamma"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"kind": "dice", "label_smoothing": 0.1}, "a loss with cross_entropy"),
        ({"class_weights": ()}, "class_weights"),
        ({"class_weights": (0.0, 0.0)}, "one of them above 0"),
        ({"class_weights": (1.0, float("nan"))}, "class_weights"),
        ({"kind": "dice", "class_weights": (1.0, 2.0)}, "leave them out|Leave them out"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(OptionError, match=said):
        DenseLossOptions(**changes)


def test_options_must_fit_the_legend():
    with pytest.raises(OptionError, match="one for each of the 4 classes"):
        DenseLoss(DenseLossOptions(class_weights=(1.0, 2.0)), CLASSES)
    with pytest.raises(OptionError, match="255 is a class"):
        DenseLoss(DenseLossOptions(), 256)


def test_median_frequency():
    # Frequencies 0.1, 0.2 and 0.7; the median is 0.2.
    assert median_frequency_weights([10, 20, 70, 0]) == pytest.approx((2.0, 1.0, 2 / 7, 0.0))
    # Class 0 occurs in images of 20 labelled pixels alone, so that it is not rare there.
    assert median_frequency_weights([10, 90], [20, 100]) == pytest.approx((0.7 / 0.5, 0.7 / 0.9))


def test_effective_number():
    weights = effective_number_weights([1, 10, 0], 0.9)
    effective = (1 - 0.9 ** np.array([1, 10])) / 0.1
    assert weights == pytest.approx((*(2 / effective / (1 / effective).sum()), 0.0))
    assert effective_number_weights([5, 50], 0.0) == (1.0, 1.0)
    # Far more pixels than 1 / (1 - beta): all the same. Far fewer: the inverse frequency.
    assert effective_number_weights([10**9, 10**8], 0.999) == pytest.approx((1.0, 1.0))
    rare = effective_number_weights([10**5, 10**4], 1 - 1e-12)
    assert rare[1] / rare[0] == pytest.approx(10, rel=1e-3)


@pytest.mark.parametrize("counts", [[], [0, 0], [-1, 2], [1.5, 2.0], [[1, 2]]])
def test_what_are_no_counts_is_refused(counts):
    for weights in (median_frequency_weights, lambda values: effective_number_weights(values, 0.9)):
        with pytest.raises(OptionError, match="counts"):
            weights(np.array(counts))


OPTIONS = [
    DenseLossOptions(label_smoothing=0.1),
    DenseLossOptions(class_weights=(1.0, 2.0, 0.5, 3.0)),
    DenseLossOptions("focal", focal_gamma=1.5),
    DenseLossOptions("dice"),
    DenseLossOptions("cross_entropy+dice"),
]

FEATURES = 3

SCRIPT = """
import sys
import numpy as np
from launch.app import import_tensorflow_quietly
import_tensorflow_quietly()
import tensorflow as tf
from eo_keras.training import distribution
from eo_keras.losses.segmentation import DenseLoss, whole_sums
from tests.eo_keras.losses.test_segmentation import CLASSES, OPTIONS, batches
distribution.prepare_devices(virtual_devices=2, deterministic=True, seed=1)
strategy = distribution.make_strategy("mirrored", virtual_devices=2)
features, labels, weights = batches()
with strategy.scope():
    kernel = tf.Variable(weights)

def reduced(value):
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)

def step(features, labels):
    answers = []
    for options in OPTIONS:
        loss = DenseLoss(options, CLASSES)
        with tf.GradientTape() as tape:
            terms = loss.terms(labels, tf.tensordot(features, kernel, 1))
            value = loss.combine(whole_sums(terms, reduced))
        answers.append((value, reduced(tape.gradient(value, kernel))))
    return tuple(tf.stack(part) for part in zip(*answers))

taken = tf.function(lambda *batch: strategy.run(step, batch), autograph=False)
dataset = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices((features, labels)))
losses, gradients = zip(*(map(strategy.experimental_local_results, taken(*batch)) for batch in dataset))
results = {"losses": np.array(losses), "gradients": np.array([first for first, _ in gradients])}
np.savez(sys.argv[1], **results)
"""


def batches():
    """Four batches of four images: all labelled, the second device without a label, neither with one, and uneven."""
    random = np.random.default_rng(5)
    features, weights = random.normal(size=(4, 4, 5, 6, FEATURES)), random.normal(size=(FEATURES, CLASSES))
    labels = random.integers(0, CLASSES, (4, 4, 5, 6)).astype(np.uint8)
    labels[1, 2:] = 255
    labels[2] = 255
    labels[3][random.random(labels[3].shape) < np.array([0.1, 0.9, 0.5, 0.95])[:, None, None]] = 255
    return features, labels, weights


def test_two_devices_have_the_loss_and_the_gradient_of_one(tmp_path):
    """A process of its own: only one mirrored strategy fits in a process."""
    import tensorflow as tf

    done = start("-c", SCRIPT, tmp_path / "two.npz").wait()
    assert done.returncode == 0, done.stderr
    two = np.load(tmp_path / "two.npz")
    assert two["losses"].shape == (4, 2, len(OPTIONS))
    features, labels, weights = batches()
    for number, options in enumerate(OPTIONS):
        loss = DenseLoss(options, CLASSES)
        for place in range(4):
            kernel = tf.constant(weights)
            with tf.GradientTape() as tape:
                tape.watch(kernel)
                value = loss.combine(loss.terms(labels[place], tf.tensordot(features[place], kernel, 1)))
            gradient = tape.gradient(value, kernel).numpy()
            assert (np.abs(gradient).max() > 1e-3) == (place != 2)
            case = f"{options}, batch {place}"
            np.testing.assert_allclose(two["losses"][place, :, number], [float(value)] * 2, rtol=1e-12, err_msg=case)
            np.testing.assert_allclose(two["gradients"][place, number], gradient, rtol=1e-10, atol=1e-15, err_msg=case)
