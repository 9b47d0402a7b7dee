"""The lines in which launch.evaluate tells the scores of a model of patches; it has no command of its own."""

from collections.abc import Iterator, Mapping
from typing import Any

from eo_keras.core.number_format import interval, number, percent
from eo_keras.metrics.scores import Scores


def class_lines(scores: Scores) -> list[str]:
    """Returns a table of the classes."""
    lines = [f"{'class':24}{'precision':>10}{'recall':>10}{'95 % interval':>20}{'F1':>10}{'examples':>10}"]
    for name, one in scores.by_class.items():
        precision, recall, f1 = (percent(scores.value(score, name)) for score in ("precision", "recall", "f1"))
        ends = interval(one["recall"] and one["recall"].ends)
        lines.append(f"{name:24}{precision:>10}{recall:>10}{ends:>20}{f1:>10}{one['support']:>10,}")
    return [*lines, "95 % interval: Wilson's, of the recall"]


def score_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Returns what the content of `metrics.json` says of all classes together, and of the confidences."""
    scores = Scores.read(metrics)
    classes, averaged = len(scores.by_class), scores.details["averaged_classes"]
    over = "" if averaged == classes else f" (over those that have examples, {averaged} of {classes} classes)"
    ends = interval(scores["accuracy"].ends)
    return [
        f"overall accuracy {percent(scores.value('accuracy'))} (95 % interval by Wilson {ends}), macro F1 "
        f"{percent(scores.value('macro_f1'))}{over}, kappa {number(scores.value('kappa'))}, expected calibration error "
        f"{percent(scores.value('expected_calibration_error'))}",
        *_calibration(metrics["calibration"]),
        *_selective(metrics["selective"]),
    ]


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
        f"({found['fitted_on']}); here it takes {', '.join(changes)}"
    )
    yield from (f"caution: of the temperature, {caution}" for caution in found["cautions"])


def _selective(found: Mapping[str, Any]) -> Iterator[str]:
    parts = [
        f"{percent(one['accuracy'])} of the surest {one['coverage']:.0%}" for one in found["accuracy_at_coverage"][1:]
    ]
    reached = [
        f"{one['accuracy']:.1%} with {one['coverage']:.1%} answered (confidence from {one['threshold']:.3f})"
        if one["coverage"] is not None
        else f"{one['accuracy']:.1%} by no threshold"
        for one in found["coverage_at_accuracy"]
    ]
    yield f"selective accuracy: {', '.join(parts)}; {'; '.join(reached)}"
    for one in found.get("by_validation", ()):
        answered = f"{one['coverage']:.1%}, of which {percent(one['accuracy'])} are right"
        yield (
            f"answered from confidence {one['threshold']:.3f} on, which validation suggests for {one['aim']:.1%}: "
            f"{'no example' if one['accuracy'] is None else answered}"
        )
