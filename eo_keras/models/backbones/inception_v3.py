"""Inception-v3 (Szegedy et al. 2015, arXiv 1512.00567, sections 3 to 6), without its auxiliary classifier.

Layers, their order, batch normalization without gamma and its epsilon are those of `keras.applications.InceptionV3`, so
that its weights are matched by order. That network refuses images below 75 pixels. This one takes them from 32 on:

*   `padding="same"`. Without it, as published, the grid of 64 pixels shrinks to 5x5 after the stem and to nothing
    before the last blocks. Padded it is 8x8, then 4x4 and 2x2, and a step takes less time than a ResNet-50's. A kernel
    does the same at every pixel whether the border is padded or not, so that ImageNet's weights keep their meaning.
*   `enlarge=1`. Enlarging the image, 64 pixels to 128 by a factor of 2, makes every grid finer, which brings them
    nearer to the 35x35, 17x17 and 8x8 that ImageNet's weights were trained with; but it adds no information, and a step
    takes about three times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from eo_keras.models.layers.factory import LayerFactory
from eo_keras.models.spec import NetworkSpec

BATCH_NORM_EPSILON = 1e-3
"""Epsilon of batch normalization in `keras.applications`, which its weights need."""

DROPOUT = 0.2
"""Dropout rate of the authors' implementation in TensorFlow-Slim; the paper does not name one."""

POOL_PROJECTIONS = (32, 64, 64)
"""Channels after the pool in the blocks of the first grid; further ones as the last."""

SEVENS = (128, 160, 160, 192)
"""Channels of the 1x7 and 7x1 convolutions in the blocks of the second grid; further ones as the last."""


def build_inception_v3(
    spec: NetworkSpec,
    *,
    blocks: Sequence[int] = (3, 4, 2),
    width: float = 1.0,
    padding: str = "same",
    enlarge: int = 1,
    name: str = "inception_v3",
) -> keras.Model:
    """Builds an Inception-v3 with random weights.

    Args:
        spec: inputs, classes and how layers compute. Its dropout replaces the rate of 0.2.
        blocks: number of blocks on each of the three grids, without the two blocks that halve the grid.
        width: factor of the channels of every layer.
        padding: `same`, or `valid` for the published network, which needs 75 pixels; see the module.
        enlarge: factor by which the normalized image is enlarged in height and width, by bilinear interpolation. A
            factor and not a size, so that images of any size keep their proportions.
        name: name of the model.

    Returns:
        A model from `image` `(batch, patch_size, patch_size, bands)`, digital numbers, to `probabilities`
        `(batch, num_classes)`, float32 (float64 under that policy); the layer before is `logits`, of the same dtype.

    Raises:
        OptionError: if the specification has synchronized batch normalization under another backend than TensorFlow.
    """
    factory = LayerFactory(spec, BATCH_NORM_EPSILON, batch_norm_scale=False)
    network = _Network(factory, width, padding)
    image, x = factory.image()
    if enlarge > 1:
        # Not `Resizing`, which works under no other backend where there is no TensorFlow.
        x = layers.UpSampling2D(
            enlarge, interpolation="bilinear", data_format="channels_last", dtype=factory.exact, name="enlarged"
        )(x)
    x = network.stem(x)
    number = 0
    for place in range(blocks[0]):
        x = network.fives(x, POOL_PROJECTIONS[min(place, len(POOL_PROJECTIONS) - 1)], f"mixed{number}")
        number += 1
    x = network.first_reduction(x, f"mixed{number}")
    number += 1
    for place in range(blocks[1]):
        x = network.sevens(x, SEVENS[min(place, len(SEVENS) - 1)], f"mixed{number}")
        number += 1
    x = network.second_reduction(x, f"mixed{number}")
    number += 1
    for _ in range(blocks[2]):
        x = network.threes(x, f"mixed{number}")
        number += 1
    return factory.classifier(image, x, name, DROPOUT)


class _Network:
    """Stem and blocks, which make layers in the published order."""

    def __init__(self, factory: LayerFactory, width: float, padding: str):
        self.factory, self.width, self.padding = factory, width, padding

    def chain(self, x: Any, prefix: str, *steps: tuple) -> Any:
        """Adds convolutions of (filters, size) or (filters, size, strides, padding), named by their number and size."""
        for number, (filters, size, *rest) in enumerate(steps, 1):
            height, across = (size, size) if isinstance(size, int) else size
            filters = max(1, round(filters * self.width))
            x = self.factory.conv_bn_relu(x, filters, (height, across), f"{prefix}_{number}_{height}x{across}", *rest)
        return x

    def stem(self, x: Any) -> Any:
        """Adds the first layers (table 1, as `keras.applications` has them); the grid is an eighth of the image's."""
        shrinking = self.padding
        for number, (filters, size, strides, padding) in enumerate(
            ((32, 3, 2, shrinking), (32, 3, 1, shrinking), (64, 3, 1, "same")), 1
        ):
            x = self.factory.conv_bn_relu(
                x, max(1, round(filters * self.width)), size, f"conv{number}", strides, padding
            )
        x = self.factory.max_pool(x, 3, "pool1", padding=shrinking)
        for number, (filters, size) in enumerate(((80, 1), (192, 3)), 4):
            x = self.factory.conv_bn_relu(x, max(1, round(filters * self.width)), size, f"conv{number}", 1, shrinking)
        return self.factory.max_pool(x, 3, "pool2", padding=shrinking)

    def projected(self, x: Any, filters: int, prefix: str) -> Any:
        """Adds the branch of a mean over 3x3 pixels and a 1x1 convolution."""
        x = self.factory.average_pool(x, 3, f"{prefix}_pool", strides=1, padding="same")
        return self.chain(x, f"{prefix}_projection", (filters, 1))

    def fives(self, x: Any, projection: int, prefix: str) -> Any:
        """Adds a block of the first grid (figure 5): 5x5, and two 3x3 in its place."""
        one = self.chain(x, f"{prefix}_one", (64, 1))
        five = self.chain(x, f"{prefix}_five", (48, 1), (64, 5))
        double = self.chain(x, f"{prefix}_double", (64, 1), (96, 3), (96, 3))
        return self.factory.concatenate([one, five, double, self.projected(x, projection, prefix)], prefix)

    def first_reduction(self, x: Any, prefix: str) -> Any:
        """Adds the block that halves the first grid (figure 10)."""
        three = self.chain(x, f"{prefix}_three", (384, 3, 2, self.padding))
        double = self.chain(x, f"{prefix}_double", (64, 1), (96, 3), (96, 3, 2, self.padding))
        pooled = self.factory.max_pool(x, 3, f"{prefix}_pool", padding=self.padding)
        return self.factory.concatenate([three, double, pooled], prefix)

    def sevens(self, x: Any, filters: int, prefix: str) -> Any:
        """Adds a block of the second grid (figure 6): 7x7 by rows and columns."""
        row, column = (1, 7), (7, 1)
        one = self.chain(x, f"{prefix}_one", (192, 1))
        seven = self.chain(x, f"{prefix}_seven", (filters, 1), (filters, row), (192, column))
        steps = ((filters, 1), (filters, column), (filters, row), (filters, column), (192, row))
        double = self.chain(x, f"{prefix}_double", *steps)
        return self.factory.concatenate([one, seven, double, self.projected(x, 192, prefix)], prefix)

    def second_reduction(self, x: Any, prefix: str) -> Any:
        """Adds the block that halves the second grid."""
        three = self.chain(x, f"{prefix}_three", (192, 1), (320, 3, 2, self.padding))
        steps = ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, self.padding))
        seven = self.chain(x, f"{prefix}_seven", *steps)
        pooled = self.factory.max_pool(x, 3, f"{prefix}_pool", padding=self.padding)
        return self.factory.concatenate([three, seven, pooled], prefix)

    def threes(self, x: Any, prefix: str) -> Any:
        """Adds a block of the last grid (figure 7): branches that end in a row and a column side by side."""

        def split(x, branch):
            sides = [
                self.chain(x, f"{branch}_{side}", (384, size)) for side, size in (("row", (1, 3)), ("column", (3, 1)))
            ]
            return self.factory.concatenate(sides, branch)

        one = self.chain(x, f"{prefix}_one", (320, 1))
        three = split(self.chain(x, f"{prefix}_three", (384, 1)), f"{prefix}_three")
        double = split(self.chain(x, f"{prefix}_double", (448, 1), (384, 3)), f"{prefix}_double")
        return self.factory.concatenate([one, three, double, self.projected(x, 192, prefix)], prefix)
