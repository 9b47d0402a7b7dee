"""All scores of one evaluation, of any task: overall and by class, each with its interval, as in `metrics.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from eo_keras.errors import RunError
from eo_keras.metrics.estimate import BOOTSTRAP, WILSON, Estimate

SCHEMA = 2

CALIBRATION_SCORES = ("expected_calibration_error", "negative_log_likelihood", "brier_score")
"""Names of the scores of probabilities."""


@dataclasses.dataclass(frozen=True)
class ReliabilityBin:
    """Bin of predictions whose top probability is in (lower, upper].

    Attributes:
        lower: lower edge, not part of the bin (but 0 belongs to the first one).
        upper: upper edge, part of the bin.
        count: number of predictions in the bin.
        confidence: mean top probability in the bin; 0 if it is empty.
        accuracy: share of correct predictions in the bin; 0 if it is empty.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of the predictions for a split; shares are fractions of 1, not per cent.

    A score that is not defined, such as the recall of a class without examples, is None.

    Attributes:
        task: name of the task.
        primary: name of the score that runs are ranked by.
        unit: the counted unit: `examples` or `pixels`.
        count: number of these.
        overall: estimates by name, over all classes; also `scores["accuracy"]`.
        by_class: by name of the class, in the legend's order: `support` (number of true ones), `predicted` (number of
            predicted ones), and estimates by name.
        confusion: counts, rows true and columns predicted, in the legend's order.
        details: what else belongs to the numbers: `averaged_classes` (number of classes in the means over classes),
            `resamples` and `seed` of a bootstrap, and what the task adds.
        reliability: predictions by confidence; empty where probabilities were not scored.
        sections: further parts of `metrics.json` by name, as they are written: `calibration`, `selective`, `places`.
    """

    task: str
    primary: str
    unit: str
    count: int
    overall: Mapping[str, Estimate | None]
    by_class: Mapping[str, Mapping[str, Estimate | int | None]]
    confusion: tuple[tuple[int, ...], ...]
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reliability: tuple[ReliabilityBin, ...] = ()
    sections: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> Estimate | None:
        return self.overall[name]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the legend's order."""
        return tuple(self.by_class)

    def value(self, name: str, of_class: str | None = None) -> float | None:
        """Returns a score without its interval, of all classes or of one; None where it is not defined."""
        found = (self.overall if of_class is None else self.by_class[of_class]).get(name)
        return found.value if isinstance(found, Estimate) else found

    def to_json(self) -> dict[str, Any]:
        """Returns the section `scores` of `metrics.json`."""
        content = {
            "schema": SCHEMA,
            "task": self.task,
            "primary": self.primary,
            "unit": self.unit,
            "count": self.count,
            "scores": _to_json(self.overall),
            "by_class": {name: _to_json(values) for name, values in self.by_class.items()},
            "confusion": [list(row) for row in self.confusion],
            "details": dict(self.details),
        }
        if self.reliability:
            content["reliability"] = [dataclasses.asdict(one) for one in self.reliability]
        return content | dict(self.sections)

    @classmethod
    def read(cls, content: Mapping[str, Any], where: str = "metrics.json") -> Scores:
        """Reads the scores in a `metrics.json` of this version or of an earlier one.

        Args:
            content: the content; entries beside the scores are ignored.
            where: name of the file, for the error.

        Raises:
            RunError: if it holds no scores, or those of a later version.
        """
        schema = content.get("schema", 1)
        try:
            if schema == SCHEMA:
                return _read(content)
            if schema == 1:
                return _read_segmentation_1(content) if "macro_iou" in content["scores"] else _read_patches_1(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(
                where,
                f"its scores cannot be read ({type(error).__name__}: {error})",
                "the scores of an evaluation by launch.evaluate",
                "evaluate the run again with `force`",
            ) from None
        raise RunError(where, f"its schema is {schema}", f"{SCHEMA} or lower", "use a newer version of EO-Keras")


def _to_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.to_json() if isinstance(value, Estimate) else value for name, value in values.items()}


def _estimates(values: Mapping[str, Any], method: str | None = None) -> dict[str, Any]:
    return {
        name: Estimate.read(value, method) if isinstance(value, Mapping) else value for name, value in values.items()
    }


def _sections(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content[name] for name in ("calibration", "selective", "places") if name in content}


def _confusion(rows: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in rows)


def _bins(parts: Any) -> tuple[ReliabilityBin, ...]:
    return tuple(ReliabilityBin(**part) for part in parts)


def _read(content: Mapping[str, Any]) -> Scores:
    return Scores(
        **{name: content[name] for name in ("task", "primary", "unit", "count")},
        overall=_estimates(content["scores"]),
        by_class={name: _estimates(values) for name, values in content["by_class"].items()},
        confusion=_confusion(content["confusion"]),
        details=content["details"],
        reliability=_bins(content.get("reliability", ())),
        sections=_sections(content),
    )


def _read_patches_1(content: Mapping[str, Any]) -> Scores:
    """Reads schema 1 of patches: ends of intervals beside their scores; the first files lack those of classes."""
    old = content["scores"]
    method = old.get("interval", BOOTSTRAP)
    before = content.get("calibration", {}).get("split", {}).get("before") or {}
    overall = {"accuracy": Estimate(old["accuracy"], old["accuracy_low"], old["accuracy_high"], method)}
    overall |= {name: None if old[name] is None else Estimate(old[name]) for name in ("macro_f1", "kappa")}
    probabilities = {"expected_calibration_error": old["expected_calibration_error"]} | before
    overall |= {name: Estimate(probabilities[name]) for name in CALIBRATION_SCORES if name in probabilities}
    predicted = [sum(column) for column in zip(*old["confusion"], strict=True)]
    by_class = {}
    for one, count in zip(old["classes"], predicted, strict=True):
        values = {"support": one["support"], "predicted": one.get("predicted", count)}
        for name in ("precision", "recall", "f1"):
            ends = one.get(f"{name}_interval")
            if one[name] is None:
                values[name] = None
            else:
                values[name] = Estimate(one[name], *ends, WILSON) if ends else Estimate(one[name])
        by_class[one["name"]] = values
    return Scores(
        task="classification",
        primary="accuracy",
        unit="examples",
        count=old["count"],
        overall=overall,
        by_class=by_class,
        confusion=_confusion(old["confusion"]),
        details=_details_1(old, by_class),
        reliability=_bins(old["reliability"]),
        sections=_sections(content),
    )


def _read_segmentation_1(content: Mapping[str, Any]) -> Scores:
    """Reads schema 1 of label masks: estimates under other names; the first files name no method, all bootstraps."""
    old = content["scores"]
    found = _estimates(old, BOOTSTRAP)
    overall = {"miou": found["macro_iou"]}
    overall |= {name: found[name] for name in ("frequency_weighted_iou", "accuracy", "kappa", "boundary_f1")}
    if "cross_entropy" in content:
        overall["negative_log_likelihood"] = Estimate(content["cross_entropy"])
    by_class = {one["name"]: _estimates(one, BOOTSTRAP) for one in old["classes"]}
    for values in by_class.values():
        del values["name"]
    details = _details_1(old, by_class) | {
        "images": old["images"],
        "places": old.get("resampled", old["images"]),
        "boundary_tolerance": old["tolerance"],
    }
    return Scores(
        task="segmentation",
        primary="miou",
        unit="pixels",
        count=old["pixels"],
        overall=overall,
        by_class=by_class,
        confusion=_confusion(old["confusion"]),
        details=details,
        sections=_sections(content),
    )


def _details_1(old: Mapping[str, Any], by_class: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    supported = sum(values["support"] > 0 for values in by_class.values())
    details = {"averaged_classes": old.get("macro_classes", supported)}
    names = {"resamples": "bootstrap_resamples", "seed": "bootstrap_seed"}
    return details | {name: old[old_name] for name, old_name in names.items() if old_name in old}
