"""Images converted to the numbers of a model's inputs."""

from __future__ import annotations

import os

import numpy as np

from eo_keras.errors import BandError, SourceError
from eo_keras.geo.images import Image
from eo_keras.runs.model_card import ModelCard, ModelInput
from eo_keras.sensors import radiometry


def fit_to_model(image: Image, card: ModelCard, where: str | os.PathLike[str]) -> np.ndarray:
    """Converts an image of a patch's size to the numbers of a model's only input, see `fit_to_input`.

    Raises:
        SourceError: if the image has another size than the model's patches.
        BandError: see `fit_to_input`.
    """
    height, width = image.pixels.shape[:2]
    if (height, width) != (card.patch_size, card.patch_size):
        raise SourceError(
            where,
            f"an image of {width}x{height} pixels",
            f"{card.patch_size}x{card.patch_size} pixels, as the model was trained with",
            f"cut it into patches of that size, at {card.resolution_m:g} m a pixel",
        )
    return fit_to_input(image, card, where)


def fit_to_input(image: Image, taken: ModelCard | ModelInput, where: str | os.PathLike[str]) -> np.ndarray:
    """Converts an image to the bands, level and units of a model's input.

    Args:
        image: the image.
        taken: the input, or the card of a model of one.
        where: place in errors, usually the file.

    Returns:
        (height, width, bands) of the input's dtype, its bands in its order.

    Raises:
        BandError: if the image lacks bands of the model, or holds 8-bit numbers where the model takes 16-bit ones.
    """
    if missing := [name for name in taken.bands if name not in image.bands]:
        raise BandError(
            where,
            f"bands {','.join(image.bands)}, without {','.join(missing)}",
            f"the model's bands {','.join(taken.bands)}",
            "give images that hold them, or use a run that was trained on the bands that there are",
        )
    pixels = image.pixels
    found, wanted = pixels.dtype, np.dtype(taken.dtype)
    if taken.reflectance is None and found != wanted:
        raise BandError(
            where,
            f"{found} digital numbers",
            f"{wanted} numbers like those that the model was trained with, whose relation to reflectance is not known",
            "give images of the data set that the model was trained on",
        )
    if found.itemsize < wanted.itemsize:
        raise BandError(
            where,
            f"{found} gray values, which end at reflectance {radiometry.JPEG_STEP * 254:g}",
            f"{wanted} digital numbers, as the model was trained with",
            "give the GeoTIFFs that the images were made of, or use a run that was trained on JPEGs",
        )
    if taken.reflectance is not None and (found, image.reflectance) != (wanted, taken.reflectance):
        # Before the bands are picked: a pixel may be 0 in the model's bands and hold data in the others.
        pixels = radiometry.convert(pixels, image.reflectance, taken.reflectance, wanted)
    return pixels[..., [image.bands.index(name) for name in taken.bands]]
