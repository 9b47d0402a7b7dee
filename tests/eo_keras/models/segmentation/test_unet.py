"""U-Net: its weights by hand, its alignment at odd sizes, and what it skips."""

import keras
import numpy as np
import pytest

from eo_keras import models
from eo_keras.models.layers.resize import RepeatLike
from tests.harness.networks import images, network_spec, outputs_of, reduced, reduced_info


@pytest.mark.parametrize("name", ["unet", "unet_small"])
def test_weights_by_hand(name):
    """Two 3x3 convolutions at each level of the encoder and of the decoder, a 2x2 one before the latter."""
    widths = {"unet": (64, 128, 256, 512, 1024), "unet_small": (16, 32, 64, 128, 256)}[name]
    kernels = [9 * (given * made + made * made) for given, made in zip((3, *widths), widths, strict=False)]
    kernels += [4 * 2 * made * made + 9 * (2 * made * made + made * made) for made in widths[:-1]]
    convolutions = [2 * width for width in widths] + [3 * width for width in widths[:-1]]
    assert models.MODELS[name].parameters == sum(kernels) + 4 * sum(convolutions) + (widths[0] + 1) * 10


def test_a_pixel_repeated_covers_what_pooling_took():
    image = np.arange(15, dtype=np.float32).reshape(1, 3, 5, 1)
    pooled = keras.layers.MaxPooling2D(2, padding="same")(image)
    found = np.asarray(RepeatLike(2)(pooled, image))[0, ..., 0]
    np.testing.assert_array_equal(found, [[6, 6, 8, 8, 9], [6, 6, 8, 8, 9], [11, 11, 13, 13, 14]])
    again = RepeatLike.from_config(RepeatLike(2, name="a").get_config())
    assert (again.ratio, again.name) == (2, "a")


def test_the_decoder_is_given_each_level_again():
    model = reduced("unet")
    for level in (1, 2):
        finer, coarser = model.get_layer(f"decoder_level{level}_concatenate").input
        assert finer is model.get_layer(f"level{level}_conv2_relu").output
        assert finer.shape[-1] == coarser.shape[-1] == (4, 8)[level - 1]


def test_any_size_and_no_shift():
    """An image without texture but for one pixel: what changes lies around it, as far to one side as to the other."""
    model = reduced_info("unet", widths=(4, 8))("unet", network_spec(seed=3))
    for size in ((1, 1), (33, 50), (31, 7)):
        assert outputs_of(model, images(1, *size))[0].shape == (1, *size, 4)
    image = np.full((1, 40, 40, 3), 1500, np.uint16)
    (before,) = outputs_of(model, image)
    image[0, 20, 20] = 3000
    (after,) = outputs_of(model, image)
    rows, columns = np.nonzero(np.abs(after - before).max(axis=-1)[0] > 1e-7)
    # By two convolutions 18 to 22, of half the size 7 to 13, repeated 14 to 27, by those of the decoder 11 to 29.
    assert set(rows) == set(columns) == set(range(11, 30))
