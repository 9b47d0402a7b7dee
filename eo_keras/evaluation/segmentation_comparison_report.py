"""A comparison of models of maps as a report: tables, CSV and JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from eo_keras.core.number_format import number
from eo_keras.evaluation.comparison_page import SIGNIFICANT, Chart, Report, Row, bands_text, p_text, verdict
from eo_keras.metrics import segmentation_comparison
from eo_keras.metrics.estimate import Estimate
from eo_keras.metrics.segmentation_comparison import DenseComparison
from eo_keras.plots.html import Table

METHOD = (
    "95 % intervals are percentile intervals of a bootstrap over places, where tiles of the same ground are one place, "
    f"with {segmentation_comparison.RESAMPLES:,} resamples; those of differences draw the same places for both runs. "
    "Of few places, and of scores that are the same in all draws, they are made of Wilson's intervals, which are "
    "wider. p is that of a permutation test that swaps the two runs' predictions place by place; p (Holm) is corrected "
    f"for the number of pairs, and a run is called better where it is below {SIGNIFICANT:g}."
)
CAUTION = (
    "The best of many runs by these same tiles looks better than it is: choose by the validation mIoU, and read here "
    "how sure that choice is. The intervals know of other tiles of these cities, not of other cities or another "
    "training."
)


def score_table(found: DenseComparison) -> Table:
    """Returns the runs with their scores, that of the highest mIoU first."""
    rows = [
        (
            member.name,
            f"{member.metrics['model']}, {bands_text(member.metrics['bands'])}",
            number(member.metrics["selection"].get("value")),
            number(scores.macro_iou.value),
            _ends(scores.macro_iou),
            number(scores.frequency_weighted_iou.value),
            number(scores.accuracy.value),
            number(_value(scores.kappa)),
            number(_value(scores.boundary_f1)),
        )
        for member in found.ranked
        for scores in [member.scores]
    ]
    columns = ("run", "network", "validation", "mIoU", "95 % interval", "fw IoU", "accuracy", "kappa", "boundary F1")
    first = found.members[0].scores
    caption = (
        f"Scores on {first.images:,} tiles of {first.resampled:,} places; mIoU over the {first.macro_classes} of "
        f"{len(first.classes)} classes that have pixels. Validation: mIoU on the tiles that chose the epoch. fw IoU: "
        "IoU weighted by the classes' shares. Accuracy: share of right pixels."
    )
    return Table(columns, rows, caption, 2)


def pair_table(found: DenseComparison) -> Table:
    """Returns all pairs: difference, interval and p-values."""
    rows = [
        (
            f"{one.first} - {one.second}",
            verdict(one.first, one.second, one.difference, one.p_holm),
            f"{one.difference:+z.4f}",
            f"{one.low:+z.4f} to {one.high:+z.4f}",
            p_text(one.p_value),
            p_text(one.p_holm),
        )
        for one in found.differences
    ]
    columns = ("pair", "verdict", "difference", "95 % interval", "p", "p (Holm)")
    return Table(columns, rows, "Differences of mIoU, on the same tiles.", 2)


def class_table(found: DenseComparison) -> Table:
    """Returns IoU by class and run."""
    rows = [
        (name, *(number(_value(member.scores.classes[place].iou)) for member in found.ranked))
        for place, name in enumerate(found.members[0].scorer.class_names)
    ]
    columns = ("class", *(member.name for member in found.ranked))
    return Table(columns, rows, "IoU by class; - where a class has no pixels.")


def report(found: DenseComparison, title: str) -> Report:
    """Returns a comparison, ready for `comparison_page.write`."""
    columns, lines = _csv(found)
    return Report(
        title=title,
        subtitle=f"{len(found.members)} runs, {found.members[0].scores.images:,} tiles",
        warnings=found.warnings,
        tables=(score_table(found), pair_table(found), class_table(found)),
        chart=_chart(found),
        method=METHOD,
        caution=CAUTION,
        columns=columns,
        lines=lines,
        content=to_json(found),
    )


def to_json(found: DenseComparison) -> dict[str, Any]:
    """Returns a comparison as plain dictionaries, lists and numbers."""
    first = found.members[0]
    said = ("model", "bands", "model_sha256", "trained_on", "data_fingerprint", "selection", "output_stride", "tta")
    return {
        "split": first.metrics["split"],
        "tiles": first.scores.images,
        "places": first.scores.resampled,
        "best": found.ranked[0].name,
        "resamples": segmentation_comparison.RESAMPLES,
        "seed": segmentation_comparison.SEED,
        "test": "permutation of answers by place, two-sided; p_holm: Holm's correction over all pairs",
        "warnings": list(found.warnings),
        "runs": [
            {
                "name": member.name,
                **{name: member.metrics[name] for name in said},
                "scores": {name: value for name, value in member.metrics["scores"].items() if name != "confusion"},
            }
            for member in found.members
        ],
        "differences": [
            dataclasses.asdict(one) | {"verdict": verdict(one.first, one.second, one.difference, one.p_holm)}
            for one in found.differences
        ],
    }


def _csv(found: DenseComparison) -> tuple[list[str], list[list[Any]]]:
    head = ["run", "model", "bands", "validation_miou", "miou", "miou_low", "miou_high", "frequency_weighted_iou"]
    head += ["accuracy", "kappa", "boundary_f1", "minus_best", "minus_best_low", "minus_best_high", "p_value", "p_holm"]
    best, lines = found.ranked[0], []
    for member in found.ranked:
        scores, content = member.scores, member.metrics
        against: list[Any] = [""] * 5
        if member is not best:
            one = found.between(member.name, best.name)
            against = [one.difference, one.low, one.high, one.p_value, one.p_holm]
        mean = scores.macro_iou
        lines.append(
            [
                member.name,
                content["model"],
                " ".join(content["bands"]),
                content["selection"].get("value"),
                *(mean.value, mean.low, mean.high),
                *(scores.frequency_weighted_iou.value, scores.accuracy.value),
                *(_value(scores.kappa), _value(scores.boundary_f1)),
                *against,
                *(_value(item.iou) for item in scores.classes),
            ]
        )
    return [*head, *(f"iou_{name}" for name in best.scorer.class_names)], lines


def _chart(found: DenseComparison) -> Chart:
    best, rows = found.ranked[0], []
    for member in found.ranked:
        mean = member.scores.macro_iou
        by_class = np.array([_value(item.iou) for item in member.scores.classes], np.float64)
        difference, p = None, None
        if member is not best:
            one = found.between(member.name, best.name)
            difference, p = (one.difference, one.low, one.high), one.p_holm
        rows.append(Row(member.name, (mean.value, mean.low, mean.high), difference, p, by_class))
    return Chart(rows, best.scorer.class_names, "mIoU", "the highest mIoU", "IoU", "permutation test")


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _ends(estimate: Estimate) -> str:
    return f"{number(estimate.low)} to {number(estimate.high)}"
