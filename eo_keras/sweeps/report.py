"""Results of a sweep as files: JSON and CSV, a table to read, a figure, and TensorBoard's table of hyperparameters.

Runs are compared by the score of the kept epoch on validation examples: the task's monitor, such as accuracy or mIoU.
The test split is never evaluated: a split that settings were selected on gives no unbiased score.
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
from eo_keras.sweeps.state import FAILED, FINISHED, JSON_NAME, SCHEMA, RunStatus, Sweep

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
    """Groups the runs by their settings, in the order of the runs."""
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

    A setting of which a run failed is left out: the mean over the other runs would be biased. None
    where no other setting has a finished run.
    """
    eligible = [one for one in settings if one.finished and not one.failed]
    return max(eligible, key=lambda one: (one.score, -one.loss), default=None)


def table(sweep: Sweep) -> Table:
    """Returns the settings as a table, the best first and those without a finished run last."""
    settings = settings_of(sweep.results)
    best = best_of(settings)
    names = [name for name in sweep.varied if name != SEED]
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
    seeds = "seeds" if SEED in sweep.varied else "runs"
    columns = (
        *names,
        "",
        seeds,
        f"validation {sweep.monitor.title}",
        "sd (points)",
        "validation loss",
        "sd",
        "minutes",
    )
    caption = f"Means over finished runs of the kept epoch, on validation examples ({sweep.validation})."
    return Table(columns, rows, caption, len(names) + 1)


def _number(value: float | None, pattern: str, factor: float = 1) -> str:
    return _NONE if value is None else pattern.format(factor * value)


def cautions(sweep: Sweep) -> list[str]:
    """Returns sentences on how far the table can be trusted."""
    settings = settings_of(sweep.results)
    best = best_of(settings)
    texts = ["The test split was not evaluated: scores of a split that settings are selected on are biased."]
    if left := sum(result.status not in (FINISHED, FAILED) for result in sweep.results):
        texts.append(f"Runs are missing: {left} of {len(sweep.results)} are not finished yet.")
    if best is None:
        return texts
    others = [one for one in settings if one.finished and not one.failed and one is not best]
    if best.finished < 2:
        texts.append("With one seed a setting, differences may be chance: sweep `seed=1,2,3` over the best ones.")
    elif others:
        second = max(others, key=lambda one: (one.score, -one.loss))
        gap = 100 * (best.score - second.score)
        deviations = [one.score_sd for one in (best, second) if one.score_sd is not None]
        spread = 100 * (sum(value**2 for value in deviations) / len(deviations)) ** 0.5
        texts.append(
            f"The second best setting is {gap:.2f} points lower; seeds differ by a standard deviation of "
            f"{spread:.2f} points. The best of many means is biased upwards."
        )
    return texts


def write(sweep: Sweep, output: OutputFolder) -> None:
    """Writes all files of a sweep into its folder, `sweep.json` last.

    Raises:
        StorageError: if they cannot be written.
    """
    tensorboard.write(sweep, output)
    settings = settings_of(sweep.results)
    best = best_of(settings)
    figure = sweep_figure.figure_png(sweep.results, best.values if best else None, sweep.monitor.title)
    output.write(
        {
            FIGURE_NAME: figure,
            CSV_NAME: _csv(sweep, settings, best).encode("utf-8"),
            TABLE_NAME: _markdown(sweep).encode("utf-8"),
            JSON_NAME: files.json_bytes(to_json(sweep)),
        }
    )


def to_json(sweep: Sweep) -> dict[str, Any]:
    """Returns a sweep as plain dictionaries, lists and numbers."""
    settings = settings_of(sweep.results)
    best = best_of(settings)
    return {
        "schema": SCHEMA,
        "metric": f"{sweep.monitor.title} of the kept epoch on validation examples; the test split is never evaluated",
        "validation": sweep.validation,
        "varied": list(sweep.varied),
        "best": dict(best.values) if best else None,
        "settings": [dataclasses.asdict(one) for one in settings],
        "runs": [dataclasses.asdict(one) for one in sweep.results],
        "data_fingerprint": sweep.data_fingerprint,
        "base": dict(sweep.base),
    }


def _csv(sweep: Sweep, settings: Sequence[SweepPoint], best: SweepPoint | None) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [name for name in sweep.varied if name != SEED]
    numbers = ("runs", "finished", "failed", "score", "score_sd", "loss", "loss_sd", "minutes")
    titles = [name.replace("score", sweep.metric) for name in numbers]
    head = [f"validation_{name}" if name.startswith((sweep.metric, "loss")) else name for name in titles]
    writer.writerow([*names, *head, "best"])
    for one in settings:
        values = [format_value(one.values[name]) for name in names]
        writer.writerow([*values, *(getattr(one, name) for name in numbers), str(one is best).lower()])
    return text.getvalue()


def _markdown(sweep: Sweep) -> str:
    shown = table(sweep)
    aligned = [":--" if place < shown.text_columns else "--:" for place in range(len(shown.columns))]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (shown.columns, aligned, *shown.rows)]
    parts = [
        f"# Sweep over {', '.join(sweep.varied)}",
        shown.caption,
        "\n".join(f"| {' | '.join(row)} |" for row in cells),
        "sd: standard deviation over the seeds (n - 1); - where there are fewer than two.",
        *cautions(sweep),
    ]
    if failures := [one for one in sweep.results if one.status == FAILED]:
        parts.append("\n".join(f"* `{one.name}` failed: {one.problem}" for one in failures))
    return "\n\n".join(parts) + "\n"
