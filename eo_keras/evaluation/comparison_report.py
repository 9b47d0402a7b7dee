"""A comparison of models of patches as a report: tables, CSV and JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from eo_keras.core.number_format import number, percent
from eo_keras.evaluation.comparison_page import SIGNIFICANT, Chart, Report, Row, bands_text, p_text
from eo_keras.evaluation.comparison_page import verdict as verdict_of
from eo_keras.metrics import comparison, estimate
from eo_keras.metrics.comparison import Comparison, Difference, Member
from eo_keras.plots.html import Table

METHOD = (
    "95 % intervals: of accuracies Wilson's, of differences Tango's for two runs on the same examples; both are score "
    "intervals of proportions and take the examples for independent. p is that of McNemar's exact test on the examples "
    "that only one of the two answers rightly; p (Holm) is corrected for the number of pairs, and a run is called "
    f"better where it is below {SIGNIFICANT:g}."
)
CAUTION = (
    "The best of many runs by these same examples looks better than it is: choose by the validation accuracy, and "
    "read here how sure that choice is. The intervals know of other test examples, not of another training."
)


def verdict(difference: Difference) -> str:
    """Says in words what a pair's corrected p-value means."""
    return verdict_of(difference.first, difference.second, difference.difference, difference.p_holm)


def score_table(found: Comparison) -> Table:
    """Returns the runs with their scores, the most accurate first."""
    rows = []
    for member in _ranked(found):
        content, scores = member.metrics, member.metrics["scores"]
        after = content["calibration"]["split"]["after"]
        rows.append(
            (
                member.name,
                f"{content['model']}, {bands_text(content['bands'])}",
                _validation(content),
                percent(scores["accuracy"]),
                f"{scores['accuracy_low']:.2%} to {scores['accuracy_high']:.2%}",
                percent(scores["macro_f1"]),
                number(scores["kappa"]),
                percent(scores["expected_calibration_error"]),
                f"{after['expected_calibration_error']:.2%}" if after else "-",
                f"{content['selective']['aurc']:.4f}",
            )
        )
    columns = (
        "run",
        "network",
        "validation",
        "accuracy",
        "95 % interval",
        "macro F1",
        "kappa",
        "ECE",
        "ECE, T",
        "AURC",
    )
    caption = (
        f"Scores on {found.examples:,} examples. Validation: accuracy on the examples that chose the epoch. ECE: "
        "expected calibration error; ECE, T: after temperature scaling. AURC: area under the risk-coverage curve."
    )
    return Table(columns, rows, caption, 2)


def pair_table(found: Comparison) -> Table:
    """Returns all pairs: difference, interval, counts and p-values."""
    rows = [
        (
            f"{one.first} - {one.second}",
            verdict(one),
            f"{100 * one.difference:+z.2f}",
            f"{100 * one.low:+.2f} to {100 * one.high:+.2f}",
            f"{one.only_first_right:,} : {one.only_second_right:,}",
            p_text(one.p_value),
            p_text(one.p_holm),
        )
        for one in found.differences
    ]
    columns = ("pair", "verdict", "difference", "95 % interval", "only one right", "p", "p (Holm)")
    return Table(columns, rows, "Differences of accuracy in percentage points, on the same examples.", 2)


def class_table(found: Comparison) -> Table:
    """Returns F1 by class and run."""
    ranked = _ranked(found)
    scores = [member.metrics["scores"]["classes"] for member in ranked]
    rows = [
        (name, *(percent(by_class[place]["f1"]) for by_class in scores))
        for place, name in enumerate(found.members[0].class_names)
    ]
    return Table(("class", *(member.name for member in ranked)), rows, "F1 by class; - where a class has no examples.")


def report(found: Comparison, title: str) -> Report:
    """Returns a comparison, ready for `comparison_page.write`."""
    columns, lines = _csv(found)
    return Report(
        title=title,
        subtitle=f"{len(found.members)} runs, {found.examples:,} examples",
        warnings=found.warnings,
        tables=(score_table(found), pair_table(found), class_table(found)),
        chart=_chart(found),
        method=METHOD,
        caution=CAUTION,
        columns=columns,
        lines=lines,
        content=to_json(found),
    )


def to_json(found: Comparison) -> dict[str, Any]:
    """Returns a comparison as plain dictionaries, lists and numbers."""
    first = found.members[0].metrics
    return {
        "split": first["split"],
        "tta": first["tta"],
        "examples": found.examples,
        "best": found.best.name,
        "intervals": f"{estimate.WILSON} of accuracies, {estimate.TANGO} of differences",
        "test": "McNemar, exact, two-sided; p_holm: Holm's correction over all pairs",
        "warnings": list(found.warnings),
        "runs": [
            {
                "name": member.name,
                **{
                    name: member.metrics[name] for name in ("model", "bands", "model_sha256", "trained_on", "selection")
                },
                "data_fingerprint": member.metrics["data_fingerprint"],
                "scores": {
                    name: value
                    for name, value in member.metrics["scores"].items()
                    if name not in ("confusion", "reliability")
                },
                "temperature": member.metrics["calibration"]["temperature"],
                "calibration": member.metrics["calibration"]["split"],
                "aurc": member.metrics["selective"]["aurc"],
            }
            for member in found.members
        ],
        "differences": [dataclasses.asdict(one) | {"verdict": verdict(one)} for one in found.differences],
    }


def _csv(found: Comparison) -> tuple[list[str], list[list[Any]]]:
    names = found.members[0].class_names
    scored = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "kappa", "expected_calibration_error")
    versus = ("minus_best", "minus_best_low", "minus_best_high", "p_value", "p_holm")
    head = ("run", "model", "bands", "validation_accuracy", *scored, "temperature", "calibrated_ece", "aurc", *versus)
    lines = []
    for member in _ranked(found):
        content = member.metrics
        after = content["calibration"]["split"]["after"]
        against: list[Any] = [""] * len(versus)
        if member is not found.best:
            one = found.between(member.name, found.best.name)
            against = [one.difference, one.low, one.high, one.p_value, one.p_holm]
        lines.append(
            [
                member.name,
                content["model"],
                " ".join(content["bands"]),
                content["selection"].get("value"),
                *(content["scores"][name] for name in scored),
                content["calibration"]["temperature"],
                after["expected_calibration_error"] if after else None,
                content["selective"]["aurc"],
                *against,
                *(one["f1"] for one in content["scores"]["classes"]),
            ]
        )
    return [*head, *(f"f1_{name}" for name in names)], lines


def _chart(found: Comparison) -> Chart:
    ranked, rows = _ranked(found), []
    for member in ranked:
        scores = member.metrics["scores"]
        score = (scores["accuracy"], scores["accuracy_low"], scores["accuracy_high"])
        by_class = comparison.by_class(member)
        if member is ranked[0]:
            rows.append(Row(member.name, score, None, None, by_class))
            continue
        one = found.between(member.name, ranked[0].name)
        rows.append(Row(member.name, score, (one.difference, one.low, one.high), one.p_holm, by_class))
    return Chart(rows, found.members[0].class_names, "Accuracy", "the most accurate", "F1", "McNemar's test")


def _ranked(found: Comparison) -> list[Member]:
    return sorted(found.members, key=lambda member: -member.metrics["scores"]["accuracy"])


def _validation(content: Any) -> str:
    value = content["selection"].get("value")
    return percent(value) if isinstance(value, float) else "-"
