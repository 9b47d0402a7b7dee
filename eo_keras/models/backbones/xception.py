"""The Xception-65 of DeepLabv3+ (Chen et al. 2018, arXiv 1802.02611, section 3.2 and figure 4).

Separable convolutions with a stride take the place of all pooling. Batch normalization and a ReLU follow each
depthwise convolution, and each pointwise one: where a residual is added after the latter, its ReLU follows the sum, at
the entrance of the next block, as in Chollet 2017 (arXiv 1610.02357, figure 5), so that what the residual
path carries may be below 0. The code that the authors published (tensorflow/models, research/deeplab) has the same
ReLU at the entrance, but after the depthwise convolution batch normalization alone, in all blocks but the last.
"""

from __future__ import annotations

import dataclasses
import functools

import keras

from eo_keras.models.backbones.stages import StageBuilder, run_stages
from eo_keras.models.dilation import Stage, plan_stages
from eo_keras.models.layers.factory import LayerFactory
from eo_keras.models.spec import NetworkSpec

ENTRY = (128, 256, 728)
"""Channels of the entry flow's blocks, each of which halves the grid."""

MIDDLE = 728
"""Channels of the middle flow."""

EXIT = ((728, 1024, 1024), (1536, 1536, 2048))
"""Channels of the separable convolutions of the exit flow's two blocks, the first of which halves the grid."""

UNITS = 3
"""Number of separable convolutions in a block."""

MULTIPLE = 8
"""Multiple to which channels of narrower networks are rounded, for vector instructions."""


def build_xception(spec: NetworkSpec, *, middle: int = 16, width: float = 1.0, name: str = "xception") -> keras.Model:
    """Builds the network as a classifier, with random weights, to pretrain the backbone of a segmentation network.

    Args:
        spec: inputs, classes and how layers compute; without dropout of its own.
        middle: number of blocks in the middle flow: 16 in Xception-65, 8 in Xception-41.
        width: factor of the channels of every layer.
        name: name of the model.

    Returns:
        A model from `image` `(batch, patch_size, patch_size, bands)`, digital numbers, to `probabilities`
        `(batch, num_classes)`, float32 (float64 under that policy); the layer before is `logits`, of the same dtype.

    Raises:
        OptionError: if the specification has synchronized batch normalization under another backend than TensorFlow.
    """
    factory = LayerFactory(spec)
    image, x = factory.image()
    _, x = run_stages(xception_stages(factory, middle=middle, width=width), x)
    return factory.classifier(image, x, name)


def xception_stages(
    factory: LayerFactory,
    output_stride: int | None = None,
    *,
    middle: int = 16,
    width: float = 1.0,
) -> list[StageBuilder]:
    """Returns the functions that add the stem, each block of the entry flow, the middle flow and each exit block.

    The low-level features are the feature map after the second block's second separable convolution, at a quarter of
    the resolution. The epsilon of batch normalization is the paper's 1e-3.

    From random weights each block starts as its shortcut alone (`NetworkSpec.zero_last_gamma`). Otherwise the initial
    network is one chain of all its batch normalizations, each of which amplifies the error of the moving moments of the
    one before: after a few dozen steps inference differs from training beyond use.

    Args:
        factory: makes the layers.
        output_stride: stride from which on strides become dilation rates; None keeps all strides, for an output stride
            of 32.
        middle: number of blocks in the middle flow.
        width: factor of the channels of every layer.
    """
    factory = dataclasses.replace(factory, batch_norm_epsilon=1e-3)

    def channels(count):
        return max(MULTIPLE, MULTIPLE * round(count * width / MULTIPLE))

    def block(x, filters, plan: Stage, prefix, project=True, relu_first=True):
        """Adds three separable convolutions, the last one with the stride, and their shortcut."""
        shortcut, before = x, []
        if project:
            shortcut = factory.convolution(x, channels(filters[-1]), 1, f"{prefix}_shortcut", plan.stride)
            shortcut = factory.batch_norm(shortcut, f"{prefix}_shortcut_bn")
        for number, count in enumerate(filters, 1):
            unit = f"{prefix}_unit{number}"
            if number > 1 or relu_first:
                x = factory.relu(x, f"{unit}_relu")
            before.append(x)
            last = number == len(filters)
            gamma = factory.last_gamma if last else "ones"
            x = separable(x, count, unit, plan, striding=project and last, gamma=gamma)
        return factory.add([shortcut, x], f"{prefix}_add"), before

    def separable(x, count, unit, plan, striding, gamma):
        if not striding:
            return factory.separable(x, channels(count), unit, rate=plan.rate, gamma=gamma)
        # Padding of TensorFlow's own would depend on whether the size is odd, and move the grid.
        x = factory.zero_pad(x, plan.rate, f"{unit}_pad")
        return factory.separable(x, channels(count), unit, plan.stride, "valid", plan.rate, gamma)

    *entry_plans, middle_plan, exit1_plan, exit2_plan = plan_stages([2] * len(ENTRY) + [1, 2, 1], 2, output_stride)

    def stem(x):
        x = factory.convolution(factory.zero_pad(x, 1, "conv1_pad"), channels(32), 3, "conv1_conv", strides=2)
        x = factory.relu(factory.batch_norm(x, "conv1_bn"), "conv1_relu")
        return factory.conv_bn_relu(x, channels(64), 3, "conv2"), None

    def entry(number, count, plan, x):
        x, before = block(x, [count] * UNITS, plan, f"entry{number}", relu_first=number > 1)
        # The input of the convolution with the stride is the last feature map of its resolution.
        return x, before[-1] if number == 2 else None

    def middle_flow(x):
        for number in range(1, middle + 1):
            x, _ = block(x, [MIDDLE] * UNITS, middle_plan, f"middle{number}", project=False)
        return x, None

    def exit1(x):
        return block(x, EXIT[0], exit1_plan, "exit1")[0], None

    def exit2(x):
        for number, count in enumerate(EXIT[1], 1):
            unit = f"exit2_unit{number}"
            x = factory.relu(factory.separable(x, channels(count), unit, rate=exit2_plan.rate), f"{unit}_relu")
        return x, None

    numbered = enumerate(zip(ENTRY, entry_plans, strict=True), 1)
    entries = [functools.partial(entry, number, count, plan) for number, (count, plan) in numbered]
    return [stem, *entries, *([middle_flow] if middle else []), exit1, exit2]
