"""Scores of a campaign over its seeds, folds and tiles, as results.json holds them.

Every evaluation keeps counts of each tile, which add up: over the tiles of all folds, and of one tile over the seeds.
Patches are tiles of one pixel.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import platform
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.campaign_plan import SPLIT, Plan, PlannedRun, sides
from eo_keras.core import files
from eo_keras.errors import RunError
from eo_keras.evaluation import report
from eo_keras.evaluation.report import StoredEvaluation
from eo_keras.geo.coordinates import corners_from_centres
from eo_keras.metrics import by_location, estimate, segmentation
from eo_keras.metrics.comparison import holm
from eo_keras.metrics.estimate import FEWEST, RESAMPLES, SEED, Estimate
from eo_keras.metrics.outcomes import Paired, PlaceOutcomes
from eo_keras.metrics.scores import Scores
from eo_keras.records import data_card as cards
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from tfrecords_builder.splits import spatial

SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Group:
    """The runs of a row with one seed: one, or one a fold.

    Attributes:
        runs: the runs.
        stored: their evaluations by name.
        outcomes: by name of the evaluation, the counts of all of their test tiles.
    """

    runs: Sequence[PlannedRun]
    stored: Mapping[str, Sequence[StoredEvaluation]]
    outcomes: Mapping[str, PlaceOutcomes]

    def value(self, evaluation: str, score: str) -> float | None:
        """Returns a score over all test tiles; where counts do not give it, that of the only evaluation."""
        stored = self.stored[evaluation]
        counted = self.outcomes[evaluation].estimates()
        if score in counted:
            return counted[score] and counted[score].value
        found = of_name(stored[0].scores, score)
        return found.value if found and len(stored) == 1 else None


def of_name(scores: Scores, name: str) -> Estimate | None:
    """Returns a score, such as `miou`, or `iou:Flooded` of a class.

    Raises:
        RunError: if the evaluation has none of that name.
    """
    score, _, of_class = name.partition(":")
    found = scores.by_class.get(of_class, {}) if of_class else scores.overall
    if score not in found:
        has = ", ".join([*scores.overall, *(f"{score}:{one}" for one in scores.class_names)])
        raise RunError("scores", f"the evaluations have no score {name}", f"one of {has}")
    return found[score]


def of_counts(names: Sequence[str], class_names: Sequence[str]) -> Callable[..., dict[str, np.ndarray]]:
    """Returns a function of sums (..., R, C) and rows that gives those scores (...) of some names that counts give."""

    def compared(sums: np.ndarray, rows: Sequence[str]) -> dict[str, np.ndarray]:
        by_class, overall = segmentation.scores_of(sums, rows)
        found = {}
        for name in names:
            score, _, of_class = name.partition(":")
            if of_class and score in by_class:
                found[name] = by_class[score][..., class_names.index(of_class)]
            elif not of_class and score in overall:
                found[name] = overall[score]
        return found

    return compared


def block_names(records_dir: str, keys: Sequence[str], block_km: float) -> dict[str, str]:
    """Returns the block of land, by key, of patches of a split test: those that a split in blocks deals out.

    Raises:
        RunError: if the place of one is not known.
    """
    card = cards.read_data_card(records_dir)
    found = by_location.read_locations(records_dir, card, SPLIT, keys)
    if found is None or not found.known.all():
        raise RunError(records_dir, "not all patches have a place", "georeferenced patches, for `block_km` of a plan")
    corners = corners_from_centres(found.degrees, card.resolution_m * card.patch_size)
    return dict(zip(keys, spatial.block_names(corners, block_km), strict=True))


def counts_of(
    stored: StoredEvaluation,
    names: Sequence[str],
    places: str,
    resamples: int,
    blocks: Callable[[Sequence[str]], Mapping[str, str]] | None = None,
) -> PlaceOutcomes:
    """Returns the counts of each tile or patch of an evaluation.

    Args:
        stored: the evaluation.
        names: the scores that are compared.
        places: see `Plan.places`.
        resamples: number of resamples.
        blocks: gives the block of land of each of some keys; those of one block are drawn together.
    """
    scores, predictions = stored.scores, stored.predictions
    compared = of_counts(names, scores.class_names)
    if scores.task == "segmentation":
        outcomes = PlaceOutcomes.of(predictions.scorer, predictions.places, resamples=resamples)
    else:
        known = np.eye(len(scores.class_names), dtype=np.int64)
        true, predicted = known[predictions.labels], known[predictions.predictions]
        sums = np.stack([true * predicted, true, predicted], axis=1)
        outcomes = PlaceOutcomes(tuple(predictions.keys), sums, segmentation.AREAS, resamples=resamples)
    if places:
        found = {key: re.search(places, key) for key in outcomes.keys}
        if lacking := [key for key, match in found.items() if match is None]:
            raise RunError(stored.folder, f"no place is found in the key {lacking[0]}", f"keys that match {places}")
        outcomes = dataclasses.replace(outcomes, places={key: match[0] for key, match in found.items()})
    if blocks is not None:
        outcomes = dataclasses.replace(outcomes, places=blocks(outcomes.keys))
    return dataclasses.replace(outcomes, compared=compared)


def joined(parts: Sequence[PlaceOutcomes], *, apart: bool = False) -> PlaceOutcomes:
    """Returns the sums of the counts of each tile, by key.

    Args:
        parts: counts of tiles, some of them perhaps the same.
        apart: whether no tile may be in two of them.

    Raises:
        RunError: if the evaluations counted other things, or a tile is in two that must lie apart.
    """
    first = parts[0]
    if any(one.rows != first.rows for one in parts):
        raise RunError("evaluations", "they scored other boundaries or objects", "evaluations with the same flags")
    keys, number = np.unique([key for one in parts for key in one.keys], return_inverse=True)
    if apart and len(keys) < len(number):
        twice = keys[np.bincount(number) > 1]
        raise RunError("folds", f"{len(twice):,} {first.unit} are tested in two, first {twice[0]}", "each in one")
    sums = np.zeros((len(keys), *first.sums.shape[1:]), np.int64)
    np.add.at(sums, number, np.concatenate([one.sums for one in parts]))
    places = None
    if all(one.places is not None for one in parts):
        places = {key: place for one in parts for key, place in one.places.items()}
    return dataclasses.replace(first, keys=tuple(keys.tolist()), sums=sums, places=places)


def over_seeds(values: Sequence[float], drawn: Sequence[np.ndarray]) -> tuple[float, np.ndarray]:
    """Returns the mean over S seeds and its resamples, which draw tiles and seeds.

    A resample draws S - 1 seeds with replacement, for the variance of the mean of S would be too small by the share 1/S
    (Rao & Wu 1988, Journal of the American Statistical Association 83(401)).

    Args:
        values: the score of each seed.
        drawn: (resamples,) of each seed, the score of each draw of tiles.
    """
    seeds, draws = len(values), np.stack(drawn)
    picks = np.random.default_rng(SEED + 1).integers(0, seeds, (draws.shape[1], max(1, seeds - 1)))
    return statistics.fmean(values), draws[picks, np.arange(draws.shape[1])[:, np.newaxis]].mean(axis=1)


def group_runs(plan: Plan, members: Sequence[PlannedRun], resamples: int = RESAMPLES) -> Group:
    """Reads the evaluations of the runs of a row with one seed.

    Raises:
        RunError: if an evaluation cannot be read, is of another model or other records, or lacks a score.
    """
    stored: dict[str, list[StoredEvaluation]] = {}
    for run in members:
        for name, folder in run.evaluations().items():
            one = report.read_evaluation(folder)
            _check_of_run(one, run)
            for score in plan.scores:
                of_name(one.scores, score)
            stored.setdefault(name, []).append(one)
    names = list(dict.fromkeys([*plan.scores, *(score for pair in plan.compare for score in pair.scores)]))

    def counts(one: StoredEvaluation, run: PlannedRun) -> PlaceOutcomes:
        blocks = None
        if plan.block_km:
            blocks = functools.partial(block_names, run.training.options.records_dir, block_km=plan.block_km)
        return counts_of(one, names, plan.places, resamples, blocks)

    outcomes = {
        name: joined([counts(one, run) for one, run in zip(all_folds, members, strict=True)], apart=True)
        for name, all_folds in stored.items()
    }
    return Group(members, stored, outcomes)


def _check_of_run(stored: StoredEvaluation, run: PlannedRun) -> None:
    model = runs.model_path(run.folder, stored.metrics.get("model_file", runs.MODEL_NAME))
    expected = {"split": SPLIT, "data_fingerprint": run.data_fingerprint}
    if model.is_file():
        expected["model_sha256"] = files.sha256_of_file(model)
    for name, value in expected.items():
        if stored.metrics.get(name) != value:
            found = f"its {name} is {stored.metrics.get(name)}"
            raise RunError(stored.folder, found, f"{value}, of the run", "evaluate the run again with `force`")


def results(
    plan: Plan,
    found: Mapping[tuple[str, int], Sequence[PlannedRun]],
    resamples: int = RESAMPLES,
    made_elsewhere: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Returns the content of results.json.

    Args:
        plan: the plan.
        found: the evaluated runs by row and seed.
        resamples: number of resamples, and of permutations.
        made_elsewhere: rows of an earlier results.json, of runs that are not here.

    Raises:
        RunError: if evaluations do not fit each other or the plan.
    """
    groups = {key: group_runs(plan, members, resamples) for key, members in found.items()}
    kept = {row["name"]: row for row in made_elsewhere}
    known = {*groups, *((name, seed) for name, row in kept.items() for seed in row["seeds"])}
    rows = []
    for row in (row for row in plan.rows if row.scored):
        seeds = [seed for seed in plan.seeds if (row.name, seed) in groups]
        if row.name in kept:
            rows.append({**kept[row.name], "title": row.title})
        elif seeds:
            rows.append(_row(plan, row.name, {seed: groups[row.name, seed] for seed in seeds}))
    described = [one["environment"] for row in rows for one in row["runs"]]
    here = {"processors": os.cpu_count(), "platform": platform.platform()}
    return {
        "schema": SCHEMA,
        "unit": plan.unit,
        "resamples": resamples,
        "method": _method(plan, resamples),
        "machine": harness.machine() if all(one.items() >= here.items() for one in described) else None,
        "open": [
            f"{row.name}-{seed}"
            for seed in plan.seeds
            for row in plan.rows_of(seed)
            if row.scored and (row.name, seed) not in known
        ],
        "rows": rows,
        "comparisons": _comparisons(plan, groups),
    }


def _method(plan: Plan, resamples: int) -> str:
    return (
        "A score of a row is the mean over its seeds, ± the standard deviation over them; in brackets its 95 % "
        f"interval, of a bootstrap that draws {plan.unit} and seeds, {resamples:,} times; few seeds tell little of "
        "others. A comparison adds up the counts of each tile over the seeds of both rows; its 95 % interval is of a "
        f"paired bootstrap that draws {plan.unit} alone, and p of a permutation test that swaps the two rows' "
        f"predictions of one of the {plan.unit} for all seeds at once: they say how sure a difference of these trained "
        "networks is. The interval over seeds too is of the difference of the means. p (Holm) is corrected for all "
        "pairs of a score."
    )


def _row(plan: Plan, name: str, groups: Mapping[int, Group]) -> dict[str, Any]:
    (row,) = (one for one in plan.rows if one.name == name)
    members = [(seed, run, place) for seed, group in groups.items() for place, run in enumerate(group.runs)]
    listed = [_run(plan, seed, run, groups[seed], place) for seed, run, place in members]
    names = [one for one in groups[next(iter(groups))].stored if all(one in group.stored for group in groups.values())]
    return {
        "name": name,
        "title": row.title,
        "flags": dict(row.flags),
        "seeds": list(groups),
        "parameters": listed[0]["parameters"],
        "hours": statistics.fmean(one["seconds"] for one in listed) / 3600,
        "images_per_second": statistics.median(one["images_per_second"] for one in listed),
        "evaluations": {one: {score: _score(groups, one, score) for score in plan.scores} for one in names},
        "runs": listed,
    }


def _run(plan: Plan, seed: int, run: PlannedRun, group: Group, place: int) -> dict[str, Any]:
    card, history = model_cards.read_model_card(run.folder), runs.read_history(run.folder)
    environment = json.loads((run.folder / runs.ENVIRONMENT_NAME).read_text(encoding="utf-8"))
    evaluations = {}
    for name, stored in group.stored.items():
        scores = {score: of_name(stored[place].scores, score) for score in plan.scores}
        evaluations[name] = {score: one and one.to_json() for score, one in scores.items()}
    return {
        "name": run.name,
        "seed": seed,
        **({"fold": run.fold} if run.fold else {}),
        "parameters": card.parameters,
        "initialisation": card.initialisation,
        "epochs": len(history),
        "epoch": card.selection["epoch"],
        "seconds": sum(one["seconds"] for one in history),
        "images_per_second": statistics.median(one["images_per_second"] for one in history),
        "data_fingerprint": card.data_fingerprint,
        "model_sha256": group.stored[SPLIT][place].metrics["model_sha256"],
        **_calibration(group.stored[SPLIT][place].scores),
        "environment": {name: environment[name] for name in ("processors", "platform", "versions")},
        "evaluations": evaluations,
    }


def _calibration(scores: Scores) -> dict[str, Any]:
    """Returns the expected calibration error before and after a temperature was fitted, where one was."""
    found = scores.sections.get("calibration") or {}
    if found.get("temperature") is None:
        return {}
    before, after = (found["split"][when]["expected_calibration_error"] for when in ("before", "after"))
    return {"calibration": {"temperature": found["temperature"], "before": before, "after": after}}


def _score(groups: Mapping[int, Group], evaluation: str, score: str) -> dict[str, Any] | None:
    """Returns mean, deviation, interval and values of a score over the seeds; None where one has none."""
    values = [group.value(evaluation, score) for group in groups.values()]
    if any(value is None for value in values):
        return None
    found: dict[str, Any] = {"mean": statistics.fmean(values), "values": values}
    if len(values) > 1:
        found["deviation"] = statistics.stdev(values)
    outcomes = [group.outcomes[evaluation] for group in groups.values()]
    if score in outcomes[0].drawn:
        mean, drawn = over_seeds(values, [one.drawn[score] for one in outcomes])
        interval = estimate.of_resamples(mean, drawn, min(one.count for one in outcomes))
        found |= {"low": interval.low, "high": interval.high, "method": interval.method}
    return found


def _comparisons(plan: Plan, groups: Mapping[tuple[str, int], Group]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for pair in plan.compare:
        first, second = sides(pair.first), sides(pair.second)
        seeds = [seed for seed in plan.seeds if (first[0], seed) in groups and (second[0], seed) in groups]
        if not seeds:
            continue
        both = [[_outcomes(groups[row, seed], evaluation) for seed in seeds] for row, evaluation in (first, second)]
        single = [_paired(one, other, pair.first, pair.second) for one, other in zip(*both, strict=True)]
        pooled = _paired(joined(both[0]), joined(both[1]), pair.first, pair.second)
        for score in pair.scores:
            if any(score not in one for one in (pooled, *single)):
                raise RunError(f"{pair.first} and {pair.second}", f"{score} cannot be compared", "a score of counts")
            values = [one[score].difference.value for one in single]
            mean, drawn = over_seeds(
                values, [one.drawn[score] - other.drawn[score] for one, other in zip(*both, strict=True)]
            )
            ends = estimate.percentiles(drawn) if min(one.count for one in both[0]) >= FEWEST else None
            found.append(
                {
                    "first": pair.first,
                    "second": pair.second,
                    "score": score,
                    "pooled": _difference(pooled[score]),
                    "over_seeds": {"difference": mean, **({"low": ends[0], "high": ends[1]} if ends else {})},
                    "seeds": [
                        {"seed": seed, **_difference(one[score])} for seed, one in zip(seeds, single, strict=True)
                    ],
                }
            )
    for score in {one["score"] for one in found}:
        alike = [one["pooled"] for one in found if one["score"] == score]
        for one, p_holm in zip(alike, holm([one["p_value"] for one in alike]), strict=True):
            one["p_holm"] = p_holm
    return found


def _outcomes(group: Group, evaluation: str) -> PlaceOutcomes:
    if evaluation not in group.outcomes:
        has = ", ".join(group.outcomes)
        raise RunError(group.runs[0].name, f"it has no evaluation {evaluation}", f"one of {has}", "correct the plan")
    return group.outcomes[evaluation]


def _paired(first: PlaceOutcomes, second: PlaceOutcomes, name: str, other: str) -> dict[str, Paired]:
    """Compares two rows as launch.evaluate compares two runs.

    Raises:
        RunError: if they were evaluated on other tiles, or other masks of these.
    """
    if first.keys != second.keys or (first.truth != second.truth).any():
        raise RunError(name, f"it was evaluated on other {first.unit} or masks than {other}", "the same test split")
    return first.paired(second, first.estimates(), second.estimates())


def _difference(one: Paired) -> dict[str, Any]:
    found = one.difference
    ends = {"low": found.low, "high": found.high, "method": found.method}
    return {"difference": found.value, **ends, "p_value": one.p_value}
