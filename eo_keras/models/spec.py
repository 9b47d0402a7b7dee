"""Specification of a network: its inputs, its classes, and how its layers compute and start.

Free of Keras, so that options and command lines can read it without loading a backend.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence

from eo_keras.errors import BandError, OptionError
from eo_keras.records.data_card import IMAGE, BandStatistics, DataCard
from eo_keras.records.inputs import BEFORE, InputBands, first_modality, later_dates

INPUT_DTYPES = ("uint8", "uint16", "float32")
"""Dtypes of the numbers that networks take: those of JPEG, of Sentinel-2, and of physical units such as dB or meters.

A pixel of no data holds 0 in all bands of an integer dtype, and a number that is not finite in any band of float32.
"""

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "float64")
"""Keras dtype policies that networks are built for."""

OUTPUT_STRIDES = (8, 16)
"""Output strides of segmentation networks: pixels of the image per pixel of the deepest feature map."""

DISTANCE_HEADS = ("parallel", "cascaded")
"""Places of a head of distance classes: beside the head of the mask, or before it, which then takes its logits too."""

LATE_FUSIONS = ("late", "late_learned", "residual")
"""Fusions of whole networks, each of which predicts classes by itself."""

FUSIONS = ("early", *LATE_FUSIONS, "vfusenet", "attention")
"""Where and how a network of several modalities joins them, see `eo_keras.models.fusion`."""

DATES = ("stacked", "siamese")
"""How a network takes two dates of a modality: stacked along the bands, or by one encoder with the same weights."""


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
        return cls.of_statistics(card.statistics, bands, card.dataset)

    @classmethod
    def of_statistics(cls, entries: Iterable[BandStatistics], bands: Sequence[str], where: str) -> Normalization:
        """Takes the statistics of some bands.

        Args:
            entries: statistics of all bands.
            bands: names of the bands.
            where: the records' name in errors.

        Raises:
            BandError: if there are no statistics of a band.
        """
        statistics = {entry.band: entry for entry in entries}
        if missing := [band for band in bands if band not in statistics]:
            raise BandError(
                f"statistics of {where}", f"none of {missing[0]}", f"one of {', '.join(statistics) or 'no band'}"
            )
        return cls(tuple(statistics[band].mean for band in bands), tuple(statistics[band].std for band in bands))


@dataclasses.dataclass(frozen=True)
class ImageInput:
    """One input of a network: an image of one modality, in the numbers that records hold.

    Attributes:
        bands: names of the bands in channel order.
        dtype: dtype of the numbers, one of `INPUT_DTYPES`.
        normalization: mean and standard deviation of each band.
        patch_size: height and width in pixels; None takes any.
        scale: standard deviation of each band after normalization; None is 1. `models.build` sets it to what the
            pretrained weights were trained with.
        ratio: pixels of the network's finest input, along a side, per pixel of this one: 1 for the finest, 2 for 20 m
            beside 10 m. The outputs have the size of the finest input.

    Raises:
        BandError: if the normalization does not have one mean for each band.
        OptionError: if the dtype is not one of `INPUT_DTYPES`, or the ratio below 1.
    """

    bands: tuple[str, ...]
    dtype: str
    normalization: Normalization
    patch_size: int | None = None
    scale: tuple[float, ...] | None = None
    ratio: int = 1

    def __post_init__(self):
        """Checks the dtype, the ratio, and the number of means."""
        if self.dtype not in INPUT_DTYPES:
            raise OptionError("dtype", f"'{self.dtype}'", f"one of {', '.join(INPUT_DTYPES)}")
        if len(self.normalization.mean) != len(self.bands):
            raise BandError(
                f"normalization for bands {','.join(self.bands)}",
                f"{len(self.normalization.mean)} means",
                f"one for each of the {len(self.bands)} bands",
                "use the statistics of the same bands",
            )
        if self.ratio < 1:
            raise OptionError("ratio", f"{self.ratio}", "at least 1")


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """Specification of a network without its architecture.

    Attributes:
        inputs: the inputs by name: one named `image`, or several named by modality. `X_before` beside `X` is an earlier
            date of the same modality.
        num_classes: number of classes, at least 2.
        output_stride: of a segmentation network, pixels of the image per pixel of the backbone's last feature map, 8 or
            16; None is 16. Classification networks have none.
        distance_classes: of a segmentation network, number of classes of the distance to the outlines of objects, which
            it predicts too, an odd number of 3 or more; None for none.
        distance_head: one of `DISTANCE_HEADS`.
        reconstruction: of a segmentation network, the number of bands whose standardized numbers it predicts instead of
            classes, in the size of the finest input: all that it takes, for pre-training, or those of a sensor that it
            does not take; None for classes.
        input_size: of a classification network, height and width in pixels to which it enlarges its standardized bands
            before the first convolution; None leaves them as they are.
        auxiliary: whether a network that has auxiliary classifiers for training gets them.
        dropout: fraction of the features dropped in training, before the logits (in a segmentation network before the
            decoder), and before the logits of auxiliary classifiers; None is the architecture's own rate, 0 where its
            authors use none.
        fusion: of several modalities, one of `FUSIONS`; None is `early`.
        dates: of two dates, one of `DATES`; None is `stacked`.
        stream_logits: of one of `LATE_FUSIONS`, whether the network for training returns the logits of each modality's
            own network too. They add no weights.
        lacking: whether training examples may lack modalities: batch normalization of the layers that a modality has of
            its own then takes the moments of the examples that have it. It adds no weights.
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
    distance_classes: int | None = None
    distance_head: str = "parallel"
    reconstruction: int | None = None
    input_size: int | None = None
    auxiliary: bool = True
    dropout: float | None = None
    fusion: str | None = None
    dates: str | None = None
    stream_logits: bool = False
    lacking: bool = False
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
        if self.distance_classes is not None and (self.distance_classes < 3 or self.distance_classes % 2 == 0):
            raise OptionError("distance_classes", f"{self.distance_classes}", "an odd number of 3 or more")
        if self.distance_head not in DISTANCE_HEADS:
            raise OptionError("distance_head", f"'{self.distance_head}'", f"one of {', '.join(DISTANCE_HEADS)}")
        if self.reconstruction is not None and self.reconstruction < 1:
            raise OptionError("reconstruction", f"{self.reconstruction} bands", "at least 1")
        if self.reconstruction and self.distance_classes is not None:
            raise OptionError("reconstruction", "it is given together with `distance_classes`", "one of them")
        if self.input_size is not None and self.input_size < (self.patch_size or 1):
            raise OptionError("input_size", f"{self.input_size} pixels", f"the patches' {self.patch_size} or more")
        if self.stream_logits and (self.reconstruction or self.fusion not in LATE_FUSIONS):
            found = "it is given together with `reconstruction`" if self.reconstruction else f"fusion '{self.fusion}'"
            raise OptionError("stream_logits", found, f"classes, and a fusion out of {', '.join(LATE_FUSIONS)}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise OptionError("dropout", f"{self.dropout}", "at least 0 and below 1")
        if self.dtype_policy is not None and self.dtype_policy not in POLICIES:
            raise OptionError("dtype_policy", f"'{self.dtype_policy}'", f"one of {', '.join(POLICIES)}")
        for option, value, known in (("fusion", self.fusion, FUSIONS), ("dates", self.dates, DATES)):
            if value is not None and value not in known:
                raise OptionError(option, f"'{value}'", f"one of {', '.join(known)}")
        self._check_inputs()

    def _check_inputs(self) -> None:
        """Checks that the inputs fit each other."""
        if (IMAGE in self.inputs) != (len(self.inputs) == 1) or not self.inputs:
            expected = f"one input named '{IMAGE}', or several by the names of their modalities"
            raise OptionError("inputs", ", ".join(self.inputs) or "none", expected)
        modalities = self.modalities
        for name, dates in modalities.items():
            if name not in self.inputs:
                raise OptionError("inputs", f"'{dates[0]}' without '{name}'", "both dates, or the later one alone")
            first, *others = (self.inputs[date] for date in dates)
            if any((one.bands, one.ratio, one.dtype) != (first.bands, first.ratio, first.dtype) for one in others):
                raise OptionError(
                    "inputs", f"two dates of '{name}' that differ", "the same bands, dtype and resolution"
                )
        if self.dates is not None and not any(len(dates) > 1 for dates in modalities.values()):
            raise OptionError(
                "dates", f"'{self.dates}' for the inputs {', '.join(self.inputs)}", f"an input named '...{BEFORE}'"
            )
        if self.fusion is not None and len(modalities) < 2:
            found = f"'{self.fusion}' for the inputs {', '.join(self.inputs)}"
            raise OptionError("fusion", found, "at least two modalities")
        if self.dates == "siamese" and self.fusion in (None, "early"):
            if single := [name for name, dates in modalities.items() if len(dates) < 2]:
                found = f"'siamese' with early fusion, where '{single[0]}' has one date"
                raise OptionError("dates", found, "two dates of every modality", "stack the dates, or fuse later")
        if min(one.ratio for one in self.inputs.values()) != 1:
            raise OptionError("ratio", "none of 1 among the inputs", "1 for the finest input")
        sizes = {one.patch_size and one.patch_size * one.ratio for one in self.inputs.values()}
        if len(sizes) > 1:
            listed = ", ".join(f"{name} {one.patch_size} x {one.ratio}" for name, one in self.inputs.items())
            raise OptionError("patch_size", listed, "inputs of the same ground: sizes times ratios that are equal")

    @property
    def modalities(self) -> dict[str, tuple[str, ...]]:
        """Names of the inputs of each modality, the later date first."""
        return {
            name: tuple(date for date in (name, name + BEFORE) if date in self.inputs)
            for name in later_dates(self.inputs)
        }

    @property
    def stems(self) -> dict[str, tuple[str, ...]]:
        """Names of the inputs that the first convolution of each backbone takes, by the prefix of its layers' names.

        One backbone without a prefix takes all, where there is one modality or fusion is early; otherwise each modality
        has one, with the prefix `<name>_`. Of two dates, a siamese one takes one after the other.
        """
        dates = {name: one[:1] if self.dates == "siamese" else one for name, one in self.modalities.items()}
        if len(dates) == 1 or self.fusion in (None, "early"):
            return {"": tuple(name for one in dates.values() for name in one)}
        return {f"{name}_": one for name, one in dates.items()}

    @property
    def channels(self) -> int:
        """Number of channels of the output: classes, or of a reconstruction bands."""
        return self.reconstruction or self.num_classes

    @property
    def patch_size(self) -> int | None:
        """Height and width of the finest input and of a mask, in pixels; None where they take any."""
        return next((one.patch_size for one in self.inputs.values() if one.ratio == 1), None)

    @classmethod
    def of_card(
        cls,
        card: DataCard,
        bands: Sequence[str] | None = None,
        *,
        patch_size: int | None = None,
        **choices: object,
    ) -> NetworkSpec:
        """Returns the specification of a network of one input for a records folder.

        Args:
            card: the card of the records folder.
            bands: names of bands of its first modality in channel order; None takes all in stored order.
            patch_size: height and width of the input in pixels; None takes any.
            **choices: other attributes of the specification.

        Raises:
            BandError: if the card has no statistics of a band.
            OptionError: if a value is out of range.
        """
        return cls.of_inputs(card, first_modality(card, bands), patch_size=patch_size, **choices)

    @classmethod
    def of_inputs(
        cls, card: DataCard, inputs: Sequence[InputBands], *, patch_size: int | None = None, **choices: object
    ) -> NetworkSpec:
        """Returns the specification of a network of chosen inputs for a records folder.

        Args:
            card: the card of the records folder.
            inputs: the inputs, see `eo_keras.records.inputs`.
            patch_size: height and width of the labels in pixels; None takes any.
            **choices: other attributes of the specification.

        Raises:
            BandError: if the card has no statistics of a band.
            OptionError: if a value is out of range, or the inputs do not fit each other.
        """
        found = {}
        for one in inputs:
            modality = card.modalities[one.modality]
            ratio, rest = divmod(card.patch_size, modality.patch_size)
            if rest:
                raise OptionError(
                    "bands",
                    f"the modality '{one.modality}' has {modality.patch_size} pixels where masks have "
                    f"{card.patch_size}",
                    "a size that divides theirs",
                    "choose other modalities, or build records of a size that fits",
                )
            found[one.name] = ImageInput(
                one.bands,
                modality.dtype,
                Normalization.of_statistics(modality.statistics, one.bands, f"{card.dataset}, {one.modality}"),
                patch_size // ratio if patch_size else None,
                ratio=ratio,
            )
        return cls(found, len(card.legend), **choices)

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
