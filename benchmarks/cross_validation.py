r"""Cross-validates a recipe by place: each patch is classified by a network that saw neither it nor its surroundings.

Meant for sets too small for one split. Blocks of land are dealt out to folds; for each fold the records are built, and
for each choice of bands a network is trained on the other folds and evaluated on this one, by launch.build,
launch.train and launch.evaluate themselves. The predictions are pooled. Patches of one block are alike, so that the
intervals are those of a bootstrap that draws whole blocks.

What is finished in --work_dir is kept: called again, the command resumes where it stopped.

Example:
  python -m benchmarks.cross_validation --source=data/EuroSAT_MS_sample.zip \
      --training_flags=launch/flagfiles/eurosat_ms_compact_scratch.flags
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from benchmarks import harness
from eo_keras.core import files
from eo_keras.evaluation import report
from eo_keras.metrics import by_location, estimate
from eo_keras.metrics import classification as metrics
from eo_keras.metrics.predictions import ClassPredictions
from eo_keras.records import data_card as cards
from launch import app, path_flags
from tfrecords_builder.splits.spatial import EQUAL_AREA_CRS

FLAGS = flags.FLAGS
RESAMPLES = 10_000
_LIMIT_SECONDS = 3600


@dataclasses.dataclass(frozen=True)
class Pooled:
    """The predictions of all folds.

    Attributes:
        predictions: each patch once, in the order of the keys.
        class_names: names of the classes.
        blocks: int64 (N,), the block of land that each patch lies in.
    """

    predictions: ClassPredictions
    class_names: tuple[str, ...]
    blocks: np.ndarray


def pool(folders: Sequence[tuple[pathlib.Path, pathlib.Path]], block_km: float) -> Pooled:
    """Joins the evaluations of the folds.

    Args:
        folders: for each fold its records folder and the folder of the evaluation on its test split.
        block_km: edge of the blocks.

    Raises:
        MeasurementError: if a patch is predicted twice, or has no location.
    """
    keys: list[str] = []
    labels, probabilities, cells = [], [], []
    for records_dir, folder in folders:
        stored = report.read_evaluation(folder)
        card = cards.read_data_card(records_dir)
        found = by_location.read_locations(records_dir, card, "test", stored.predictions.keys)
        if found is None or not found.known.all():
            raise harness.MeasurementError(records_dir, "not all patches have a place", "georeferenced patches")
        keys += stored.predictions.keys
        labels.append(stored.predictions.labels)
        probabilities.append(stored.predictions.probabilities)
        cells.append(blocks_of(found.degrees, block_km))
    if len(set(keys)) != len(keys):
        raise harness.MeasurementError("folds", "a patch is for testing in two of them", "each patch in one")
    order = np.argsort(keys)
    pooled = ClassPredictions(
        np.concatenate(labels)[order], np.concatenate(probabilities)[order], tuple(keys[place] for place in order)
    )
    _, blocks = np.unique(np.concatenate(cells)[order], axis=0, return_inverse=True)
    return Pooled(pooled, stored.scores.class_names, blocks.reshape(-1))


def blocks_of(degrees: np.ndarray, block_km: float) -> np.ndarray:
    """Returns column and row, int64 (N, 2), of the blocks that places (N, 2), in degrees, lie in."""
    from rasterio.warp import transform

    x, y = transform("EPSG:4326", EQUAL_AREA_CRS, degrees[:, 0], degrees[:, 1])
    return np.floor(np.stack([x, y], axis=-1) / (1000 * block_km)).astype(np.int64)


def interval(values: np.ndarray, blocks: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % percentile interval of a mean, by a bootstrap that draws whole blocks.

    Cameron & Miller 2015, A Practitioner's Guide to Cluster-Robust Inference, section VI: what is alike within a
    cluster must be drawn together, or the interval is too narrow.

    Args:
        values: float (N,).
        blocks: int64 (N,), numbered from 0.
        seed: seed of the draws.
    """
    by_block = np.stack([np.bincount(blocks, values), np.bincount(blocks)], axis=-1)
    drawn = np.concatenate(list(estimate.resampled(by_block, RESAMPLES, seed)))
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return float(low), float(high)


def score(pooled: dict[str, Pooled]) -> dict[str, Any]:
    """Scores pooled predictions by choice of bands, and compares each with the first one."""
    reference, found = next(iter(pooled)), {}
    for bands, one in pooled.items():
        correct = one.predictions.correct.astype(np.float64)
        low, high = interval(correct, one.blocks)
        scores = metrics.score_classification(one.predictions.labels, one.predictions.probabilities, one.class_names)
        found[bands] = {
            "patches": len(correct),
            "blocks": int(one.blocks.max()) + 1,
            "accuracy": float(correct.mean()),
            "accuracy_low": low,
            "accuracy_high": high,
            "macro_f1": scores.value("macro_f1"),
            "classes": {name: scores.value("f1", name) for name in scores.class_names},
        }
        if bands != reference:
            before = pooled[reference].predictions
            if before.keys != one.predictions.keys:
                raise harness.MeasurementError("folds", f"{bands} and {reference} were evaluated on other patches")
            difference = correct - before.correct
            low, high = interval(difference, one.blocks)
            found[bands] |= {"gain": float(difference.mean()), "gain_low": low, "gain_high": high, "over": reference}
    return found


def _run(words: Sequence[str], what: str) -> None:
    print(what, flush=True)
    harness.run_command([sys.executable, "-m", *words], _LIMIT_SECONDS)


def _records(fold: int) -> pathlib.Path:
    """Builds a fold's records, unless they are there, and returns their folder."""
    folder = pathlib.Path(FLAGS.work_dir) / "records" / f"fold{fold}"
    if not (folder / cards.DATA_CARD_NAME).is_file():
        words = ["launch.build", f"--dataset={FLAGS.dataset}", f"--source={FLAGS.source}", f"--output_dir={folder}"]
        words += ["--split=spatial", f"--block_km={FLAGS.block_km:g}", f"--buffer_km={FLAGS.buffer_km:g}"]
        _run([*words, f"--fold={fold}/{FLAGS.folds}", f"--seed={FLAGS.split_seed}"], f"fold {fold}: records")
    return folder


def _evaluation(fold: int, bands: str, records_dir: pathlib.Path) -> pathlib.Path:
    """Trains and asks a fold's network, as far as that is not done, and returns the evaluation's folder."""
    run_dir = pathlib.Path(FLAGS.work_dir) / "runs" / f"{bands.replace(',', '_')}-fold{fold}"
    folder = run_dir / "evaluation" / "test"
    if (folder / report.METRICS_NAME).is_file():
        return folder
    resume = (run_dir / "flags.txt").is_file()
    words = ["launch.train", f"--flagfile={FLAGS.training_flags}", f"--bands={bands}", f"--records_dir={records_dir}"]
    words += [f"--run_dir={run_dir}", *(["--resume"] if resume else [])]
    _run(words, f"fold {fold}, {bands}: {'resuming' if resume else 'training'} {run_dir}")
    _run(["launch.evaluate", f"--run_dir={run_dir}", "--split=test"], f"fold {fold}, {bands}: evaluation")
    return folder


def main() -> None:
    """Runs the command."""
    work = [(fold, bands) for fold in range(1, FLAGS.folds + 1) for bands in FLAGS.bands]
    if FLAGS.dry_run:
        print(f"dry run: would train {len(work)} networks in {FLAGS.work_dir} and write {FLAGS.output}")
        return
    folders: dict[str, list[tuple[pathlib.Path, pathlib.Path]]] = {bands: [] for bands in FLAGS.bands}
    for fold, bands in work:
        records_dir = _records(fold)
        folders[bands].append((records_dir, _evaluation(fold, bands, records_dir)))
    pooled = {bands: pool(pairs, FLAGS.block_km) for bands, pairs in folders.items()}
    found = {
        "dataset": FLAGS.dataset,
        "source": pathlib.Path(FLAGS.source).name,
        "training_flags": FLAGS.training_flags,
        "folds": FLAGS.folds,
        "block_km": FLAGS.block_km,
        "buffer_km": FLAGS.buffer_km,
        "split_seed": FLAGS.split_seed,
        "bands": score(pooled),
    }
    files.write_json(FLAGS.output, found)
    for bands, one in found["bands"].items():
        print(f"{bands}: {one['accuracy']:.1%} ({one['accuracy_low']:.1%} to {one['accuracy_high']:.1%})")
    print(f"wrote {FLAGS.output}")


if __name__ == "__main__":
    flags.DEFINE_string("dataset", "eurosat_ms", "Data set to build.")
    path_flags.define_path("source", None, "Its archive, of georeferenced patches.", required=True)
    flags.DEFINE_list(
        "bands", ["RGB", "CI", "SWIR", "all"], "Choices of bands; the others are compared with the first."
    )
    path_flags.define_path("training_flags", None, "Flag file of launch.train.", required=True)
    flags.DEFINE_integer("folds", 5, "Number of folds.", lower_bound=2)
    flags.DEFINE_float("block_km", 20.0, "Edge of the blocks of land in kilometers.")
    flags.DEFINE_float("buffer_km", 1.0, "Training patches nearer than this to a tested one are left out.")
    flags.DEFINE_integer("split_seed", 1, "Seed of the folds.")
    path_flags.define_path("work_dir", "runs/cross_validation", "Folder of records and runs.")
    path_flags.define_path("output", "docs/results/cross_validation.json", "JSON file to write.")
    app.run(main)
