"""Discriminator of images, patch by patch, given the images that they were predicted from.

PatchGAN of Isola et al. 2017 (CVPR, arXiv 1611.07004, section 3.2.2 and appendix 6.1): each of its numbers sees 70x70
pixels. Instance normalization is what its batch normalization is on the batches of one that it was published with; it
depends on one image alone, not on the number of devices.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from eo_keras.models.layers.factory import seed_of_layer

WIDTHS = (64, 128, 256, 512)
"""Channels of its convolutions before the last one."""


def build_discriminator(
    condition_bands: int, bands: int, *, seed: int | None = None, dtype: str = "float32"
) -> keras.Model:
    """Builds a discriminator with random weights.

    Args:
        condition_bands: number of bands of what was predicted from.
        bands: number of bands of the images to be told apart.
        seed: makes the initial weights repeatable.
        dtype: float32 or float64.

    Returns:
        A model from the stack of both `(batch, height, width, condition_bands + bands)`, 32 pixels or more a side, to
        logits `(batch, rows, columns, 1)` of the images being true.
    """
    x = image = keras.Input((None, None, condition_bands + bands), dtype=dtype, name="pair")

    def convolution(x: Any, filters: int, name: str, strides: int = 1) -> Any:
        initial = keras.initializers.RandomNormal(stddev=0.02, seed=seed_of_layer(seed, name))
        return layers.Conv2D(
            filters,
            4,
            strides=strides,
            padding="same",
            data_format="channels_last",
            kernel_initializer=initial,
            dtype=dtype,
            name=name,
        )(x)

    for number, filters in enumerate(WIDTHS, 1):
        x = convolution(x, filters, f"discriminator_conv{number}", strides=1 if number == len(WIDTHS) else 2)
        if number > 1:
            x = layers.GroupNormalization(-1, epsilon=1e-5, dtype=dtype, name=f"discriminator_norm{number}")(x)
        x = layers.LeakyReLU(0.2, dtype=dtype, name=f"discriminator_relu{number}")(x)
    return keras.Model(image, convolution(x, 1, "discriminator_logits"), name="discriminator")
