"""Every task held against what the rest of the program calls it for."""

import dataclasses
import json

import pytest

from eo_keras import tasks
from eo_keras.data.augment.crops import CropAugmentation
from eo_keras.errors import RecordsError, RunError
from eo_keras.records import targets
from eo_keras.runs import model_card as model_cards
from eo_keras.training.options import SegmentationOptions, TrainingOptions
from tests.harness import task_names
from tests.harness.tasks import check_task


@pytest.fixture(scope="module")
def options_of(short_training, tile_records):
    """Options of a short training run of each task."""
    return {
        "classification": dataclasses.replace(short_training, epochs=2, steps_per_epoch=2),
        "segmentation": TrainingOptions(
            records_dir=str(tile_records),
            run_dir="",
            model="deeplab_resnet14",
            batch_size=4,
            epochs=2,
            steps_per_epoch=2,
            segmentation=SegmentationOptions(augmentation=CropAugmentation(crop=32)),
        ),
    }


@pytest.mark.parametrize("name", tasks.TASKS)
def test_a_task(options_of, name, tmp_path):
    run, _ = check_task(options_of[name], tmp_path)
    assert run.card.task == name
    # A card of an earlier version names no task; its network has one.
    path = run.folder / model_cards.MODEL_CARD_NAME
    content = json.loads(path.read_text())
    del content["task"], content["checksum"]
    path.write_text(json.dumps(content))
    assert dataclasses.replace(run.card, scores={}, temperature=None) == dataclasses.replace(
        model_cards.read_model_card(run.folder), scores={}, temperature=None
    )
    path.write_text(json.dumps(content | {"model": "unknown"}))
    with pytest.raises(RunError, match="names no task, and the network 'unknown' is not known"):
        model_cards.read_model_card(run.folder)


def test_a_task_that_does_not_exist():
    with pytest.raises(RecordsError, match="task: 'retrieval'; expected one of classification, segmentation"):
        tasks.get("retrieval")
    with pytest.raises(RecordsError, match="task: 'retrieval'"):
        targets.of_task("retrieval")


def test_no_other_package_compares_a_tasks_name():
    assert task_names.problems() == []
    asking = "\n".join(
        (
            "if card.task == 'segmentation':",
            "    loss = {'classification': 1, 'other': 2}[card.task]",
            "dense = card.task in ('segmentation', 'change')",
            "match card.task:",
            "    case 'classification':",
            "        print('segmentation', card.task == other.task)",
        )
    )
    assert sorted(task_names.find(asking)) == [1, 2, 3, 5]
