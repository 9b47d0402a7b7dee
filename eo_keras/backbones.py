"""A classifier's run as the backbone of a model of maps, and whether it has seen what is going to be tested."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from eo_keras import cards, records_folder, runs
from eo_keras.errors import EOKerasError, RunError
from eo_keras.records_folder import Records, reading
from eo_keras.training_options import TrainingOptions


def weights_of(options: TrainingOptions, records: Records) -> str | pathlib.Path | None:
    """Returns what a run's weights start from: None, `imagenet`, or a file; see `backbone_weights`."""
    run_dir = options.segmentation.backbone_run
    if run_dir is None or records.card.task != "segmentation":
        return options.weights
    return backbone_weights(run_dir, records)


def backbone_weights(run_dir: str | os.PathLike[str], records: Records) -> pathlib.Path:
    """Returns the file of a run's weights, after checking that it has not learned from these records' test examples.

    Args:
        run_dir: run folder of a classifier.
        records: the records that a model of maps is going to be trained and tested on.

    Raises:
        RunError: if there is no such run, the records it was trained on are not there any more, or an example that it
            was trained on, or that chose its epoch, has the key of a test example.
    """
    folder = pathlib.Path(run_dir)
    card = cards.read_model_card(folder)
    model = folder / runs.MODEL_NAME
    if not model.is_file():
        raise RunError(model, "there is no such file", "the model of a run", "let launch.train end its first epoch")
    if "test" not in records.card.splits:
        return model
    seen = _keys_seen(folder, card)
    if common := sorted(seen & set(_keys(records, "test"))):
        raise RunError(
            folder,
            f"it was trained on {len(common):,} examples that {records.folder} tests on, such as {common[0]}",
            "a run that has not seen them",
            "train the classifier on the training part of the same split",
        )
    return model


def _keys_seen(folder: pathlib.Path, card: cards.ModelCard) -> set[str]:
    where: Any = card.flags.get("records_dir")
    try:
        trained = Records(where)
    except (EOKerasError, TypeError) as error:
        raise RunError(
            folder,
            f"the records that it was trained on cannot be read ({error}), so that what it has seen is unknown",
            "the records, where they were",
            "put them back, or give the file alone with --weights, which is not checked",
        ) from None
    if trained.card.fingerprint != card.data_fingerprint:
        raise RunError(
            folder,
            f"{where} has the fingerprint {trained.card.fingerprint[:12]}",
            f"{card.data_fingerprint[:12]}, that of the records it was trained on",
            "put them back, or give the file alone with --weights, which is not checked",
        )
    parts = [part for part in ("train", "val") if part in trained.card.splits and trained.card.splits[part].examples]
    return {key for part in parts for key in _keys(trained, part)}


def _keys(records: Records, split: str) -> list[str]:
    batches = records_folder.serialised(records.files(split)).batch(records_folder.PARSE_BATCH)
    return [key.decode() for batch in reading(records, batches.map(records_folder.keys_of)) for key in batch.numpy()]
