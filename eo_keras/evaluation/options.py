"""Options of an evaluation. Importing this module does not import TensorFlow."""

from __future__ import annotations

import dataclasses

from eo_keras import tasks
from eo_keras.core.options import check, documented, option
from eo_keras.errors import OptionError
from eo_keras.metrics.estimate import RESAMPLES
from eo_keras.metrics.segmentation import TOLERANCES
from eo_keras.runs import folder as runs
from eo_keras.tasks.task import Task

OWN, D4 = "none", "d4"
AUGMENTATIONS = (OWN, D4)
"""Test-time augmentation of a classification: none, or by all symmetries of the square."""

CHECKPOINTS = {"best": runs.MODEL_NAME, "last": runs.LAST_MODEL_NAME}
"""Files of a run's models by the name of the choice."""


@documented
@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation."""

    split: str = option("test", help="Split to score, such as train, val or test.")
    checkpoint: str = option(
        "best", choices=tuple(CHECKPOINTS), help="Which model: that of the kept epoch, or of the last one."
    )
    tta: str = option(
        OWN,
        choices=AUGMENTATIONS,
        help="Classification: d4 averages the probabilities over the eight symmetries of the square, which takes eight "
        "times as long. Reported apart from the model's own scores, in a folder and under a name that end in -d4.",
    )
    scales: tuple[float, ...] = option(
        (1.0,),
        minimum=0.25,
        maximum=4.0,
        help="Segmentation: sizes of the tile, as shares of its own, whose probabilities are averaged. DeepLabv3+ is "
        "published with 0.5, 0.75, 1, 1.25, 1.5 and 1.75 (Chen et al. 2018).",
    )
    flip: bool = option(False, help="Segmentation: average also over each size mirrored.")
    output_stride: int | None = option(
        None,
        help="Segmentation: 8 computes the features of a model of stride 16 twice as densely, with the same weights, "
        "and takes several times as long. Default: as trained.",
    )
    boundary_tolerances: tuple[float, ...] = option(
        TOLERANCES,
        minimum=0,
        aliases=("boundary_tolerance",),
        help="Segmentation: how many pixels a boundary may be off; boundary F1 is scored at each of them.",
    )
    boundary_width: float | None = option(
        None,
        minimum=1,
        help="Segmentation: width in pixels of the regions along boundaries of boundary IoU. Default: 2 % of the "
        "tile's diagonal, as published, which is 7 pixels of 256.",
    )
    object_class: str | None = option(
        None,
        help="Segmentation: class whose connected areas are scored as objects, such as buildings. Default: the second "
        "of a legend of two classes; of a longer legend none.",
    )
    calibrate: bool | None = option(
        None,
        help="Fit a temperature on the run's validation examples and report calibration before and after. Default: "
        "where the run has validation examples; if given, a run without is refused.",
    )
    coordinates: str | None = option(
        None,
        path=True,
        help="Classification: CSV file of the patches' centers (header patch,latitude,longitude, in degrees), for a "
        "map of the accuracy. Default: the records' own CRS and transforms, where they hold them.",
    )
    without: tuple[str, ...] = option(
        (),
        help="Several sensors: those whose images are taken away, such as s2, both dates and all examples, to measure "
        "what a model predicts where they are missing.",
    )
    stand_in: str | None = option(
        None,
        path=True,
        help="Several sensors: run folder of a model that predicts the images of one of them (`pretext=translated`), "
        "which are taken where that sensor is missing.",
    )
    resamples: int = option(RESAMPLES, minimum=1, help="Resamples of the bootstrap that gives intervals.")
    batch_size: int | None = option(
        None,
        minimum=1,
        affects_result=False,
        help="Examples predicted at a time. Default: 256 patches, or 8 tiles.",
    )

    def __post_init__(self):
        """Checks the values."""
        check(self)
        if not self.scales or len(set(self.scales)) < len(self.scales):
            raise OptionError("scales", f"{','.join(map(str, self.scales)) or 'none'}", "numbers, each once")
        if len(set(self.boundary_tolerances)) < len(self.boundary_tolerances):
            found = ",".join(map(str, self.boundary_tolerances))
            raise OptionError("boundary_tolerances", found, "numbers, each once")

    @property
    def tta_name(self) -> str:
        """`none`, or a name that distinguishes the averaged versions, such as `d4` or `s0.5-1-1.5-flip`."""
        symmetries = "" if self.tta == OWN else self.tta
        scales = "" if self.scales == (1.0,) else "s" + "-".join(f"{scale:g}" for scale in self.scales)
        return _joined(symmetries, scales, "flip" if self.flip else "") or OWN

    @property
    def without_augmentation(self) -> EvaluationOptions:
        """Options without test-time augmentation."""
        return dataclasses.replace(self, tta=OWN, scales=(1.0,), flip=False)

    @property
    def model_name(self) -> str:
        """File of the model in the run folder."""
        return CHECKPOINTS[self.checkpoint]

    @property
    def variant(self) -> str:
        """`none`, or a name that distinguishes other predictions of the same weights, such as `os8-flip`.

        Others are calibrated by a temperature of their own.
        """
        stride = "" if self.output_stride is None else f"os{self.output_stride}"
        return _joined(stride, "" if self.tta_name == OWN else self.tta_name) or OWN

    @property
    def name(self) -> str:
        """A name that distinguishes the evaluations of a run, such as `test`, `test-last-d4` or `test-os8-flip`."""
        last = "last" if self.model_name == runs.LAST_MODEL_NAME else ""
        removed = "".join(f"without-{name}" for name in self.without)
        standing_in = "" if self.stand_in is None else "stand-in"
        return _joined(self.split, last, "" if self.variant == OWN else self.variant, removed, standing_in)

    def check_task(self, task: Task) -> None:
        """Checks that the options apply to a task.

        Raises:
            OptionError: naming the first such option that has not its default.
        """
        default = EvaluationOptions()
        for name in sorted(set().union(*(tasks.get(name).evaluation_options for name in tasks.TASKS))):
            if name not in task.evaluation_options and getattr(self, name) != getattr(default, name):
                raise OptionError(
                    name, f"it does not apply to {task.description} (task {task.name})", remedy="leave it out"
                )


def _joined(*parts: str) -> str:
    return "-".join(filter(None, parts))
