"""Specification of a network: its inputs, its classes, and how its layers compute and start.

Free of Keras, so that options and command lines can read it without loading a backend.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

from eo_keras.errors import BandError, OptionError
from eo_keras.records.data_card import DataCard

INPUT_DTYPES = ("uint8", "uint16")
"""Dtypes of the digital numbers that networks take: those of JPEG and of Sentinel-2."""

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "float64")
"""Keras dtype policies that networks are built for."""

OUTPUT_STRIDES = (8, 16)
"""Output strides of segmentation networks: pixels of the image per pixel of the deepest feature map."""

IMAGE = "image"
"""Name of the only input of a network of one modality."""


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each band over a training split.

    Attributes:
        mean: mean of each band in digital numbers, pixels of no data left out.
        std: standard deviation of each band in digital numbers, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_card(cls, card: DataCard, bands: Sequence[str]) -> Normalization:
        """Takes the statistics of some bands from the card of a records folder.

        Raises:
            BandError: if the card has no statistics of a band.
        """
        statistics = {entry.band: entry for entry in card.statistics}
        if missing := [band for band in bands if band not in statistics]:
            raise BandError(
                f"statistics of {card.dataset}", f"none of {missing[0]}", f"one of {', '.join(statistics) or 'no band'}"
            )
        return cls(tuple(statistics[band].mean for band in bands), tuple(statistics[band].std for band in bands))


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """One input of a network: an image of one modality, in digital numbers.

    Attributes:
        bands: names of the bands in channel order.
        dtype: dtype of the digital numbers, one of `INPUT_DTYPES`.
        normalization: mean and standard deviation of each band.
        patch_size: height and width in pixels; None takes any.
        scale: standard deviation of each band after normalization; None is 1. `models.build` sets it to what the
            pretrained weights were trained with.

    Raises:
        BandError: if the normalization does not have one mean for each band.
        OptionError: if the dtype is not one of `INPUT_DTYPES`.
    """

    bands: tuple[str, ...]
    dtype: str
    normalization: Normalization
    patch_size: int | None = None
    scale: tuple[float, ...] | None = None

    def __post_init__(self):
        """Checks the dtype, and the number of means."""
        if self.dtype not in INPUT_DTYPES:
            raise OptionError("dtype", f"'{self.dtype}'", f"one of {', '.join(INPUT_DTYPES)}")
        if len(self.normalization.mean) != len(self.bands):
            raise BandError(
                f"normalization for bands {','.join(self.bands)}",
                f"{len(self.normalization.mean)} means",
                f"one for each of the {len(self.bands)} bands",
                "use the statistics of the same bands",
            )


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """Specification of a network without its architecture.

    Attributes:
        inputs: the inputs by name. The networks of this package take one, named `image`.
        num_classes: number of classes, at least 2.
        output_stride: of a segmentation network, pixels of the image per pixel of the backbone's last feature map, 8 or
            16; None is 16. Classification networks have none.
        auxiliary: whether a network that has auxiliary classifiers for training gets them.
        dropout: fraction of the features dropped in training, before the logits (in a segmentation network before the
            decoder), and before the logits of auxiliary classifiers; None is the architecture's own rate, 0 where its
            authors use none.
        synchronized: whether batch normalization takes its moments over all replicas (TensorFlow backend only).
        dtype_policy: one of `POLICIES`, or None for Keras's global policy, which is not changed.
        seed: makes initial weights and dropout repeatable; each layer draws from a seed of its own. None draws new
            ones.
        weights: None for random weights, `imagenet`, or a file: weights of `keras.applications`, or a `.keras` model of
            this package or of `keras.applications`. `models.build` loads them.
        stem: `by_name` or `by_position`: which pretrained kernel each band takes, see
            `eo_keras.models.pretrained.stem`.
        zero_last_gamma: whether residual blocks start as the identity, by a zero gamma in their last batch
            normalization (Goyal et al. 2017, arXiv 1706.02677, section 5.1); None does so for random weights alone.

    Raises:
        OptionError: if a value is out of range.
    """

    inputs: Mapping[str, ImageInput]
    num_classes: int
    output_stride: int | None = None
    auxiliary: bool = True
    dropout: float | None = None
    synchronized: bool = False
    dtype_policy: str | None = None
    seed: int | None = None
    weights: str | os.PathLike | None = None
    stem: str = "by_name"
    zero_last_gamma: bool | None = None

    def __post_init__(self):
        """Checks the values that do not depend on the architecture."""
        if self.num_classes < 2:
            raise OptionError("num_classes", f"{self.num_classes}", "at least 2")
        if self.output_stride is not None:
            check_output_stride(self.output_stride)
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise OptionError("dropout", f"{self.dropout}", "at least 0 and below 1")
        if self.dtype_policy is not None and self.dtype_policy not in POLICIES:
            raise OptionError("dtype_policy", f"'{self.dtype_policy}'", f"one of {', '.join(POLICIES)}")

    @classmethod
    def of_card(
        cls,
        card: DataCard,
        bands: Sequence[str] | None = None,
        *,
        patch_size: int | None = None,
        **choices: object,
    ) -> NetworkSpec:
        """Returns the specification of a network for a records folder.

        Args:
            card: the card of the records folder.
            bands: names of the bands in channel order; None takes all in stored order.
            patch_size: height and width of the input in pixels; None takes any.
            **choices: other attributes of the specification.

        Raises:
            BandError: if the card has no statistics of a band.
            OptionError: if a value is out of range.
        """
        bands = card.bands if bands is None else tuple(bands)
        image = ImageInput(bands, card.dtype, Normalization.of_card(card, bands), patch_size)
        return cls({IMAGE: image}, len(card.legend), **choices)

    @property
    def image(self) -> ImageInput:
        """The only input.

        Raises:
            OptionError: if the inputs are not one, named `image`.
        """
        if list(self.inputs) != [IMAGE]:
            raise OptionError("inputs", f"{', '.join(self.inputs) or 'none'}", f"one input named '{IMAGE}'")
        return self.inputs[IMAGE]


def check_output_stride(output_stride: int) -> None:
    """Checks that DeepLabv3+ has an output stride.

    Raises:
        OptionError: if it is not one of `OUTPUT_STRIDES`.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise OptionError("output_stride", f"{output_stride}", f"one of {', '.join(map(str, OUTPUT_STRIDES))}")
