"""Plan of a campaign: which trainings, evaluations and comparisons, as its plan.json and flags.txt say.

docs/results/campaigns/NAME/
  plan.json      see `Plan`
  flags.txt      flags of launch.train that all runs have in common
  results.json   written by benchmarks.campaign
  curve.png      likewise, of a plan that says `curve`
  threshold.json, maps.png   shown on the page where they are there
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from eo_keras.errors import EOKerasError, RunError
from eo_keras.evaluation.options import EvaluationOptions
from eo_keras.metrics.metric import metric_of
from eo_keras.records import data_card as cards
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.sweeps import grid
from eo_keras.training.options import TrainingOptions, check_resumable
from eo_keras.training.validate import validate
from launch import app, evaluate, flag_files, options, sweep

PLAN_NAME, FLAGS_NAME, RESULTS_NAME, CURVE_NAME = "plan.json", "flags.txt", "results.json", "curve.png"
SPLIT = "test"
EACH_REMOVED = "--each_removed"

EVALUATED, TRAINED, INTERRUPTED, WAITING = "evaluated", "trained", "interrupted", "waiting"
"""States of a run."""

_NAME = re.compile(r"[A-Za-z0-9_.]+")


class PlanError(EOKerasError):
    """A plan that cannot be read, or that says what cannot be done."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a campaign's table: trainings that differ in the seed alone.

    Attributes:
        name: beginning of the names of its run folders: letters, digits, `_` and `.`.
        title: its name on the page.
        flags: values by name of the flags of launch.train that differ from the common ones; None for leaving one out.
        evaluations: flags of evaluations beside the plain one, such as `--each_removed` or `--tta=d4`. In these and in
            texts of `flags`, `{seed}`, `{fold}` and `{runs_dir}` are replaced: runs may use those of earlier rows.
        scored: whether it is evaluated; a network that others start from is not.
        records_dir: its records folder where that is not the plan's.
        seeds: its seeds where it has not all of the plan's.
        flagfile: name of the file in the plan's folder that holds its common flags.
        best_known: what others have reached, and who.
        reach: value that the first score of the plan should reach.
        goal: a higher one that is hoped for.
        earlier: names of runs in docs/results that were made before the plan, of other seeds; they count to its mean.
    """

    name: str
    title: str
    flags: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evaluations: Sequence[str] = ()
    scored: bool = True
    records_dir: str = ""
    seeds: Sequence[int] = ()
    flagfile: str = FLAGS_NAME
    best_known: str = ""
    reach: float | None = None
    goal: float | None = None
    earlier: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two rows that are compared on the same tiles.

    Attributes:
        first: name of the one row, or `ROW/EVALUATION` such as `late/test-without-s2`.
        second: likewise of the other; its scores are subtracted.
        scores: names of the scores.
    """

    first: str
    second: str
    scores: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Content of a plan.json.

    Attributes:
        folder: the plan's folder.
        title: heading on the page.
        text: what the campaign is about.
        build: shell commands that make the records.
        records_dir: records folder; `{fold}` and `{seed}` are replaced.
        seeds: seeds of the trainings.
        rows: the rows.
        scores: names of the scores on the page, such as `miou`, or `iou:Flooded` of a class.
        compare: the pairs.
        folds: number of folds of a cross-validation, whose test tiles are scored together; 0 for one test split.
        unit: what the bootstrap draws.
        places: regular expression that finds, in the key of a tile, the name of what it shows; tiles of equal names are
            drawn together. Empty: what the evaluation says, which is the ground where that is known, else each tile.
        block_km: patches in one block of land of this edge are drawn together, in kilometers; 0 for each by itself.
        curve: name of the flag over whose values the first score is drawn; rows that differ in it alone are one line,
            called by the part of their titles before the last comma.
    """

    folder: pathlib.Path
    title: str
    text: str
    build: Sequence[str]
    records_dir: str
    seeds: Sequence[int]
    rows: Sequence[Row]
    scores: Sequence[str]
    compare: Sequence[Pair] = ()
    folds: int = 0
    unit: str = "tiles"
    places: str = ""
    block_km: float = 0.0
    curve: str = ""

    def rows_of(self, seed: int) -> list[Row]:
        """Returns the rows that have runs of a seed."""
        return [row for row in self.rows if seed in (row.seeds or self.seeds)]

    @property
    def name(self) -> str:
        """Name of the campaign."""
        return self.folder.name


def read_plan(folder: str | os.PathLike[str]) -> Plan:
    """Reads a plan.

    Raises:
        PlanError: if it cannot be read or contradicts itself.
    """
    path = pathlib.Path(folder) / PLAN_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**row) for row in content.pop("rows")]
        pairs = [Pair(**pair) for pair in content.pop("compare", ())]
        plan = Plan(folder=pathlib.Path(folder), rows=rows, compare=pairs, **content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError(path, f"it cannot be read ({type(error).__name__}: {error})", "a plan of a campaign") from None
    _check(plan, path)
    return plan


def _check(plan: Plan, path: pathlib.Path) -> None:
    names = [row.name for row in plan.rows]
    for what, values in (("row", names), ("seed", list(plan.seeds))):
        if not values or len(set(values)) < len(values):
            raise PlanError(path, f"the {what}s {', '.join(map(str, values)) or 'are none'}", f"each {what} once")
    if plan.curve and (lacking := [row.name for row in plan.rows if row.scored and plan.curve not in row.flags]):
        raise PlanError(path, f"the row '{lacking[0]}' has no {plan.curve}", "a value of `curve` in every row")
    if bad := [name for name in names if not _NAME.fullmatch(name)]:
        raise PlanError(path, f"the row '{bad[0]}'", "letters, digits, '_' and '.'")
    if bad := [side for pair in plan.compare for side in (pair.first, pair.second) if sides(side)[0] not in names]:
        raise PlanError(path, f"it compares the row '{bad[0]}'", f"one of {', '.join(names)}")
    for name in [*plan.scores, *(name for pair in plan.compare for name in pair.scores)]:
        try:
            metric_of(name.partition(":")[0])
        except KeyError:
            raise PlanError(path, f"the score '{name}'", "a score of launch.evaluate, such as miou") from None


def sides(text: str) -> tuple[str, str]:
    """Returns row and evaluation of one side of a pair."""
    row, _, evaluation = text.partition("/")
    return row, evaluation or SPLIT


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One training of a campaign.

    Attributes:
        row: its row.
        seed: its seed.
        fold: its fold, counted from 1, or None.
        training: its options and flags.
        more_evaluations: flags of evaluations beside the plain one.
        data_fingerprint: of the records' card.
    """

    row: Row
    seed: int
    fold: int | None
    training: grid.PlannedRun
    more_evaluations: Sequence[str]
    data_fingerprint: str

    @property
    def folder(self) -> pathlib.Path:
        """The run folder."""
        return pathlib.Path(self.training.options.run_dir)

    @property
    def name(self) -> str:
        """Name of the run folder, such as `late-1` or `late-1-fold2`."""
        return self.folder.name

    def state(self) -> str:
        """Returns `EVALUATED`, `TRAINED`, `INTERRUPTED` or `WAITING`.

        Raises:
            RunError: if the folder holds a run with other flags or on other records, or what is no run.
        """
        if runs.has_checkpoint(self.folder):
            kept = runs.read_state(self.folder)
            self._check(kept)
            best, epoch = kept["best"], runs.epoch_of_card(self.folder)
            # The card is written after the state: a run that was killed between the two is resumed.
            ended = kept["epoch"] >= self.training.options.epochs and best and epoch == best["epoch"]
        elif (self.folder / model_cards.MODEL_CARD_NAME).is_file():
            card = model_cards.read_model_card(self.folder)
            self._check({"options": card.flags, "data_fingerprint": card.data_fingerprint})
            ended = len(runs.read_history(self.folder)) == self.training.options.epochs
            if not ended:
                raise RunError(self.folder, "it was not trained to its end, and has no checkpoint to resume from")
        else:
            runs.check_folder(self.folder, resume=False, overwrite=False)
            return WAITING
        if not ended:
            return INTERRUPTED
        open_ones = [folder for folder in self.evaluations().values() if not (folder / "metrics.json").is_file()]
        return TRAINED if open_ones else EVALUATED

    def _check(self, kept: Mapping[str, Any]) -> None:
        try:
            check_resumable(self.training.options, kept, self.data_fingerprint)
        except RunError as error:
            where, found, _, _ = error.args
            remedy = "move the folder away, and it is trained again, or correct the plan"
            raise RunError(where, found, "what the plan says", remedy) from None

    def evaluations(self) -> dict[str, pathlib.Path]:
        """Returns the folders of all evaluations of a trained run, by name."""
        if not self.row.scored:
            return {}
        names = [SPLIT]
        for text in self.more_evaluations:
            words = shlex.split(text)
            each_removed = EACH_REMOVED in words
            chosen = _evaluation_options([word for word in words if word != EACH_REMOVED])
            variants = [chosen]
            if each_removed:
                sensors = model_cards.read_model_card(self.folder).sensor_names
                variants = [dataclasses.replace(chosen, without=(name,)) for name in sensors]
            names += [one.name for one in variants]
        return {name: self.folder / runs.EVALUATION_DIR / name for name in dict.fromkeys(names)}

    def evaluation_commands(self) -> Iterator[list[str]]:
        """Yields the modules and flags that make the evaluations of a trained run."""
        if not self.row.scored:
            return
        common = ["launch.evaluate", f"--run_dir={self.folder}", f"--split={SPLIT}"]
        if model_cards.read_model_card(self.folder).selection["split"] is None:
            common.append("--nocalibrate")
        for text in ("", *self.more_evaluations):
            yield [*common, *shlex.split(text)]


def _evaluation_options(words: Sequence[str]) -> EvaluationOptions:
    values = flags.FlagValues()
    evaluate.define_flags(values)
    app.define_flags(values)
    try:
        flag_files.parse(values, ["launch.evaluate", f"--split={SPLIT}", *words], named_by="evaluations")
    except flags.Error as error:
        raise PlanError(f"evaluations {' '.join(words)}", f"{error}", "flags of launch.evaluate") from None
    return options.read(EvaluationOptions, values)


def planned_runs(plan: Plan, runs_dir: str, records_dir: str | None = None) -> list[PlannedRun]:
    """Returns all runs of a plan, checked as launch.train would: seed by seed, so that every row has one first.

    Args:
        plan: the plan.
        runs_dir: folder of the run folders.
        records_dir: records folder instead of the plan's; rows that name their own keep it.

    Raises:
        EOKerasError: if the records are missing, or training would refuse a run, which is named.
    """
    found, known = [], {}
    for seed in plan.seeds:
        for row in plan.rows_of(seed):
            for fold in range(1, plan.folds + 1) if plan.folds else [None]:
                name = f"{row.name}-{seed}" + (f"-fold{fold}" if fold else "")
                words = {"seed": seed, "fold": fold, "runs_dir": runs_dir}
                folder = _filled(row.records_dir or records_dir or plan.records_dir, words)
                if folder not in known:
                    known[folder] = _card(plan, folder)
                varied = {key: _filled(value, words) for key, value in row.flags.items()} | {"seed": seed}
                try:
                    values = sweep.training_flags(str(plan.folder / row.flagfile), folder, varied)
                    values.run_dir, values.resume, values.overwrite = os.path.join(runs_dir, name), False, False
                    chosen = validate(options.read(TrainingOptions, values), known[folder])
                except EOKerasError as error:
                    raise grid.named(name, error) from None
                training = grid.PlannedRun(varied, chosen, app.flags_text(values))
                more = [_filled(text, words) for text in row.evaluations]
                found.append(PlannedRun(row, seed, fold, training, more, known[folder].fingerprint))
    return found


def _card(plan: Plan, folder: str) -> cards.DataCard:
    if not (pathlib.Path(folder) / cards.DATA_CARD_NAME).is_file():
        raise PlanError(folder, "there are no records", "a folder made by launch.build", f"run {'; '.join(plan.build)}")
    return cards.read_data_card(folder)


def _filled(value: Any, words: Mapping[str, Any]) -> Any:
    """Returns a value with the names in braces replaced."""
    if isinstance(value, str):
        for name, word in words.items():
            value = value.replace(f"{{{name}}}", str(word))
    return value


def complete(found: Sequence[PlannedRun]) -> dict[tuple[str, int], list[PlannedRun]]:
    """Returns the evaluated runs by row and seed, those of which all folds are evaluated."""
    groups: dict[tuple[str, int], list[PlannedRun]] = collections.defaultdict(list)
    for run in found:
        groups[run.row.name, run.seed].append(run)
    return {
        key: group
        for key, group in groups.items()
        if group[0].row.scored and all(run.state() == EVALUATED for run in group)
    }
