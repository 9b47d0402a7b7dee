"""A compact residual network for patches of 64 pixels, made to be trained from random weights on few processors.

Basic blocks of two 3x3 convolutions (He et al. 2015, arXiv 1512.03385, section 4.2) in three stages on grids of a
quarter, an eighth and a sixteenth of the patch: most of the work is done where a pixel still sees a field's texture,
and 3x3 convolutions of many channels are what processors do fastest. Each stage halves the grid by a shortcut that
averages before it projects (He et al. 2019, arXiv 1812.01187, "ResNet-D"), so that no pixel is left out. Mean and
maximum over the last grid are joined: a class may show all over the patch (Forest) or in a line (Highway, River).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from eo_keras.models.layers.factory import LayerFactory
from eo_keras.models.layers.normalization import Normalization


def build_compact(
    *,
    bands: Sequence[str],
    num_classes: int,
    normalisation: Normalization,
    input_dtype: str,
    patch_size: int | None = None,
    scale: Sequence[float] | None = None,
    stem: Sequence[int] = (32, 48),
    widths: Sequence[int] = (96, 192, 384),
    blocks: Sequence[int] = (2, 2, 2),
    dropout: float | None = None,
    synchronized: bool = False,
    dtype_policy: str | None = None,
    seed: int | None = None,
    zero_last_gamma: bool = True,
    name: str = "compact",
) -> keras.Model:
    """Builds the network with random weights.

    Args:
        bands: names of the input's bands in channel order.
        num_classes: number of classes.
        normalisation: mean and standard deviation of each band in digital numbers.
        input_dtype: dtype of the digital numbers, `uint8` or `uint16`.
        patch_size: height and width of the input in pixels; `None` takes any.
        scale: what one standard deviation becomes behind the normalisation, per band; 1 when not given.
        stem: channels of the stem's two convolutions; the first one halves the grid.
        widths: channels of each stage; each one halves the grid.
        blocks: number of blocks in each stage.
        dropout: share of the features that are dropped before the logits while training; `None` is 0.
        synchronized: whether batch normalisation takes its moments over all replicas (TensorFlow backend only).
        dtype_policy: one of `POLICIES`, or `None` for Keras's global one.
        seed: makes the initial weights repeatable.
        zero_last_gamma: start each block as the identity, by a zero gamma in its last batch normalisation (Goyal et
            al. 2017, arXiv 1706.02677, section 5.1).
        name: name of the model.

    Returns:
        A model from `image` `(batch, patch_size, patch_size, len(bands))`, digital numbers, to `probabilities`
        `(batch, num_classes)`, float32 (float64 under that policy); the layer before is `logits`, of the same dtype.

    Raises:
        BandError: if the normalisation does not fit the bands.
        OptionError: if the policy is unknown, the dropout is no rate, or `synchronized` is asked for under another
            backend than TensorFlow.
    """
    parts = LayerFactory(dtype_policy, seed, synchronized)

    def block(x, filters, strides, project, prefix):
        shortcut = x
        if project:
            if strides > 1:
                shortcut = parts.average_pool(shortcut, strides, f"{prefix}_0_pool", strides, padding="same")
            shortcut = parts.convolution(shortcut, filters, 1, f"{prefix}_0_conv")
            shortcut = parts.batch_norm(shortcut, f"{prefix}_0_bn")
        x = parts.unit(x, filters, 3, f"{prefix}_1", strides)
        x = parts.convolution(x, filters, 3, f"{prefix}_2_conv", padding="same")
        x = parts.batch_norm(x, f"{prefix}_2_bn", gamma="zeros" if zero_last_gamma else "ones")
        return parts.relu(parts.add([shortcut, x], f"{prefix}_add"), f"{prefix}_out")

    image, x = parts.image(bands, normalisation, scale, input_dtype, patch_size)
    x = parts.unit(x, stem[0], 3, "conv1", strides=2)
    x = parts.unit(x, stem[1], 3, "conv2")
    for stage, (filters, count) in enumerate(zip(widths, blocks, strict=True), 1):
        for number in range(1, count + 1):
            first = number == 1
            x = block(x, filters, 2 if first else 1, first, f"stage{stage}_block{number}")
    features = parts.concatenate([parts.global_mean(x), parts.global_max(x)], "mean_and_max", dtype=parts.exact)
    logits = parts.logits(parts.dropout(features, dropout or 0), num_classes)
    return keras.Model(image, parts.probabilities(logits), name=name)
