"""Text of scores as launch.evaluate prints them; no command."""

from collections.abc import Iterator, Mapping
from typing import Any

from eo_keras.core.number_format import number, percent
from eo_keras.metrics.estimate import Estimate
from eo_keras.metrics.metric import METRICS, Metric
from eo_keras.metrics.outcomes import Paired
from eo_keras.metrics.scores import Scores

_FEWEST_COLUMNS = 24


def class_lines(scores: Scores) -> list[str]:
    """Returns a table of the classes: counts, and each score with its interval."""
    names = [name for name in next(iter(scores.by_class.values())) if name in METRICS]
    width = max(_FEWEST_COLUMNS, *(len(name) + 1 for name in scores.by_class))
    heads = [scores.unit, *(METRICS[name].title for name in names)]
    rows = [
        [f"{values['support']:,}", *(_with_interval(METRICS[name], values[name]) for name in names)]
        for values in scores.by_class.values()
    ]
    widths = [2 + max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads))]
    lines = [
        f"{name:{width}}" + "".join(f"{cell:>{size}}" for cell, size in zip(row, widths, strict=True))
        for name, row in zip(("class", *scores.by_class), (heads, *rows), strict=True)
    ]
    return [*lines, "in parentheses: 95 % intervals"]


def score_lines(scores: Scores) -> list[str]:
    """Returns the scores of all classes together, and those of the confidences."""
    classes, averaged = len(scores.by_class), scores.details["averaged_classes"]
    found = [f"{METRICS[name].title} {_with_interval(METRICS[name], value)}" for name, value in scores.overall.items()]
    over = "" if averaged == classes else f"; means over the {averaged} of {classes} classes that occur"
    lines = [f"{', '.join(found)}, of {scores.count:,} {scores.unit}{over}"]
    if "places" in scores.details:
        images, places = scores.details["images"], scores.details["places"]
        of_places = f" of {places:,} places" if places < images else ""
        tolerance = scores.details["boundary_tolerance"]
        lines.append(
            f"intervals: {scores[scores.primary].method} over {images:,} tiles{of_places}; "
            f"boundaries within {tolerance:g} pixels"
        )
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
