"""Options of a training run that belong to one task. No TensorFlow.

Options that every task takes are `eo_keras.training.options.TrainingOptions`, which holds one of each class here.
"""

from __future__ import annotations

import dataclasses

from eo_keras import models
from eo_keras.core.options import check, documented, nested, option
from eo_keras.data.augment.options import Augmentation, CropAugmentation, Masking, Translation
from eo_keras.errors import OptionError
from eo_keras.losses import SEGMENTATION_LOSSES

MASKED, TRANSLATED = "masked", "translated"
PRETEXTS = (MASKED, TRANSLATED)
"""Kinds of training without labels: masked numbers are predicted, or a sensor's images from those of the others."""

CLASS_WEIGHTS = ("none", "median_frequency", "effective_number")
"""Modes of class weights: 1 for every class, or more for rare ones, see `eo_keras.losses.class_weights`."""


@documented
@dataclasses.dataclass(frozen=True)
class ClassificationOptions:
    """Options of training a classifier of patches."""

    augmentation: Augmentation = nested(Augmentation)
    progressive_sizes: tuple[int, ...] = option(
        (),
        minimum=models.MIN_PATCH_SIZE,
        help="Classification: image sizes in pixels to which training images are averaged down in the run's first "
        "stages, such as 32,48: several times faster. The last stage takes the patches as they are.",
    )
    progressive_epochs: tuple[int, ...] = option(
        (), minimum=1, help="Classification: number of epochs of each of these stages, such as 10,6."
    )
    input_size: int | None = option(
        None,
        minimum=models.MIN_PATCH_SIZE,
        help="Classification: height and width in pixels to which the model itself enlarges patches, such as 128: "
        "pretrained networks know larger images. Inference does the same. Default: the patches' own.",
    )
    train_per_class: int | None = option(
        None,
        minimum=1,
        help="Classification: number of training examples of each class that is trained on, of those that are not held "
        "out, drawn by a hash of key and seed: to measure what few labels give. Fewer are part of more. Default: all.",
    )
    aux_weight: float = option(
        0.3,
        minimum=0,
        help="Classification: weight of the loss of each auxiliary classifier; googlenet has two.",
    )

    def __post_init__(self):
        check(self)
        if len(self.progressive_sizes) != len(self.progressive_epochs):
            raise OptionError(
                "progressive_sizes",
                f"{len(self.progressive_sizes)} sizes and {len(self.progressive_epochs)} numbers of epochs",
                "one number of epochs (`progressive_epochs`) for each size",
            )
        if self.input_size and self.progressive_sizes:
            found = f"{self.input_size} together with `progressive_sizes`, whose images would be enlarged to it"
            raise OptionError("input_size", found, "one of them")

    def image_size(self, epoch: int) -> int | None:
        """Returns the image size of an epoch, counted from 0; None for the size of the patches."""
        for size, count in zip(self.progressive_sizes, self.progressive_epochs, strict=True):
            if epoch < count:
                return size
            epoch -= count
        return None

    def for_patches(self, size: int) -> ClassificationOptions:
        """Returns these options with defaults that depend on the patches' size, of which there are none.

        Args:
            size: height and width of the patches in pixels.

        Raises:
            OptionError: if an option does not fit the size.
        """
        self.augmentation.check_size(size, size)
        if self.input_size is not None and self.input_size < size:
            raise OptionError("input_size", f"{self.input_size}", f"the patches' {size} or more")
        if too_large := [one for one in self.progressive_sizes if one >= size]:
            raise OptionError("progressive_sizes", f"{too_large[0]}", f"less than the patches' {size}")
        return self


@documented
@dataclasses.dataclass(frozen=True)
class SegmentationOptions:
    """Options of training a segmentation model."""

    loss: str = option(
        "cross_entropy", choices=SEGMENTATION_LOSSES, help="Segmentation: loss over all pixels with a class."
    )
    class_weights: str = option(
        "none",
        choices=CLASS_WEIGHTS,
        help="Segmentation: weight of a pixel of each class in the loss, from the pixel counts of the training split.",
    )
    effective_beta: float = option(
        0.999999, minimum=0, below=1, help="Segmentation: beta of `class_weights=effective_number`."
    )
    focal_gamma: float = option(
        2.0, minimum=0, help="Segmentation: how much less `loss=focal` weighs pixels that are predicted well."
    )
    output_stride: int = option(
        16,
        choices=models.OUTPUT_STRIDES,
        help="Segmentation: pixels of the image between two of the backbone's last feature map.",
    )
    distance_head: str = option(
        "none",
        choices=("none", *models.DISTANCE_HEADS),
        help="Segmentation, records with distances: the network predicts them too, which sharpens boundaries; parallel "
        "to the mask, or cascaded: the mask is predicted from them as well (Bischke et al. 2019, arXiv 1709.05932).",
    )
    distance_weight: float | None = option(
        None,
        minimum=0,
        help="Segmentation, with `distance_head`: fixed weight of the loss of distances, where that of masks has 1. "
        "Default: both are learned by the tasks' uncertainty (Kendall et al. 2018, arXiv 1705.07115).",
    )
    stream_weight: float = option(
        0.0,
        minimum=0,
        help="Segmentation, late fusion of several sensors: weight of the loss of each sensor's own mask, where that "
        "of the joined one has 1, so that each network learns to predict without the others (Wang et al. 2020, arXiv "
        "1905.12681).",
    )
    backbone_run: str | None = option(
        None,
        path=True,
        help="Segmentation: run folder of a classifier of the same backbone, or of pre-training by `pretext`, whose "
        "weights are started from; refused where it was trained on an example that these records test on, by key, "
        "place or pixels.",
    )
    augmentation: CropAugmentation | None = nested(CropAugmentation)

    def __post_init__(self):
        check(self)
        if self.loss == "dice" and self.class_weights != "none":
            raise OptionError(
                "class_weights",
                f"{self.class_weights} with `loss=dice`",
                "a loss with cross_entropy or focal",
                "leave them out: every class counts the same in it already",
            )
        if self.distance_weight is not None and not self.predicts_distances:
            found = f"{self.distance_weight:g} without distances to predict"
            raise OptionError("distance_weight", found, "a `distance_head`", "leave it out, or choose a head")

    @property
    def predicts_distances(self) -> bool:
        """Whether the network predicts distance classes besides masks."""
        return self.distance_head != "none"

    def for_patches(self, size: int) -> SegmentationOptions:
        """Returns these options with defaults that depend on the tiles' size.

        Args:
            size: height and width of the tiles in pixels.

        Raises:
            OptionError: if an option does not fit the size.
        """
        if self.augmentation is None:
            return self
        self.augmentation.check_size(size, size)
        return dataclasses.replace(self, augmentation=self.augmentation.for_tiles(size))


@documented
@dataclasses.dataclass(frozen=True)
class PretextOptions:
    """Options of training without labels."""

    pretext: str | None = option(
        None,
        choices=PRETEXTS,
        help="Training of a segmentation network without labels: masked predicts the numbers of blocks and sensors "
        "that the network is not shown, and `backbone_run` starts a run with labels from it; translated predicts the "
        "images of `translated_sensor` from those of the others, as a stand-in where that sensor is missing. Default: "
        "none, labels are learned.",
    )
    mask_size: int = option(
        16, minimum=1, help="Pre-training: height and width in pixels of the blocks that are masked."
    )
    mask_ratio: float = option(
        0.6,
        above=0,
        below=1,
        help="Pre-training: share of the blocks of each modality that is masked (He et al. 2022, arXiv 2111.06377, "
        "mask 0.75 of their patches).",
    )
    mask_sensor: float = option(
        0.3,
        minimum=0,
        maximum=1,
        help="Pre-training on several sensors: probability that one of them is masked as a whole, with all its dates, "
        "so that it has to be told from the others.",
    )
    translated_sensor: str | None = option(
        None,
        help="With `pretext=translated`: sensor whose images are predicted, both dates, such as s2; `bands` names "
        "those of all sensors.",
    )
    adversarial_weight: float = option(
        0.01,
        minimum=0,
        help="With `pretext=translated`: weight of the adversarial loss beside the mean absolute error, which has 1 "
        "(Isola et al. 2017, arXiv 1611.07004, have 1 and 100); 0 trains without a discriminator.",
    )

    def __post_init__(self):
        check(self)
        for kind, names in _OF_PRETEXT.items():
            for name in names:
                if self.pretext != kind and getattr(self, name) != getattr(type(self), name):
                    found = f"{getattr(self, name)} without `pretext={kind}`"
                    raise OptionError(name, found, f"`pretext={kind}`", "leave it out")
        if self.pretext == TRANSLATED and self.translated_sensor is None:
            raise OptionError("translated_sensor", "none", "the sensor to predict, such as s2")

    @property
    def replaces_labels(self) -> Masking | Translation | None:
        """What a pipeline delivers in the place of labels; None for labels."""
        if self.pretext == TRANSLATED:
            return Translation(self.translated_sensor)
        return None if self.pretext is None else Masking(self.mask_size, self.mask_ratio, self.mask_sensor)


_OF_PRETEXT = {
    MASKED: ("mask_size", "mask_ratio", "mask_sensor"),
    TRANSLATED: ("translated_sensor", "adversarial_weight"),
}
"""Names of the options that apply to one kind of training without labels alone."""
