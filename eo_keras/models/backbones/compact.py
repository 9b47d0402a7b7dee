"""Compact residual network for patches of 64 pixels, for training from random weights on few processors.

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
from eo_keras.models.spec import NetworkSpec


def build_compact(
    spec: NetworkSpec,
    *,
    stem: Sequence[int] = (32, 48),
    widths: Sequence[int] = (96, 192, 384),
    blocks: Sequence[int] = (2, 2, 2),
    name: str = "compact",
) -> keras.Model:
    """Builds the network with random weights.

    Args:
        spec: inputs, classes and how layers compute; without dropout of its own.
        stem: channels of the stem's two convolutions; the first one halves the grid.
        widths: channels of each stage; each one halves the grid.
        blocks: number of blocks in each stage.
        name: name of the model.

    Returns:
        A model from `image` `(batch, patch_size, patch_size, bands)`, digital numbers, to `probabilities`
        `(batch, num_classes)`, float32 (float64 under that policy); the layer before is `logits`, of the same dtype.

    Raises:
        OptionError: if the specification has synchronized batch normalization under another backend than TensorFlow.
    """
    factory = LayerFactory(spec)

    def block(x, filters, strides, project, prefix):
        shortcut = x
        if project:
            if strides > 1:
                shortcut = factory.average_pool(shortcut, strides, f"{prefix}_0_pool", strides, padding="same")
            shortcut = factory.convolution(shortcut, filters, 1, f"{prefix}_0_conv")
            shortcut = factory.batch_norm(shortcut, f"{prefix}_0_bn")
        x = factory.conv_bn_relu(x, filters, 3, f"{prefix}_1", strides)
        x = factory.convolution(x, filters, 3, f"{prefix}_2_conv", padding="same")
        x = factory.batch_norm(x, f"{prefix}_2_bn", gamma=factory.last_gamma)
        return factory.relu(factory.add([shortcut, x], f"{prefix}_add"), f"{prefix}_out")

    image, x = factory.image()
    x = factory.conv_bn_relu(x, stem[0], 3, "conv1", strides=2)
    x = factory.conv_bn_relu(x, stem[1], 3, "conv2")
    for stage, (filters, count) in enumerate(zip(widths, blocks, strict=True), 1):
        for number in range(1, count + 1):
            first = number == 1
            x = block(x, filters, 2 if first else 1, first, f"stage{stage}_block{number}")
    features = factory.concatenate([factory.global_mean(x), factory.global_max(x)], "mean_and_max", dtype=factory.exact)
    logits = factory.logits(factory.dropout(features))
    return keras.Model(image, factory.probabilities(logits), name=name)
