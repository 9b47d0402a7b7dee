"""Text of scores as launch.evaluate prints them; no command."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eo_keras.core.number_format import number, percent
from eo_keras.metrics.estimate import Estimate
from eo_keras.metrics.metric import Metric, metric_of
from eo_keras.metrics.outcomes import Paired
from eo_keras.metrics.scores import Scores

_FEWEST_COLUMNS = 24


def class_lines(scores: Scores) -> list[str]:
    """Returns a table of the classes, of boundaries another: counts, and each score with its interval."""
    names = [name for name in next(iter(scores.by_class.values())) if name not in ("support", "predicted")]
    of_boundaries = [name for name in names if name.startswith("boundary_")]
    lines = _class_table(scores, [name for name in names if name not in of_boundaries])
    if of_boundaries:
        lines += ["", *_class_table(scores, of_boundaries)]
    return [*lines, "in parentheses: 95 % intervals"]


def _class_table(scores: Scores, names: Sequence[str]) -> list[str]:
    metrics = [metric_of(name) for name in names]
    width = max(_FEWEST_COLUMNS, *(len(name) + 1 for name in scores.by_class))
    heads = [scores.unit, *(metric.title for metric in metrics)]
    rows = [
        [f"{values['support']:,}", *(_with_interval(metric, values[metric.name]) for metric in metrics)]
        for values in scores.by_class.values()
    ]
    widths = [2 + max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads))]
    return [
        f"{name:{width}}" + "".join(f"{cell:>{size}}" for cell, size in zip(row, widths, strict=True))
        for name, row in zip(("class", *scores.by_class), (heads, *rows), strict=True)
    ]


def score_lines(scores: Scores) -> list[str]:
    """Returns the scores of all classes together, and those of the confidences."""
    classes, averaged = len(scores.by_class), scores.details["averaged_classes"]
    groups: dict[str, list[str]] = {"": [], "boundary": [], "object": []}
    for name, value in scores.overall.items():
        kind = name.partition("_")[0]
        found = groups[kind if kind in groups else ""]
        found.append(f"{metric_of(name).title} {_with_interval(metric_of(name), value)}")
    over = "" if averaged == classes else f"; means over the {averaged} of {classes} classes that occur"
    lines = [f"{', '.join(groups[''])}, of {scores.count:,} {scores.unit}{over}"]
    if groups["boundary"]:
        lines.append(f"means over classes: {', '.join(groups['boundary'])}")
    if groups["object"]:
        of_class = scores.details["object_class"]
        lines.append(f"objects of the class {of_class}, matched above IoU 0.5: {', '.join(groups['object'])}")
    if "places" in scores.details:
        images, places = scores.details["images"], scores.details["places"]
        of_places = f" of {places:,} places" if places < images else ""
        lines.append(f"intervals: {scores[scores.primary].method} over {images:,} tiles{of_places}")
    lines += _calibration(scores.sections["calibration"])
    return [*lines, *_selective(scores.sections["selective"])]


def paired_text(paired: Paired, metric: Metric) -> str:
    """Returns the difference of two models' scores of the same examples."""
    one = paired.difference
    ends = f"{metric.show_difference(one.low)} to {metric.show_difference(one.high)}"
    unit = " percentage points" if metric.in_percent else f" {metric.title}"
    return f"{metric.show_difference(one.value)}{unit} (95 % interval {ends}; p = {paired.p_value:.3g})"


def _with_interval(metric: Metric, value: Estimate | None) -> str:
    if value is None:
        return metric.show(None)
    return metric.show(value.value) + (f" ({metric.show_interval(value.ends)})" if value.ends else "")


def _calibration(found: Mapping[str, Any]) -> Iterator[str]:
    if found["temperature"] is None:
        yield f"temperature: none ({found['reason']})"
        return
    limit = ", the limit of the search" if found["at_limit"] else ""
    names = {
        "calibration error": ("expected_calibration_error", percent),
        "negative log-likelihood": ("negative_log_likelihood", number),
        "Brier score": ("brier_score", number),
    }
    before, after = found["split"]["before"], found["split"]["after"]
    changes = [f"the {title} from {text(before[name])} to {text(after[name])}" for title, (name, text) in names.items()]
    yield (
        f"temperature {found['temperature']:.3f}{limit}, fitted on {found['examples']:,} examples "
        f"({found['fitted_on']}); here it changes {', '.join(changes)}"
    )
    yield from (f"caution: of the temperature, {caution}" for caution in found["cautions"])


def _selective(found: Mapping[str, Any]) -> Iterator[str]:
    parts = [
        f"{percent(one['accuracy'])} of the most confident {one['coverage']:.0%}"
        for one in found["accuracy_at_coverage"][1:]
    ]
    reached = [
        f"{one['accuracy']:.1%} with {one['coverage']:.1%} kept (confidence from {one['threshold']:.3f})"
        if one["coverage"] is not None
        else f"{one['accuracy']:.1%} by no threshold"
        for one in found["coverage_at_accuracy"]
    ]
    yield f"selective accuracy: {', '.join(parts)}; {'; '.join(reached)}"
    for one in found.get("by_validation", ()):
        kept = f"{one['coverage']:.1%}, of which {percent(one['accuracy'])} are correct"
        yield (
            f"kept from confidence {one['threshold']:.3f} on, which validation suggests for {one['aim']:.1%}: "
            f"{'no example' if one['accuracy'] is None else kept}"
        )
