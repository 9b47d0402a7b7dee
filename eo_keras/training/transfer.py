"""Backbone weights from another run, with a check for test examples in its training data."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from eo_keras.data import common_ground
from eo_keras.data import folder as records_folder
from eo_keras.data.folder import RecordDataset, reading
from eo_keras.errors import EOKerasError, RunError
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards


@dataclasses.dataclass(frozen=True)
class Start:
    """Initial weights of a run.

    Attributes:
        weights: None, `imagenet`, or a file.
        checked: of a backbone, one line on what it was compared with; empty of others.
    """

    weights: str | pathlib.Path | None
    checked: str = ""


def start_of(weights: str | None, backbone_run: str | None, records: RecordDataset) -> Start:
    """Returns the initial weights of a run.

    Args:
        weights: None, `imagenet`, or a file.
        backbone_run: run folder of a classifier, or of pre-training, that is started from instead, or None; see
            `backbone`.
        records: the records that the run is trained and tested on.
    """
    return Start(weights) if backbone_run is None else backbone(backbone_run, records)


def backbone(run_dir: str | os.PathLike[str], records: RecordDataset) -> Start:
    """Returns the file of a run's weights, after checking that it was not trained on these records' test examples.

    Args:
        run_dir: run folder of a classifier, or of pre-training.
        records: the records that a segmentation model will be trained and tested on.

    Raises:
        RunError: if there is no such run, the records it was trained on are not there any more, or an example that it
            was trained on, or that chose its epoch, shows ground of a test example, by place or by pixels, or has its
            key.
    """
    folder = pathlib.Path(run_dir)
    card = model_cards.read_model_card(folder)
    model = folder / runs.MODEL_NAME
    if not model.is_file():
        raise RunError(model, "there is no such file", "the model of a run", "let launch.train end its first epoch")
    if "test" not in records.card.splits or not records.card.splits["test"].examples:
        return Start(model, "nothing to compare it with: these records have no test examples")
    trained = _trained_on(folder, card)
    seen = [part for part in ("train", "val") if part in trained.card.splits and trained.card.splits[part].examples]
    keys = {key for part in seen for key in _keys(trained, part)}
    if common := sorted(keys & set(_keys(records, "test"))):
        raise _refused(folder, records, common, "{:,} examples")
    found = common_ground.compare(
        common_ground.Side(trained.card, tuple(path for part in seen for path in trained.files(part))),
        common_ground.Side(records.card, tuple(records.files("test"))),
    )
    if found.keys:
        raise _refused(folder, records, found.keys, "the ground of {:,} examples")
    tested = f"the {records.card.splits['test'].examples:,} test examples"
    if not found.by:
        return Start(model, f"whether it has seen {tested} is not known: no places, and no bands in common to compare")
    return Start(model, f"has seen none of {tested}, compared by {' and '.join(found.by)}")


def _refused(folder: pathlib.Path, records: RecordDataset, keys: Sequence[str], what: str) -> RunError:
    return RunError(
        folder,
        f"it was trained on {what.format(len(keys))} that {records.folder} tests on, such as {keys[0]}",
        "a run that has not seen them",
        "train it on the training part of the same split",
    )


def _trained_on(folder: pathlib.Path, card: model_cards.ModelCard) -> RecordDataset:
    where: Any = card.flags.get("records_dir")
    try:
        trained = RecordDataset(where)
    except (EOKerasError, TypeError) as error:
        raise RunError(
            folder,
            f"the records that it was trained on cannot be read ({error}), so that what it has seen is unknown",
            "the records, where they were",
            "put them back, or give the file alone with `weights`, which is not checked",
        ) from None
    if trained.card.fingerprint != card.data_fingerprint:
        raise RunError(
            folder,
            f"{where} has the fingerprint {trained.card.fingerprint[:12]}",
            f"{card.data_fingerprint[:12]}, that of the records it was trained on",
            "put them back, or give the file alone with `weights`, which is not checked",
        )
    return trained


def _keys(records: RecordDataset, split: str) -> list[str]:
    batches = records_folder.serialized(records.files(split)).batch(records_folder.PARSE_BATCH)
    return [key.decode() for batch in reading(records, batches.map(records_folder.keys_of)) for key in batch.numpy()]
