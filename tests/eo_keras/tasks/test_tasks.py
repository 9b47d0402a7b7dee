"""Every task held against what the rest of the program calls it for."""

import dataclasses
import json

import pytest

from eo_keras import models, tasks
from eo_keras.errors import RecordsError, RunError
from eo_keras.records import targets
from eo_keras.runs import model_card as model_cards
from tests.harness import task_names, tiny
from tests.harness.tasks import check_task


@pytest.fixture(scope="module")
def options_of(short_training, short_tile_training):
    """Options of a short training run of each task."""
    runs = {
        "classification": short_training,
        "segmentation": dataclasses.replace(short_tile_training, model=tiny.UNET),
    }
    return {name: dataclasses.replace(options, epochs=2, steps_per_epoch=2) for name, options in runs.items()}


@pytest.mark.parametrize("name", tasks.TASKS)
def test_a_task(options_of, name, tmp_path):
    run, _ = check_task(options_of[name], tmp_path)
    assert run.card.task == name
    # A card of an earlier version names no task; its network has one.
    path = run.folder / model_cards.MODEL_CARD_NAME
    content = json.loads(path.read_text())
    del content["task"], content["checksum"]
    content["model"] = models.list_models(name)[0]
    path.write_text(json.dumps(content))
    read = model_cards.read_model_card(run.folder)
    assert read == dataclasses.replace(run.card, model=read.model, scores=read.scores, temperature=read.temperature)
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
