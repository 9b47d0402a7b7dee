"""Pretrained weights of `keras.applications` and their input scales."""

from __future__ import annotations

import dataclasses

from eo_keras.models.pretrained.stem import IMAGENET_MEAN, IMAGENET_STD

_LEVELS = 127.5
"""Half the range of an 8-bit color; InceptionV3 takes `x / 127.5 - 1`."""


@dataclasses.dataclass(frozen=True)
class PretrainedWeights:
    """Weights of one model of `keras.applications`.

    Attributes:
        application: the function of `keras.applications` that fetches them.
        scale: standard deviation of ImageNet's red, green and blue in the stem's input.
        offset: ImageNet's mean of red, green and blue in the stem's input.
        stem_is_bgr: whether the stem takes blue, green and red, in that order.
        by_order: whether the layers have no names that could be relied on, but numbers that depend on what else the
            process had built; they are then matched by their order.
    """

    application: str
    scale: tuple[float, float, float]
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    stem_is_bgr: bool = False
    by_order: bool = False


def _caffe(application: str) -> PretrainedWeights:
    """Returns weights for colors of 0 to 255 minus their mean, blue first."""
    return PretrainedWeights(application, IMAGENET_STD, stem_is_bgr=True)


RESNET50 = _caffe("ResNet50")
RESNET101 = _caffe("ResNet101")
INCEPTION_V3 = PretrainedWeights(
    "InceptionV3",
    scale=tuple(std / _LEVELS for std in IMAGENET_STD),
    offset=tuple(mean / _LEVELS - 1 for mean in IMAGENET_MEAN),
    by_order=True,
)
