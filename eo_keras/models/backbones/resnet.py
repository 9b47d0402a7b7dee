"""ResNet v1 with bottleneck blocks (He et al. 2015, arXiv 1512.03385, section 4.1 and table 1).

Layer names, layer order, the epsilon of batch normalisation and the stride on a block's first 1x1 convolution are those
of `keras.applications.ResNet50` and `ResNet101`, so that their weights map by name. As a backbone of dense models it
keeps all that, with rates in place of its last strides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from eo_keras.models.dilation import plan_stages
from eo_keras.models.layers.factory import LayerFactory
from eo_keras.models.layers.normalization import Normalization

BATCH_NORM_EPSILON = 1.001e-5
"""That of `keras.applications`; with another one its weights would give other answers."""

EXPANSION = 4
"""A bottleneck block's output has four times the channels of its 3x3 convolution."""


def build_resnet(
    *,
    bands: Sequence[str],
    num_classes: int,
    normalisation: Normalization,
    input_dtype: str,
    patch_size: int | None = None,
    scale: Sequence[float] | None = None,
    blocks: Sequence[int] = (3, 4, 6, 3),
    width: int = 64,
    dropout: float | None = None,
    synchronized: bool = False,
    dtype_policy: str | None = None,
    seed: int | None = None,
    zero_last_gamma: bool = True,
    batch_norm_momentum: float = 0.9,
    name: str = "resnet",
) -> keras.Model:
    """Builds a ResNet v1 of bottleneck blocks, without pretrained weights.

    Args:
        bands: names of the input's bands in channel order.
        num_classes: number of classes.
        normalisation: mean and standard deviation of each band in digital numbers.
        input_dtype: dtype of the digital numbers, `uint8` or `uint16`.
        patch_size: height and width of the input in pixels; `None` takes any.
        scale: what one standard deviation becomes behind the normalisation, per band; 1 when not given.
        blocks: number of blocks in each stage; the first stage keeps the resolution, each other one halves it.
        width: channels of the stem and of the first stage's 3x3 convolutions; doubled at each stage.
        dropout: share of the features that are dropped before the logits while training; `None` is 0, as in the paper.
        synchronized: whether batch normalisation takes its moments over all replicas (TensorFlow backend only).
        dtype_policy: one of `POLICIES`, or `None` for Keras's global one. The global policy is not changed.
        seed: makes the initial weights repeatable; each layer draws from its own seed. `None` draws new ones.
        zero_last_gamma: start each block as the identity, by a zero gamma in its last batch normalisation (Goyal et
            al. 2017, arXiv 1706.02677, section 5.1).
        batch_norm_momentum: momentum of the moving statistics; 0.9 follows the weights within short runs.
        name: name of the model.

    Returns:
        A model from `image` `(batch, patch_size, patch_size, len(bands))`, digital numbers, to `probabilities`
        `(batch, num_classes)`, float32 (float64 under that policy); the layer before is `logits`, of the same dtype.

    Raises:
        BandError: if the normalisation does not fit the bands.
        OptionError: if the policy is unknown, the dropout is no rate, or `synchronized` is asked for under another
            backend than TensorFlow.
    """
    parts = LayerFactory(dtype_policy, seed, synchronized, batch_norm_momentum=batch_norm_momentum)
    image, x = parts.image(bands, normalisation, scale, input_dtype, patch_size)
    _, x = resnet_features(parts, x, blocks=blocks, width=width, zero_last_gamma=zero_last_gamma)
    logits = parts.logits(parts.dropout(parts.global_mean(x), dropout or 0), num_classes)
    return keras.Model(image, parts.probabilities(logits), name=name)


def resnet_features(
    parts: LayerFactory,
    x: Any,
    output_stride: int | None = None,
    *,
    blocks: Sequence[int] = (3, 4, 6, 3),
    width: int = 64,
    zero_last_gamma: bool = True,
) -> tuple[Any, Any]:
    """Adds stem and stages; the epsilon of batch normalisation is the ResNet's own.

    Args:
        parts: what makes the layers.
        x: the standardised bands.
        output_stride: where further strides become rates; None keeps them all. The paper's multi-grid (Chen et al.
            2017, arXiv 1706.05587, section 3.2) is left out: pretrained weights would not answer as they did.
        blocks: as in `build_resnet`.
        width: likewise.
        zero_last_gamma: likewise.

    Returns:
        The last map of the first stage, at a quarter of the resolution (of DeepLabv3+ the low-level features: "Conv2
        before striding", arXiv 1802.02611, section 4.1), and the last map of all.
    """
    parts = dataclasses.replace(parts, batch_norm_epsilon=BATCH_NORM_EPSILON)

    def block(x, filters, strides, rate, project, prefix):
        shortcut = x
        if project:
            shortcut = parts.convolution(x, EXPANSION * filters, 1, f"{prefix}_0_conv", strides)
            shortcut = parts.batch_norm(shortcut, f"{prefix}_0_bn")
        x = parts.convolution(x, filters, 1, f"{prefix}_1_conv", strides)
        x = parts.relu(parts.batch_norm(x, f"{prefix}_1_bn"), f"{prefix}_1_relu")
        x = parts.convolution(x, filters, 3, f"{prefix}_2_conv", padding="same", rate=rate)
        x = parts.relu(parts.batch_norm(x, f"{prefix}_2_bn"), f"{prefix}_2_relu")
        x = parts.convolution(x, EXPANSION * filters, 1, f"{prefix}_3_conv")
        x = parts.batch_norm(x, f"{prefix}_3_bn", gamma="zeros" if zero_last_gamma else "ones")
        return parts.relu(parts.add([shortcut, x], f"{prefix}_add"), f"{prefix}_out")

    x = parts.convolution(parts.zero_pad(x, 3, "conv1_pad"), width, 7, "conv1_conv", strides=2)
    x = parts.relu(parts.batch_norm(x, "conv1_bn"), "conv1_relu")
    x = low = parts.max_pool(parts.zero_pad(x, 1, "pool1_pad"), 3, "pool1_pool")
    stages = plan_stages([1] + [2] * (len(blocks) - 1), 4, output_stride)
    for place, (count, stage) in enumerate(zip(blocks, stages, strict=True)):
        for number in range(1, count + 1):
            first = number == 1
            # The stride is on the first convolution of the stage, before the 3x3 one, which so has the next rate.
            strides = stage.stride if first else 1
            x = block(x, width * 2**place, strides, stage.next_rate, first, f"conv{place + 2}_block{number}")
        low = x if place == 0 else low
    return low, x
