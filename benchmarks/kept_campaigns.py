"""Campaigns that docs/results keeps: the section of the page on each, made of its plan.json and results.json."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import harness
from benchmarks.campaign_plan import CURVE_NAME, PLAN_NAME, RESULTS_NAME, SPLIT, sides
from benchmarks.kept_runs import Run, read, repeat, table, threshold, threshold_command
from eo_keras.core.number_format import ABSENT
from eo_keras.evaluation.comparison_report import p_text
from eo_keras.metrics.metric import Metric, metric_of

_IMAGE_NAME = "maps.png"


def section(folder: pathlib.Path) -> list[str]:
    """Returns the section on a campaign, or nothing where nothing is evaluated yet.

    Args:
        folder: docs/results/campaigns/NAME.
    """
    found = read(folder / RESULTS_NAME) if (folder / RESULTS_NAME).is_file() else {"rows": []}
    if not found["rows"]:
        return []
    plan = read(folder / PLAN_NAME)
    where = f"results/campaigns/{folder.name}"
    lines = ["", f"## {plan['title']}", "", plan["text"]]
    lines += ["", f"{_machine(found)} {found['method']} Every run is in [{RESULTS_NAME}]({where}/{RESULTS_NAME})."]
    lines += ["", *_rows(plan, found)]
    if found["open"]:
        lines += ["", f"Not trained yet: {', '.join(found['open'])}."]
    if beside := threshold(folder):
        lines += ["", *beside]
    lines += _evaluations(plan, found) + _comparisons(plan, found)
    if (folder / CURVE_NAME).is_file():
        lines += ["", f"![{_title(plan['scores'][0])} by {plan['curve']}: {plan['title']}]({where}/{CURVE_NAME})"]
    if (folder / _IMAGE_NAME).is_file():
        lines += ["", f"![Test tiles, true masks and predictions of {plan['title']}]({where}/{_IMAGE_NAME})"]
    return lines + repeat(
        [
            *plan["build"],
            f"python -m benchmarks.campaign --plan=docs/{where} --runs_dir=runs/{folder.name}",
            *threshold_command(folder, plan["records_dir"], f"docs/{where}"),
        ]
    )


def _machine(found: Mapping[str, Any]) -> str:
    environments = [run["environment"] for row in found["rows"] for run in row["runs"]]
    versions = {f"{name} {one['versions'][name]}" for one in environments for name in ("eo-keras", "tensorflow")}
    if found["machine"]:
        machine = harness.machine_text(found["machine"])
    else:
        machine = "; ".join(sorted({f"{one['platform']}, {one['processors']} processors" for one in environments}))
    return f"{machine}; {', '.join(sorted(versions))}."


def _metric(name: str) -> Metric:
    return metric_of(name.partition(":")[0])


def _title(name: str) -> str:
    of_class = name.partition(":")[2]
    return f"{_metric(name).title}{f' of {of_class}' if of_class else ''}"


def _cell(name: str, one: Mapping[str, Any] | None) -> str:
    """Returns mean, deviation and interval of a score."""
    if one is None:
        return ABSENT
    metric = _metric(name)
    text = metric.show(one["mean"])
    if "deviation" in one:
        text += f" ± {metric.show_difference(one['deviation'])[1:]}"
    return text + (f" ({metric.show_interval((one['low'], one['high']))})" if "low" in one else "")


def _flags(row: Mapping[str, Any]) -> str:
    return " ".join(f"`--{name}={value}`" for name, value in row["flags"].items())


def _rows(plan: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    first, rows = plan["scores"][0], []
    calibrated = any("calibration" in run for row in found["rows"] for run in row["runs"])
    for row in found["rows"]:
        scores = row["evaluations"][SPLIT]
        each = scores[first]["values"] if scores[first] else []
        rows.append(
            (
                row["title"],
                _flags(row),
                f"{row['parameters']:,}",
                *(_cell(name, scores[name]) for name in plan["scores"]),
                ", ".join(_metric(first).show(value) for value in each),
                *([_calibration(row)] if calibrated else []),
                f"{row['hours']:.2f}",
                f"{row['images_per_second']:.1f}",
            )
        )
    scores = [_title(name) for name in plan["scores"]]
    columns = ["row", "flags", "weights", *scores, f"{scores[0]}, each seed", "hours a run", "images/s in training"]
    columns[-2:-2] = ["calibration error, after a temperature"] if calibrated else []
    return table(columns, rows, 2)


def _calibration(row: Mapping[str, Any]) -> str:
    """Returns the mean expected calibration error of a row's runs before and after a temperature was fitted."""
    fitted = [run["calibration"] for run in row["runs"] if "calibration" in run]
    if not fitted:
        return ABSENT
    before, after = (statistics.fmean(one[when] for one in fitted) for when in ("before", "after"))
    return f"{before:.2%}, {after:.2%}"


def figures(folder: pathlib.Path, runs: Mapping[str, Run]) -> list[tuple[str, ...]]:
    """Returns the figures to reach of all plans: figure, best known, to reach, reached here, and the outcome.

    Args:
        folder: docs/results.
        runs: single runs in it, by name.
    """
    rows = []
    for path in sorted((folder / "campaigns").glob(f"*/{PLAN_NAME}")):
        plan, results = read(path), path.parent / RESULTS_NAME
        found = {row["name"]: row for row in read(results)["rows"]} if results.is_file() else {}
        metric = _metric(plan["scores"][0])
        for row in (row for row in plan["rows"] if row.get("best_known") or row.get("reach") is not None):
            one = found[row["name"]]["evaluations"][SPLIT][plan["scores"][0]] if row["name"] in found else None
            earlier = [runs[name].scores[plan["scores"][0]] for name in row.get("earlier", ())]
            values = [each.value for each in earlier] + (one["values"] if one else [])
            left = len(row.get("seeds") or plan["seeds"]) - (len(one["values"]) if one else 0)
            here = ""
            if len(values) == 1:
                ends = (one["low"], one["high"]) if one else earlier[0].ends
                here = f"**{metric.show(values[0])}** ({metric.show_interval(ends)})"
            elif values:
                listed = ", ".join(map(metric.show, values))
                here = f"**{metric.show(statistics.fmean(values))}**, mean of {len(values)} seeds ({listed})"
            state = _state(row, values)
            if values and left:
                state += f"; {left} of {left + len(values)} seeds open"
            rows.append((row["title"], row.get("best_known", ""), _aim(metric, row), here, state))
    return rows


def _aim(metric: Metric, row: Mapping[str, Any]) -> str:
    if row.get("reach") is None:
        return ""
    return metric.show(row["reach"]) + (f", the goal {metric.show(row['goal'])}" if row.get("goal") else "")


def _state(row: Mapping[str, Any], values: Sequence[float]) -> str:
    """Returns whether the mean of a row is what it should be."""
    if not values:
        return "open"
    if row.get("reach") is None:
        return "measured"
    # As printed.
    mean = round(statistics.fmean(values), 4)
    if row.get("goal") and mean >= row["goal"]:
        return "goal reached"
    return "reached" if mean >= row["reach"] else "missed"


def _evaluations(plan: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Returns the table of the rows that were evaluated in several ways, such as with each sensor removed."""
    rows = [
        (row["title"], _way(name), *(_cell(score, scores[score]) for score in plan["scores"]))
        for row in found["rows"]
        if len(row["evaluations"]) > 1
        for name, scores in row["evaluations"].items()
    ]
    columns = ("row", "evaluated", *map(_title, plan["scores"]))
    return ["", *table(columns, rows, 2)] if rows else []


def _way(evaluation: str) -> str:
    """Returns an evaluation in words, such as `without s2`."""
    return evaluation.removeprefix(SPLIT).strip("-").replace("without-", "without ") or "as trained"


def _comparisons(plan: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    titles = {row["name"]: row["title"] for row in found["rows"]}

    def side(text: str) -> str:
        row, evaluation = sides(text)
        return titles[row] + ("" if evaluation == SPLIT else f", {_way(evaluation)}")

    rows = []
    for one in found["comparisons"]:
        metric, pooled, both = _metric(one["score"]), one["pooled"], one["over_seeds"]
        each = [f"{metric.show_difference(seed['difference'])} (p {_p(seed)})" for seed in one["seeds"]]
        rows.append(
            (
                f"{side(one['first'])} - {side(one['second'])}",
                _title(one["score"]),
                metric.show_difference(pooled["difference"]),
                _ends(metric, pooled),
                _ends(metric, both) if len(one["seeds"]) > 1 else ABSENT,
                p_text(pooled["p_value"]),
                p_text(pooled["p_holm"]),
                ", ".join(each),
            )
        )
    unit = found["unit"]
    columns = ("pair", "score", "difference", f"95 % interval over {unit}", "over seeds too", "p", "p (Holm)", "seeds")
    return ["", *table(columns, rows, 2)] if rows else []


def _p(one: Mapping[str, Any]) -> str:
    text = p_text(one["p_value"])
    return text if text.startswith("<") else f"= {text}"


def _ends(metric: Metric, one: Mapping[str, Any]) -> str:
    if "low" not in one:
        return ABSENT
    return f"{metric.show_difference(one['low'])} to {metric.show_difference(one['high'])}"


def sections(folder: pathlib.Path) -> Sequence[str]:
    """Returns the sections on all campaigns in a folder, by name."""
    return [line for path in sorted(folder.glob(f"*/{PLAN_NAME}")) for line in section(path.parent)]
