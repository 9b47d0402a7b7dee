"""GoogLeNet (Szegedy et al. 2014, arXiv 1409.4842, table 1 and section 5), with batch normalization.

Batch normalization (Ioffe and Szegedy 2015, arXiv 1502.03167) after each convolution takes the place of the local
response normalization and of the biases, as in all implementations since; the layers are otherwise those of table 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from eo_keras.models.layers.factory import AUXILIARY, LayerFactory
from eo_keras.models.spec import NetworkSpec

POOL = None
"""Marker in `TABLE` of a pooling that halves the grid."""

TABLE: tuple[tuple[str, tuple[int, ...] | None], ...] = (
    ("3a", (64, 96, 128, 16, 32, 32)),
    ("3b", (128, 128, 192, 32, 96, 64)),
    ("pool3", POOL),
    ("4a", (192, 96, 208, 16, 48, 64)),
    ("4b", (160, 112, 224, 24, 64, 64)),
    ("4c", (128, 128, 256, 24, 64, 64)),
    ("4d", (112, 144, 288, 32, 64, 64)),
    ("4e", (256, 160, 320, 32, 128, 128)),
    ("pool4", POOL),
    ("5a", (256, 160, 320, 32, 128, 128)),
    ("5b", (384, 192, 384, 48, 128, 128)),
)
"""Table 1: channels of the 1x1, the 3x3 and its reduction before it, the 5x5 likewise, and the pool's projection."""

AUXILIARY_BLOCKS = {"4a": "aux1", "4d": "aux2"}
"""Blocks that auxiliary classifiers follow (section 5)."""

DROPOUT, AUXILIARY_DROPOUT = 0.4, 0.7
"""Dropout rates of the paper: table 1, and section 5."""


def build_googlenet(
    spec: NetworkSpec,
    *,
    width: float = 1.0,
    table: Sequence[tuple[str, Sequence[int] | None]] = TABLE,
    name: str = "googlenet",
) -> keras.Model:
    """Builds a GoogLeNet with random weights.

    For a patch of 64 pixels the grid is 16x16 in the stem, and 8x8, 4x4 and 2x2 in the three groups of blocks. The
    paper's auxiliary classifiers average over 5x5 pixels of a grid of 14x14 and flatten the result. A grid of 4x4 has
    no 5x5 pixels, and an input of any size cannot be flattened: here the mean over all pixels is taken of the output of
    the 1x1 convolution.

    Args:
        spec: inputs, classes and how layers compute. Its dropout replaces the paper's rates, 0.4 and, in auxiliary
            classifiers, 0.7.
        width: factor of the channels of every layer.
        table: the blocks by name, see `TABLE`; fewer of them make a shallower network.
        name: name of the model.

    Returns:
        A model from `image` `(batch, patch_size, patch_size, bands)`, digital numbers, to `probabilities`
        `(batch, num_classes)`, float32 (float64 under that policy), the layer before being `logits`; with auxiliary
        classifiers to a list of the probabilities and of `aux1_logits` and `aux2_logits`, of the same shape and dtype.

    Raises:
        OptionError: if the specification has synchronized batch normalization under another backend than TensorFlow.
    """
    factory = LayerFactory(spec)

    def channels(count):
        return max(1, round(count * width))

    def block(x, prefix, row):
        one, reduce3, three, reduce5, five, projection = (channels(count) for count in row)
        by_one = factory.conv_bn_relu(x, one, 1, f"{prefix}_1x1")
        by_three = factory.conv_bn_relu(x, reduce3, 1, f"{prefix}_3x3_reduce")
        by_three = factory.conv_bn_relu(by_three, three, 3, f"{prefix}_3x3")
        by_five = factory.conv_bn_relu(x, reduce5, 1, f"{prefix}_5x5_reduce")
        by_five = factory.conv_bn_relu(by_five, five, 5, f"{prefix}_5x5")
        pooled = factory.max_pool(x, 3, f"{prefix}_pool", strides=1, padding="same")
        pooled = factory.conv_bn_relu(pooled, projection, 1, f"{prefix}_projection")
        return factory.concatenate([by_one, by_three, by_five, pooled], prefix)

    def classifier(x, prefix):
        x = factory.global_mean(factory.conv_bn_relu(x, channels(128), 1, prefix), f"{prefix}_mean")
        x = layers.Dense(
            channels(1024),
            activation="relu",
            kernel_initializer=keras.initializers.HeNormal(seed=factory.layer_seed(f"{prefix}_dense")),
            dtype=factory.exact,
            name=f"{prefix}_dense",
        )(x)
        x = factory.dropout(x, AUXILIARY_DROPOUT, f"{prefix}_dropout")
        return factory.logits(x, prefix + AUXILIARY)

    image, x = factory.image()
    x = factory.conv_bn_relu(x, channels(64), 7, "conv1", strides=2)
    x = factory.max_pool(x, 3, "pool1", padding="same")
    x = factory.conv_bn_relu(factory.conv_bn_relu(x, channels(64), 1, "conv2_reduce"), channels(192), 3, "conv2")
    x = factory.max_pool(x, 3, "pool2", padding="same")
    outputs = []
    for title, row in table:
        if row is POOL:
            x = factory.max_pool(x, 3, title, padding="same")
            continue
        x = block(x, f"inception_{title}", row)
        if spec.auxiliary and title in AUXILIARY_BLOCKS:
            outputs.append(classifier(x, AUXILIARY_BLOCKS[title]))
    x = factory.dropout(factory.global_mean(x), DROPOUT)
    probabilities = factory.probabilities(factory.logits(x))
    return keras.Model(image, [probabilities, *outputs] if outputs else probabilities, name=name)
