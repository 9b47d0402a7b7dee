"""What a sweep has come to, as files: JSON and CSV to compute with, a table to read, a figure, and TensorBoard's table.

Runs are compared by the score of the kept epoch on validation examples: accuracy, or of maps mIoU. The test split is
never asked: a split that has chosen among settings no longer tests.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from eo_keras.core import files
from eo_keras.core.output_folders import OutputFolder
from eo_keras.plots.html import Table
from eo_keras.sweeps import figure as sweep_figure
from eo_keras.sweeps import tensorboard
from eo_keras.sweeps.grid import SEED, format_value
from eo_keras.sweeps.state import FAILED, FINISHED, JSON_NAME, SCHEMA, TITLES, RunStatus, Sweep

CSV_NAME, TABLE_NAME, FIGURE_NAME = "sweep.csv", "table.md", "sweep.png"
NAMES = (JSON_NAME, CSV_NAME, TABLE_NAME, FIGURE_NAME)

_NONE = "-"


@dataclasses.dataclass(frozen=True)
class SweepPoint:
    """The runs that differ in their seed alone.

    Attributes:
        values: values of the varied flags, without the seed.
        runs: number of its runs.
        finished: number of those that are finished; the numbers below are over them.
        failed: number of those that failed.
        score: mean score on the validation examples, 0 to 1; None without any.
        score_sd: sample standard deviation of it (n - 1); None of fewer than two.
        loss: mean cross-entropy on the validation examples, in nats.
        loss_sd: sample standard deviation of it.
        minutes: mean time of training.
    """

    values: Mapping[str, Any]
    runs: int
    finished: int
    failed: int
    score: float | None
    score_sd: float | None
    loss: float | None
    loss_sd: float | None
    minutes: float | None


def settings_of(results: Sequence[RunStatus]) -> list[SweepPoint]:
    """Returns the settings in the order in which they first come."""
    groups: dict[tuple[str, ...], list[RunStatus]] = {}
    for result in results:
        key = tuple(format_value(value) for name, value in result.settings.items() if name != SEED)
        groups.setdefault(key, []).append(result)
    return [_setting(group) for group in groups.values()]


def _setting(group: Sequence[RunStatus]) -> SweepPoint:
    done = [result for result in group if result.status == FINISHED]

    def mean(values: Sequence[float]) -> float | None:
        return statistics.fmean(values) if values else None

    def deviation(values: Sequence[float]) -> float | None:
        return statistics.stdev(values) if len(values) > 1 else None

    scores, losses = [one.score for one in done], [one.loss for one in done]
    return SweepPoint(
        {name: value for name, value in group[0].settings.items() if name != SEED},
        len(group),
        len(done),
        sum(one.status == FAILED for one in group),
        mean(scores),
        deviation(scores),
        mean(losses),
        deviation(losses),
        mean([one.seconds / 60 for one in done]),
    )


def best_of(settings: Sequence[SweepPoint]) -> SweepPoint | None:
    """Returns the setting of the highest mean score, of equal ones that of the lower loss.

    A setting of which a run failed is left out: the mean over the runs that happened to get through says too much. None
    where no other setting has a finished run.
    """
    eligible = [one for one in settings if one.finished and not one.failed]
    return max(eligible, key=lambda one: (one.score, -one.loss), default=None)


def table(found: Sweep) -> Table:
    """Returns the settings, the best first and those without a finished run last."""
    settings = settings_of(found.results)
    best = best_of(settings)
    names = [name for name in found.varied if name != SEED]
    ranked = sorted(settings, key=lambda one: (one is not best, one.score is None, -(one.score or 0), one.loss or 0))
    rows = []
    for one in ranked:
        note = "best" if one is best else ""
        if one.failed:
            note = f"{one.failed} failed"
        rows.append(
            (
                *(format_value(one.values[name]) for name in names),
                note,
                f"{one.finished} of {one.runs}",
                _number(one.score, "{:.2%}"),
                _number(one.score_sd, "{:.2f}", 100),
                _number(one.loss, "{:.4f}"),
                _number(one.loss_sd, "{:.4f}"),
                _number(one.minutes, "{:.1f}"),
            )
        )
    seeds = "seeds" if SEED in found.varied else "runs"
    columns = (
        *names,
        "",
        seeds,
        f"validation {TITLES[found.metric]}",
        "sd (points)",
        "validation loss",
        "sd",
        "minutes",
    )
    caption = f"Means over finished runs of the kept epoch, on validation examples ({found.validation})."
    return Table(columns, rows, caption, len(names) + 1)


def _number(value: float | None, pattern: str, factor: float = 1) -> str:
    return _NONE if value is None else pattern.format(factor * value)


def cautions(found: Sweep) -> list[str]:
    """Says in sentences how far the table is to be trusted."""
    settings = settings_of(found.results)
    best = best_of(settings)
    texts = ["The test split was not looked at: a sweep chooses, and what has chosen no longer tests."]
    if left := sum(result.status not in (FINISHED, FAILED) for result in found.results):
        texts.append(f"Runs are missing: {left} of {len(found.results)} are not finished yet.")
    if best is None:
        return texts
    others = [one for one in settings if one.finished and not one.failed and one is not best]
    if best.finished < 2:
        texts.append(
            "One seed a setting cannot tell a better setting from luck: sweep `seed=1,2,3` over the best ones."
        )
    elif others:
        second = max(others, key=lambda one: (one.score, -one.loss))
        gap = 100 * (best.score - second.score)
        deviations = [one.score_sd for one in (best, second) if one.score_sd is not None]
        spread = 100 * (sum(value**2 for value in deviations) / len(deviations)) ** 0.5
        texts.append(
            f"The second best setting is {gap:.2f} points behind; seeds differ by a standard deviation of "
            f"{spread:.2f} points. The best of many means looks better than it is."
        )
    return texts


def write(found: Sweep, output: OutputFolder) -> None:
    """Writes all files of a sweep into its folder, `sweep.json` last.

    Raises:
        StorageError: if they cannot be written.
    """
    tensorboard.write(found, output)
    settings = settings_of(found.results)
    best = best_of(settings)
    figure = sweep_figure.figure_png(found.results, best.values if best else None, TITLES[found.metric])
    output.write(
        {
            FIGURE_NAME: figure,
            CSV_NAME: _csv(found, settings, best).encode("utf-8"),
            TABLE_NAME: _markdown(found).encode("utf-8"),
            JSON_NAME: files.json_bytes(to_json(found)),
        }
    )


def to_json(found: Sweep) -> dict[str, Any]:
    """Returns a sweep as plain dictionaries, lists and numbers."""
    settings = settings_of(found.results)
    best = best_of(settings)
    return {
        "schema": SCHEMA,
        "metric": f"{TITLES[found.metric]} of the kept epoch on validation examples; the test split is never asked",
        "validation": found.validation,
        "varied": list(found.varied),
        "best": dict(best.values) if best else None,
        "settings": [dataclasses.asdict(one) for one in settings],
        "runs": [dataclasses.asdict(one) for one in found.results],
        "data_fingerprint": found.data_fingerprint,
        "base": dict(found.base),
    }


def _csv(found: Sweep, settings: Sequence[SweepPoint], best: SweepPoint | None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [name for name in found.varied if name != SEED]
    numbers = ("runs", "finished", "failed", "score", "score_sd", "loss", "loss_sd", "minutes")
    titles = [name.replace("score", found.metric) for name in numbers]
    head = [f"validation_{name}" if name.startswith((found.metric, "loss")) else name for name in titles]
    writer.writerow([*names, *head, "best"])
    for one in settings:
        values = [format_value(one.values[name]) for name in names]
        writer.writerow([*values, *(getattr(one, name) for name in numbers), str(one is best).lower()])
    return text.getvalue()


def _markdown(found: Sweep) -> str:
    shown = table(found)
    aligned = [":--" if place < shown.text_columns else "--:" for place in range(len(shown.columns))]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (shown.columns, aligned, *shown.rows)]
    parts = [
        f"# Sweep over {', '.join(found.varied)}",
        shown.caption,
        "\n".join(f"| {' | '.join(row)} |" for row in cells),
        "sd: standard deviation over the seeds (n - 1); - where there are fewer than two.",
        *cautions(found),
    ]
    if failures := [one for one in found.results if one.status == FAILED]:
        parts.append("\n".join(f"* `{one.name}` failed: {one.problem}" for one in failures))
    return "\n\n".join(parts) + "\n"
