"""Options of augmentation: which random changes training images undergo. No TensorFlow."""

from __future__ import annotations

import dataclasses
from typing import Any

from eo_keras.core.options import check, documented, option
from eo_keras.errors import OptionError

SMALLEST_CROP = 32
"""Height and width of the smallest crops in pixels; networks halve an image five times."""

LARGEST_DEFAULT_CROP = 256
"""Height and width of crops in pixels where none are given and the tiles are larger; larger crops need much memory."""


def _dihedral() -> Any:
    # The same option for patches and tiles, and one flag.
    return option(
        True,
        help="Whether training images are rotated and flipped: each takes one of the eight symmetries of the square.",
        aliases=("d4", "symmetries"),
    )


@documented
@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Options of random changes to training patches, drawn for every patch. False where nothing is changed."""

    dihedral: bool = _dihedral()
    max_shift: int = option(
        8,
        minimum=0,
        help="Classification: largest shift of training images along each axis in pixels, the border filled by "
        "reflection; 0 for none.",
        aliases=("shift",),
    )
    brightness: float = option(
        0.1,
        minimum=0,
        below=1,
        help="Classification: largest change of training images' brightness, as a fraction: all bands are multiplied "
        "by one factor from 1 - brightness to 1 + brightness.",
    )
    cutout: int = option(
        0,
        minimum=0,
        help="Classification: side in pixels of a square of every training image that becomes no data (DeVries and "
        "Taylor 2017, arXiv 1708.04552); 0 for none.",
    )

    def __post_init__(self):
        check(self)

    def __bool__(self) -> bool:
        return any(dataclasses.astuple(self))

    def check_size(self, height: int, width: int) -> None:
        """Checks the image size for the symmetries, the shift and the cutout.

        Args:
            height: height of the images in pixels.
            width: width of the images in pixels.

        Raises:
            OptionError: if symmetries are drawn and the images are not square, or shift or cutout exceed them.
        """
        if self.dihedral and height != width:
            found = f"images of {height} x {width} pixels are not square"
            raise OptionError("dihedral", found, remedy="switch it off by `dihedral=false`")
        for name in ("max_shift", "cutout"):
            if getattr(self, name) >= min(height, width):
                found = f"{getattr(self, name)} pixels"
                raise OptionError(name, found, f"less than the images' {min(height, width)} pixels")


NO_AUGMENTATION = Augmentation(dihedral=False, max_shift=0, brightness=0.0, cutout=0)
"""No augmentation."""


@documented
@dataclasses.dataclass(frozen=True)
class CropAugmentation:
    """Options of random crops of training tiles and their masks, drawn for every tile."""

    crop: int | None = option(
        None,
        minimum=SMALLEST_CROP,
        help="Segmentation: height and width in pixels of the crops that are trained on. Default: the tiles' size, of "
        f"larger tiles {LARGEST_DEFAULT_CROP}.",
    )
    scale_min: float = option(
        0.5,
        minimum=0.1,
        maximum=10,
        help="Segmentation: smallest scale of a crop; at 0.5 it shows an area twice as wide (Chen et al. 2018, arXiv "
        "1802.02611, section 4, draw from 0.5 to 2).",
    )
    scale_max: float = option(2.0, minimum=0.1, maximum=10, help="Segmentation: largest scale of a crop.")
    dihedral: bool = _dihedral()
    band_jitter: float = option(
        0.1,
        minimum=0,
        below=1,
        help="Segmentation: largest change of all bands' brightness together, and of every band by itself, as a "
        "fraction.",
        aliases=("jitter",),
    )

    def __post_init__(self):
        check(self)
        if self.scale_min > self.scale_max:
            raise OptionError("scale_min", f"{self.scale_min:g}", f"at most `scale_max={self.scale_max:g}`")

    def for_tiles(self, size: int) -> CropAugmentation:
        """Returns these options with a crop for tiles of `size` pixels, where none is given."""
        if self.crop is not None:
            return self
        return dataclasses.replace(self, crop=max(SMALLEST_CROP, min(LARGEST_DEFAULT_CROP, size)))

    def check_size(self, height: int, width: int) -> None:
        """Checks that tiles are not smaller than the smallest window.

        Args:
            height: height of the tiles in pixels.
            width: width of the tiles in pixels.

        Raises:
            OptionError: if they are.
        """
        smallest = min(height, width)
        crop = self.for_tiles(smallest).crop
        if smallest < crop / self.scale_max:
            raise OptionError(
                "crop",
                f"{crop} pixels from tiles of {height} x {width}",
                f"at most {int(smallest * self.scale_max)}",
                "choose a smaller crop, or build records of larger tiles",
            )


@dataclasses.dataclass(frozen=True)
class Translation:
    """Prediction of one sensor's images from those of the others, see `eo_keras.data.augment.translation`.

    Attributes:
        sensor: name of the sensor, all dates and views of it; see `InputBands.sensor_name`.
    """

    sensor: str


@dataclasses.dataclass(frozen=True)
class Masking:
    """Masking of images for pre-training, see `eo_keras.data.augment.masking`.

    Attributes:
        size: height and width of a block in pixels of the finest input.
        ratio: share of the blocks of each modality that is masked in every example.
        sensor: probability that a whole sensor of an example, with all dates, is masked too.
    """

    size: int
    ratio: float
    sensor: float
