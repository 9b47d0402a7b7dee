"""EfficientNet-Lite (Tan & Le 2019, ICML, arXiv 1905.11946; the Lite variants: tensorflow/tpu, 2020).

Inverted bottlenecks with depthwise convolutions, as in MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381, section 3.4)
and EfficientNet-B0 (table 1), for integer processors: no squeeze-and-excitation, ReLU6 in place of swish, and the stem,
the head and the number of blocks of the first and last stage are not scaled. Epsilon of batch normalization is 1e-3.
Stochastic depth, which the published weights were trained with, is left out.

As a backbone of segmentation networks it keeps all that, with dilation rates in place of its last strides, and without
the 1x1 convolution of the head.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from eo_keras.models.backbones.stages import StageBuilder, run_stages
from eo_keras.models.dilation import Stage, plan_stages
from eo_keras.models.layers.factory import LayerFactory
from eo_keras.models.spec import NetworkSpec


@dataclasses.dataclass(frozen=True)
class Bottlenecks:
    """A stage of inverted bottlenecks: row of table 1 of Tan & Le 2019.

    Attributes:
        count: number of blocks.
        size: edge of the depthwise kernels.
        stride: stride of the first block.
        expansion: ratio of the depthwise channels to those of the block's input.
        filters: channels of its output.
    """

    count: int
    size: int
    stride: int
    expansion: int
    filters: int


STAGES = (
    Bottlenecks(1, 3, 1, 1, 16),
    Bottlenecks(2, 3, 2, 6, 24),
    Bottlenecks(2, 5, 2, 6, 40),
    Bottlenecks(3, 3, 2, 6, 80),
    Bottlenecks(3, 5, 1, 6, 112),
    Bottlenecks(4, 5, 2, 6, 192),
    Bottlenecks(1, 3, 1, 6, 320),
)
"""Stages of EfficientNet-B0."""

STEM_FILTERS, HEAD_FILTERS = 32, 1280
DIVISOR = 8
"""Number that scaled channels are a multiple of."""


def build_efficientnet_lite(
    spec: NetworkSpec,
    *,
    width: float = 1.0,
    depth: float = 1.0,
    dropout: float = 0.2,
    stages: Sequence[Bottlenecks] = STAGES,
    head: int = HEAD_FILTERS,
    name: str = "efficientnet_lite",
) -> keras.Model:
    """Builds the network with random weights.

    Args:
        spec: inputs, classes and how layers compute. Its dropout replaces that of `dropout`.
        width: factor of the channels.
        depth: factor of the number of blocks.
        dropout: the variant's own rate before the logits.
        stages: the stages before scaling.
        head: channels of the last convolution.
        name: name of the model.

    Returns:
        A model from `image` `(batch, patch_size, patch_size, bands)`, digital numbers, to `probabilities`
        `(batch, num_classes)`, float32 (float64 under that policy); the layer before is `logits`, of the same dtype.

    Raises:
        OptionError: if the specification has synchronized batch normalization under another backend than TensorFlow.
    """
    factory = dataclasses.replace(LayerFactory(spec), batch_norm_epsilon=1e-3)
    image, x = factory.image()
    _, x = run_stages(efficientnet_lite_stages(factory, width=width, depth=depth, stages=stages), x)
    x = _activated(factory, factory.convolution(x, head, 1, "head_conv"), "head")
    return factory.classifier(image, x, name, dropout)


def efficientnet_lite_stages(
    factory: LayerFactory,
    output_stride: int | None = None,
    *,
    width: float = 1.0,
    depth: float = 1.0,
    stages: Sequence[Bottlenecks] = STAGES,
) -> list[StageBuilder]:
    """Returns the functions that add the stem and each stage.

    The low-level features are the last feature map of the second stage, at a quarter of the resolution.

    Args:
        factory: makes the layers.
        output_stride: stride from which on strides become dilation rates; None keeps all strides, for an output stride
            of 32.
        width: as in `build_efficientnet_lite`.
        depth: likewise.
        stages: likewise.
    """
    factory = dataclasses.replace(factory, batch_norm_epsilon=1e-3)

    dense = output_stride is not None

    def stem(x):
        x, padding = _padded(factory, x, 3, Stage(2, 1, 1), "conv1", dense)
        x = factory.convolution(x, STEM_FILTERS, 3, "conv1_conv", 2, padding)
        return _activated(factory, x, "conv1"), None

    def stage(place: int, own: Bottlenecks, plan: Stage, x: Any):
        # The stages at the ends are not scaled in depth, and the stem's channels not in width.
        count = own.count if place in (0, len(stages) - 1) else math.ceil(own.count * depth)
        filters, rest = scaled(own.filters, width), Stage(1, plan.next_rate, plan.next_rate)
        for number in range(count):
            prefix = f"conv{place + 2}_block{number + 1}"
            changes = number == 0 and own.stride > 1
            x = _block(factory, x, own, filters, rest if number else plan, prefix, dense, changes)
        return x, x if place == 1 else None

    plans = plan_stages([own.stride for own in stages], 2, output_stride)
    numbered = enumerate(zip(stages, plans, strict=True))
    return [stem, *(functools.partial(stage, place, own, plan) for place, (own, plan) in numbered)]


def scaled(filters: int, width: float) -> int:
    """Returns scaled channels: a multiple of `DIVISOR`, and at least nine tenths of the exact number."""
    exact = filters * width
    found = max(DIVISOR, int(exact + DIVISOR / 2) // DIVISOR * DIVISOR)
    return found + DIVISOR if found < 0.9 * exact else found


def _block(
    factory: LayerFactory,
    x: Any,
    own: Bottlenecks,
    filters: int,
    plan: Stage,
    prefix: str,
    dense: bool,
    changes: bool,
) -> Any:
    """Adds an inverted bottleneck: expansion, depthwise convolution, and a projection without activation.

    Args:
        factory: makes the layers.
        x: features.
        own: its stage.
        filters: channels of its output, scaled.
        plan: stride, and dilation rate of its depthwise convolution.
        prefix: beginning of the names of its layers.
        dense: whether it is of a network of masks, see `_padded`.
        changes: whether it has a stride, or had one that became a dilation rate: then it has no shortcut.
    """
    shortcut, channels = x, x.shape[-1]
    if own.expansion > 1:
        x = factory.convolution(x, own.expansion * channels, 1, f"{prefix}_expand_conv")
        x = _activated(factory, x, f"{prefix}_expand")
    x, padding = _padded(factory, x, own.size, plan, f"{prefix}_depthwise", dense)
    x = factory.depthwise(x, own.size, f"{prefix}_depthwise_conv", plan.stride, padding, plan.rate)
    x = _activated(factory, x, f"{prefix}_depthwise")
    x = factory.convolution(x, filters, 1, f"{prefix}_project_conv")
    residual = channels == filters and not changes
    x = factory.batch_norm(x, f"{prefix}_project_bn", factory.last_gamma if residual else "ones")
    return factory.add([shortcut, x], f"{prefix}_add") if residual else x


def _padded(factory: LayerFactory, x: Any, size: int, plan: Stage, prefix: str, dense: bool) -> tuple[Any, str]:
    """Returns features to convolve, and the padding.

    TensorFlow's `same`, which the published weights have, puts the row that an even size leaves over at the bottom:
    with a stride the grid moves by a pixel, and not where the size is odd. Networks of masks pad both sides alike.
    """
    if plan.stride == 1 or not dense:
        return x, "same"
    return factory.zero_pad(x, size // 2 * plan.rate, f"{prefix}_pad"), "valid"


def _activated(factory: LayerFactory, x: Any, prefix: str) -> Any:
    """Adds batch normalization and ReLU6."""
    x = factory.batch_norm(x, f"{prefix}_bn")
    return layers.Activation("relu6", dtype=factory.policy, name=f"{factory.prefix}{prefix}_relu")(x)
