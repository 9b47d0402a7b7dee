"""Runs that are killed or stopped, and resumed."""

import dataclasses
import json
import os
import shutil
import signal
import struct
import time
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from eo_keras.errors import RunError, SourceError, StorageError
from eo_keras.models.pretrained import weights
from eo_keras.runs import event_files
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.training import checkpoints
from eo_keras.training import train as training
from tests.harness import tiny
from tests.harness.killing import curves
from tests.kept import contents
from tests.launch.commands import launch, start


def end_and_compare(records, folder, *words):
    done = start("tests.harness.killing", records, folder, *words).wait()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "records",
    ["rgb_records", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tile_records", "distance_records"))],
)
def test_a_run_that_was_killed_and_terminated_ends_in_the_same_bits(request, tmp_path, records):
    records = request.getfixturevalue(records)
    ends = {"codes": [-signal.SIGKILL, 143, 0], "differences": []}
    assert end_and_compare(records, tmp_path) == {"signals": ends}


@pytest.mark.slow
def test_ten_random_kills(rgb_records, tmp_path):
    results = end_and_compare(rgb_records, tmp_path, "--moments=10")
    assert len(results) == 10 and sum(result["codes"] == [-signal.SIGKILL] for result in results.values()) >= 7
    assert [name for name, result in results.items() if result["differences"]] == []


def test_a_stopped_run_resumes_within_an_epoch(short_training, tmp_path):
    options, asked, lines = dataclasses.replace(short_training, run_dir=str(tmp_path / "r")), [], []

    def stop():
        asked.append(None)
        return len(asked) == 2

    stopped = training.train(options, stop=stop, report=lines.append)
    assert stopped.stopped and stopped.card is None and stopped.history == ()
    assert lines[-1] == "stopped after step 2; checkpoint saved; continue with `resume`"
    state = runs.read_state(tmp_path / "r")
    assert (state["epoch"], state["variables"], len(state["under_way"]["losses"])) == (0, "step-00000002.npz", 2)
    resumed = training.train(dataclasses.replace(options, resume=True))
    assert resumed.resumed_from == 2 and not resumed.stopped and len(resumed.history) == 3
    shown = curves(tmp_path / "r")
    assert [step for step, _ in shown["train", "epoch/loss"]] == [1, 2, 3]
    assert [step for step, _ in shown["train", "step/loss"]] == list(range(1, 13))
    # At an epoch's end, too.
    asked.clear()
    options = dataclasses.replace(options, run_dir=str(tmp_path / "s"))
    stopped = training.train(options, stop=lambda: asked.append(None) or len(asked) > 4, report=lines.append)
    assert stopped.stopped and len(stopped.history) == 1 and stopped.card.selection["epoch"] == 1
    assert lines[-1] == "stopped after epoch 1; checkpoint saved; continue with `resume`"


def test_sigterm_saves_and_ends(rgb_records, tmp_path):
    words = [f"--records_dir={rgb_records}", f"--model={tiny.CLASSIFIER}", "--batch_size=8", "--epochs=2000"]
    words += ["--steps_per_epoch=3", "--warmup_epochs=0", "--learning_rate=0.001", f"--run_dir={tmp_path / 'r'}"]
    command = start("launch.train", *words)
    while not (found := command.out.read_text()).count("epoch   1:"):
        assert "error" not in found
        time.sleep(0.1)
    os.kill(command.pid, signal.SIGTERM)
    done = command.wait()
    assert done.returncode == 143 and done.stderr == ""
    assert "checkpoint saved; continue with --resume" in done.stdout.splitlines()[-1]
    state = runs.read_state(tmp_path / "r")
    steps = 3 * state["epoch"] + len(state["under_way"]["losses"])
    assert 3 <= steps < 6000 and state["variables"] == checkpoints.step_name(steps)
    assert model_cards.read_model_card(tmp_path / "r").selection["epoch"] == state["best"]["epoch"]
    again = launch("train", *words, "--resume", "--dry_run")
    assert again.returncode == 0, again.stderr


def test_what_a_kill_leaves_is_repaired(finished, tmp_path):
    """Killed after the state, before the names were given; and before the state, with files of the next epoch."""
    run = tmp_path / "run"
    shutil.copytree(finished[0].run_dir, run)
    state = runs.read_state(run)
    best = checkpoints.model_name(state["best"]["epoch"])
    later = (runs.MODEL_NAME, f"{runs.CHECKPOINT_DIR}/step-00000016.npz")
    event = event_files.name_of(event_files.TRAIN, event_files.EPOCH, 4)
    runs.output_folder(run).write(dict.fromkeys((*later, event), b"a later epoch's"))
    history = (run / runs.HISTORY_NAME).read_text()
    (run / runs.HISTORY_NAME).write_text(history + "4,16,9.9,0,,,0,0,0\n")  # A line of no checkpoint.
    (run / model_cards.MODEL_CARD_NAME).unlink()
    (run / runs.LAST_MODEL_NAME).unlink()
    options = dataclasses.replace(finished[0], run_dir=str(run), resume=True)
    training.train(options)
    assert (run / runs.MODEL_NAME).read_bytes() == (run / runs.CHECKPOINT_DIR / best).read_bytes()
    written, before = model_cards.read_model_card(run), model_cards.read_model_card(finished[0].run_dir)
    assert dataclasses.replace(written, flags=before.flags) == before
    assert len(list((run / event_files.TENSORBOARD_DIR / "train").iterdir())) == 2 * 3
    assert len(list((run / event_files.TENSORBOARD_DIR / "validation").iterdir())) == 3
    assert (run / runs.HISTORY_NAME).read_text() == history
    left = {path.name for path in (run / runs.CHECKPOINT_DIR).iterdir()}
    states = {"state.json", "previous.json", "step-00000012.npz", "step-00000008.npz"}
    assert left == states | {"last.keras", "epoch-00003.keras", "epoch-00002.keras", best}
    runs.open_run(run)


def damaged(path, damage):
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "gone":
        path.unlink()
    else:
        np.savez(path, **{"weights/00000": np.zeros(3)})


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "another's"])
def test_of_a_damaged_checkpoint_the_one_before_is_taken(finished, tmp_path, damage):
    run, lines = tmp_path / "run", []
    shutil.copytree(finished[0].run_dir, run)
    path = run / runs.CHECKPOINT_DIR / runs.read_state(run)["variables"]
    damaged(path, damage)
    report = training.train(dataclasses.replace(finished[0], run_dir=str(run), resume=True), report=lines.append)
    assert report.resumed_from == 8 and [row["step"] for row in report.history] == [4, 8, 12]
    assert any(f"{path.name}: " in line and line.startswith("warning: ") for line in lines)
    checkpoints.check_whole(run, runs.read_state(run))
    before = runs.parse_state(run, runs.PREVIOUS_STATE_NAME)
    assert (before["epoch"], len(before["history"])) == (2, 2)
    checkpoints.check_whole(run, before)


@pytest.mark.parametrize("what", ["best", "variables", "state"])
def test_what_cannot_be_resumed_is_named_with_weights_to_start_from(finished, tmp_path, what):
    run = tmp_path / "run"
    shutil.copytree(finished[0].run_dir, run)
    states = [runs.parse_state(run, name) for name in (runs.STATE_NAME, runs.PREVIOUS_STATE_NAME)]
    for name, state in zip((runs.STATE_NAME, runs.PREVIOUS_STATE_NAME), states, strict=True):
        best = checkpoints.model_name(state["best"]["epoch"])
        path = run / runs.CHECKPOINT_DIR / {"best": best, "variables": state["variables"], "state": name}[what]
        path.write_bytes(path.read_bytes()[:-100])
    (run / runs.MODEL_NAME).unlink()
    with pytest.raises(RunError, match=rf"{runs.CHECKPOINT_DIR}/[a-z].*: it .*") as caught:
        training.train(dataclasses.replace(finished[0], run_dir=str(run), resume=True))
    assert f"`weights={run / runs.LAST_MODEL_NAME}` with another `run_dir" in str(caught.value)
    (run / runs.LAST_MODEL_NAME).write_bytes(b"")
    assert runs.start_from_weights(run) == "start the run again in another `run_dir`"


@pytest.mark.parametrize(
    ("flags", "method"), [(1, zipfile.ZIP_STORED), (0, 99), (0, zipfile.ZIP_DEFLATED), (0, zipfile.ZIP_LZMA)]
)
def test_bits_that_flipped_in_a_zips_directory_are_damage(tmp_path, flags, method):
    """A member is said to be encrypted, or of another compression."""

    def flipped(name, member):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, b"weights" * 100)
        content = bytearray(path.read_bytes())
        for at in (6, content.index(b"PK\1\2") + 8):
            struct.pack_into("<HH", content, at, flags, method)
        path.write_bytes(content)
        return path

    path = flipped(runs.MODEL_NAME, "config.json")
    assert runs.start_from_weights(tmp_path) == "start the run again in another `run_dir`"
    with pytest.raises(SourceError, match="its configuration cannot be read"):
        weights.input_scales(path, {"image": ("B04", "B03", "B02")}, "by_name")
    with pytest.raises(SourceError, match="its weights cannot be read"):
        weights.load_backbone(
            keras.Sequential([keras.Input((8, 8, 3))]), flipped("w.keras", "model.weights.h5"), ("B04", "B03", "B02")
        )
    with pytest.raises(RunError, match="the checkpoint cannot be read"):
        checkpoints.read_variables(flipped("v.npz", "a/00000.npy"), {"a": [tf.Variable(1.0)]})


def test_a_run_without_a_checkpoint_starts_over_with_the_same_command(short_training, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "train.log").write_text("what tee wrote")
    options = dataclasses.replace(short_training, run_dir=str(run), epochs=2, steps_per_epoch=2)

    def full(stage, done, total):
        raise StorageError(run, "no room is left")

    with pytest.raises(StorageError):
        training.train(options, progress=full)
    with pytest.raises(RunError, match="Start the run without `resume"):
        training.train(dataclasses.replace(options, resume=True))
    assert len(training.train(options).history) == 2
    assert (run / "train.log").read_text() == "what tee wrote"
    # Nor does what lies beside it keep a run from going on.
    (run / "slurm-1.out").touch()
    (run / ".DS_Store").touch()
    (run / "notes.md").write_text("mine")
    for name in (runs.CHECKPOINT_DIR, event_files.TENSORBOARD_DIR):
        (run / name / ".ipynb_checkpoints").mkdir()
        (run / name / "my_best_copy.keras").write_bytes(b"mine")
    before = contents(run)
    training.train(dataclasses.replace(options, resume=True))
    after = contents(run)
    assert {name: after[name] for name in before if "my_" in name or "notes" in name or "log" in name} == {
        name: data for name, data in before.items() if "my_" in name or "notes" in name or "log" in name
    }
    assert (run / runs.CHECKPOINT_DIR / ".ipynb_checkpoints").is_dir()


def test_variables_survive_to_the_bit(tmp_path):
    random = np.random.default_rng(1)
    values = [random.normal(size=(3, 4)).astype(np.float32), np.float64(np.pi), np.int64(2**60), np.uint32([1, 2])]
    groups = {"a": [tf.Variable(value) for value in values[:2]], "b": [tf.Variable(value) for value in values[2:]]}
    checkpoints.write_variables(tmp_path / "v.npz", groups)
    for variable in (*groups["a"], *groups["b"]):
        variable.assign(tf.zeros_like(variable))
    checkpoints.read_variables(tmp_path / "v.npz", groups)
    for variable, value in zip((*groups["a"], *groups["b"]), values, strict=True):
        assert variable.numpy().tobytes() == value.tobytes()
    before = groups["a"][0].numpy()
    with pytest.raises(RunError, match="a/00001 has shape"):
        checkpoints.read_variables(tmp_path / "v.npz", {"a": [groups["a"][0], tf.Variable([1.0])], "b": groups["b"]})
    np.testing.assert_array_equal(groups["a"][0].numpy(), before)
