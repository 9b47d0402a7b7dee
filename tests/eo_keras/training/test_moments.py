"""Every architecture of the registry, some steps after its start: inference does what training did.

Batch normalisation divides by the moments of the batch in training and by moving ones in inference. Where the layers
form one long chain, each enlarges what the moments of the one before miss, and inference fails while training goes well
(Yang et al. 2019, arXiv 1902.08129, on networks without identity paths).
"""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from eo_keras import models
from eo_keras.models.segmentation.deeplab import BACKBONES
from tests.harness.networks import network_spec

BATCH, SIZE, STEPS, CLASSES = 8, 64, 20, 4
NARROW = {"width": 16, "widths": 8, "stem": 8, "depth": 32, "low_depth": 8}
"""Arguments of builders that are numbers of channels, or multiply them, and what they are divided by."""

REPEATS = {"blocks": 2, "middle": 4}
"""Arguments that say how often a block is repeated, and the most of it: what fails does so at this depth already."""

RATES = {
    **dict.fromkeys(("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"), 0.01),
    "inception_v3": 0.002,
    "googlenet": 0.002,
    "compact": 0.02,
}
"""Where 0.05, with momentum, is too much for the first steps, as in networks without shortcuts."""


def small(architecture):
    """Returns the arguments of a narrow, shallow build; what is not known here stays as it is."""
    functions = [architecture.builder]
    if "backbone" in architecture.arguments:
        functions.append(BACKBONES[architecture.arguments["backbone"]])
    given = {name: one.default for one in functions for name, one in inspect.signature(one).parameters.items()}
    chosen, given = dict(architecture.arguments), given | dict(architecture.arguments)
    for name in NARROW.keys() & given.keys():
        value, by = given[name], NARROW[name]
        if isinstance(value, tuple):
            chosen[name] = tuple(max(8, one // by) for one in value)
        else:
            # A factor is made as small in all entries.
            chosen[name] = 1 / by if isinstance(value, float) else max(8, value // by)
    for name in REPEATS.keys() & given.keys():
        value, most = given[name], REPEATS[name]
        if isinstance(value, tuple) and isinstance(value[0], tuple):
            # SegNet's: number of convolutions and channels of each block.
            chosen[name] = tuple((min(count, most), max(8, filters // NARROW["width"])) for count, filters in value)
        else:
            chosen[name] = tuple(min(one, most) for one in value) if isinstance(value, tuple) else min(value, most)
    return chosen


@functools.cache
def batches():
    """Patches of four classes that differ in colour and in texture, and in brightness from one to the next."""
    random = np.random.default_rng(3)
    labels = random.integers(0, CLASSES, (STEPS + 1, BATCH)).astype("int32")
    kind, wave = labels[..., None, None, None], np.sin(1.2 * np.arange(SIZE))
    images = random.normal(1000, 300, (STEPS + 1, BATCH, SIZE, SIZE, 3)) + kind * [150, 0, -150]
    images += np.where(kind % 2, 250 * wave[:, None, None], 0) + np.where(kind > 1, 250 * wave[None, :, None], 0)
    images *= random.uniform(0.8, 1.2, (STEPS + 1, BATCH, 1, 1, 1))
    return np.clip(images, 1, 5000).astype("uint16"), labels


MEASURED = {}


def losses(name):
    """Returns the cross-entropy of a batch by moving moments and by its own, after the steps; of equal builds once."""
    architecture = models.MODELS[name]
    arguments = small(architecture)
    key = architecture.function, repr(sorted(arguments.items())), RATES.get(name)
    if key not in MEASURED:
        MEASURED[key] = trained(architecture, arguments, RATES.get(name, 0.05))
    return MEASURED[key]


def trained(architecture, arguments, rate):
    normalization = models.Normalization((1000.0,) * 3, (400.0,) * 3)
    spec = network_spec(num_classes=CLASSES, patch_size=SIZE, normalization=normalization, seed=1)
    model = architecture.builder(spec, **arguments)
    logits, variables = models.logits_model(model), [one.value for one in model.trainable_variables]
    velocities = [tf.Variable(tf.zeros_like(one)) for one in variables]

    def loss(image, label, training):
        outputs = keras.tree.flatten(logits(image, training=training))
        if architecture.task == "segmentation":
            label = tf.broadcast_to(label[:, None, None], (BATCH, SIZE, SIZE))
        return [tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(label, one)) for one in outputs]

    def step(image, label):
        with tf.GradientTape() as tape:
            total = tf.add_n(loss(image, label, True))
        for one, velocity, gradient in zip(variables, velocities, tape.gradient(total, variables), strict=True):
            tf.raw_ops.ResourceApplyMomentum(
                var=one.handle, accum=velocity.handle, lr=rate, grad=gradient, momentum=0.9, use_nesterov=True
            )

    images, labels = batches()
    step = tf.function(step, autograph=False)
    for image, label in zip(images[:-1], labels[:-1], strict=True):
        step(tf.constant(image), tf.constant(label))
    return [float(loss(images[-1], labels[-1], training)[0]) for training in (False, True)]


def names():
    """Returns all names; slow but for one network of each builder, of the Xception's two that with the longer chain."""
    quick = {one.function: name for name, one in models.MODELS.items()}
    quick["segmentation.deeplab:build_deeplab"] = "deeplab_xception65"
    del quick["backbones.xception:build_xception"]
    return [name if name in quick.values() else pytest.param(name, marks=pytest.mark.slow) for name in models.MODELS]


@pytest.mark.parametrize("name", names())
def test_moving_moments_do_what_those_of_the_batch_do(name):
    moving, own = losses(name)
    assert moving < 3 * own, f"by moving moments {moving:.3g}, by the batch's own {own:.3g}"
