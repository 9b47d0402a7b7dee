import csv
import dataclasses
import json
import pathlib
import shutil

import pytest

from eo_keras.core import files, number_format
from eo_keras.core.output_folders import MANIFEST_NAME
from eo_keras.data.augment.options import Augmentation
from eo_keras.errors import OptionError, RecordsError, RunError
from eo_keras.geo import images as rasters
from eo_keras.legends import catalogue as legends
from eo_keras.records import data_card as cards
from eo_keras.runs import event_files
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.sweeps import grid, report, state
from eo_keras.sweeps import sweep as sweeps
from eo_keras.sweeps import tensorboard as hparams
from eo_keras.sweeps.state import RunStatus
from eo_keras.training.options import ClassificationOptions, OptimizerOptions, SegmentationOptions
from eo_keras.training.tensorboard import TensorBoardLogger
from tests.kept import contents

BASE = {"model": "resnet14", "epochs": 2, "learning_rate": 0.3, "decay_epochs": (), "cache_gb": 4.0}


def plan_of(short_training, folder, **varied):
    points = grid.expand(varied)
    return [
        grid.PlannedRun(
            point,
            dataclasses.replace(
                short_training,
                run_dir=str(folder / grid.run_name(point)),
                epochs=2,
                seed=point.get("seed", 1),
                optimizer=OptimizerOptions(learning_rate=point["learning_rate"]),
            ),
            f"--learning_rate={point['learning_rate']}\n",
        )
        for point in points
    ]


def write_run(planned, fingerprint, accuracies, *, epochs=None, metric="accuracy"):
    """Writes what a run leaves behind that a sweep looks at."""
    folder, options = pathlib.Path(planned.options.run_dir), planned.options
    history = [
        {"epoch": place, "val_accuracy": 0.5, "val_loss": 1 - value, "seconds": 30.0} | {f"val_{metric}": value}
        for place, value in enumerate(accuracies, 1)
    ]
    best = max(history, key=lambda row: row[f"val_{metric}"]) if history else None
    state = {
        "epoch": len(history),
        "variables": "step.npz",
        "best": best and {"epoch": best["epoch"], "metric": metric},
        "history": history,
        "under_way": {"losses": [], "right": 0, "seconds": 0.0},
        "data_fingerprint": fingerprint,
        "options": options.comparable(),
    }
    contents = {
        f"{runs.CHECKPOINT_DIR}/{runs.STATE_NAME}": files.json_bytes(state),
        runs.FLAGS_NAME: planned.flags_text.encode(),
        runs.MODEL_NAME: b"model",
        runs.HISTORY_NAME: runs.history_bytes(history),
    }
    output = runs.output_folder(folder)
    output.write(contents)
    if best:
        card = model_cards.ModelCard(
            "resnet14", "classification", "d", fingerprint, ("B04",), "uint8", "L1C", rasters.REFLECTANCES["uint8"],
            0, 10.0, 64, {}, legends.EUROSAT, 1, "", cards.to_json(options), {"epoch": best["epoch"]}, {}, {}, "nobody",
        )  # fmt: skip
        output.write(model_cards.contents(card))


class FakeTraining:
    """Stands for the process of a run: writes its folder, or fails; keeps what it was asked for."""

    def __init__(self, records, failing=(), silent=(), stopped_in=None):
        self.fingerprint = cards.read_data_card(records).fingerprint
        self.failing, self.silent, self.stopped_in = failing, silent, stopped_in
        self.calls, self.stopped = [], False

    def __call__(self, planned, mode):
        self.calls.append((planned.name, mode))
        if planned.name in self.failing:
            return "the loss is nan"
        if planned.name in self.silent:
            return ""
        if planned.name == self.stopped_in:
            self.stopped = True
            write_run(planned, self.fingerprint, [0.5])
            return "stopped"
        rate, seed = planned.settings["learning_rate"], planned.settings.get("seed", 1)
        write_run(planned, self.fingerprint, [0.5 + rate + seed / 100, 0.4])
        return ""


@pytest.fixture
def swept(short_training, rgb_records, tmp_path):
    """Makes a sweep's plan and trains it by a `FakeTraining`."""

    def go(training=None, base=BASE, lines=None, stop_on_error=False, **varied):
        training = training or FakeTraining(rgb_records)
        plan = plan_of(short_training, tmp_path / "s", **varied)
        found = sweeps.sweep(
            tmp_path / "s",
            base,
            plan,
            training,
            report=(lines if lines is not None else []).append,
            stop=lambda: training.stopped,
            stop_on_error=stop_on_error,
        )
        return found, training

    return go


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.05, "0.05"), (1e-05, "1e-05"), (0.1 + 0.2, "0.30000000000000004"), (2.0, "2"), (0.0, "0"), (3, "3"),
     (1e20, "1e+20"), (True, "true"), (None, "none"), ("RGB", "RGB")],
)  # fmt: skip
def test_values_are_written_as_they_are_read(value, text):
    assert grid.format_value(value) == text
    if isinstance(value, float):
        assert float(text) == value


def test_names_are_safe_and_in_one_order():
    point = {"learning_rate": 0.05, "weight_decay": 0.001, "weights": "a/b,c=1.keras", "seed": 1}
    assert grid.run_name(point) == "lr=0.05,wd=0.001,weights=a%2Fb%2Cc%3D1.keras,seed=1"
    with pytest.raises(OptionError, match="letters"):
        grid.run_name({"weights": "x" * 300})


def test_the_first_seed_goes_through_all_settings_first():
    points = grid.expand({"seed": [1, 2], "ema": [0.9], "weight_decay": [0.0, 0.1], "learning_rate": [0.1, 0.2]})
    assert [grid.run_name(point) for point in points] == [
        f"lr={rate},wd={decay},ema=0.9,seed={seed}" for seed in (1, 2) for rate in (0.1, 0.2) for decay in (0, 0.1)
    ]


@pytest.mark.parametrize(
    ("varied", "words"),
    [({}, "nothing is varied"), ({"seed": []}, "no values"), ({"learning_rate": [0.05, 5e-2]}, "0.05 is given twice")],
)
def test_grids_that_make_no_sense(varied, words):
    with pytest.raises(OptionError, match=words):
        grid.expand(varied)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strategy": "multi_worker"}, "strategy: multi_worker"),
        ({"optimizer": OptimizerOptions(warmup_epochs=5.0)}, "warmup_epochs: 5 in a run of 3 epochs"),
        ({"classification": ClassificationOptions(Augmentation(), (64,), (1,))}, "progressive_sizes: 64"),
        ({"segmentation": SegmentationOptions(loss="focal")}, "loss: it does not apply to records of one class an"),
        ({"model": "deeplab_resnet14"}, "model: deeplab_resnet14 is for segmentation, the records are for"),
        (
            {"validation_from_train": 0.0},
            "validation_from_train: 0, .*nothing but the test split .*`validation_from_train=0.05",
        ),
    ],
)
def test_runs_are_refused_by_name_before_the_first_begins(short_training, rgb_records, change, words):
    planned = grid.PlannedRun({"learning_rate": 0.1}, dataclasses.replace(short_training, **change), "")
    with pytest.raises(OptionError, match=f"run lr=0.1: {words}"):
        grid.check(planned, cards.read_data_card(rgb_records))


def test_nothing_is_written_where_one_run_is_refused(short_training, rgb_records, tmp_path):
    plan = plan_of(short_training, tmp_path / "s", learning_rate=[0.1, 0.2])
    bad = dataclasses.replace(plan[1], options=dataclasses.replace(plan[1].options, model="deeplab_resnet14"))
    training = FakeTraining(rgb_records)
    with pytest.raises(OptionError, match="run lr=0.2"):
        sweeps.sweep(tmp_path / "s", BASE, [plan[0], bad], training)
    assert training.calls == [] and not (tmp_path / "s").exists()


def test_runs_of_maps_are_compared_by_miou(short_training, tmp_path):
    fingerprint, found = "f" * 64, []
    maps = dataclasses.replace(short_training, model="deeplab_resnet14")
    plan = plan_of(maps, tmp_path, learning_rate=[0.1, 0.2])
    for planned, scores in zip(plan, ([0.3, 0.6], [0.7, 0.4]), strict=True):
        write_run(planned, fingerprint, scores, metric="miou")
        found.append(sweeps.read_status(planned, fingerprint)[0])
    assert [(one.score, one.last_score, one.epoch) for one in found] == [(0.6, 0.6, 2), (0.7, 0.4, 1)]
    sweep = state.Sweep({}, fingerprint, "v", tuple(found))
    waiting = plan_of(maps, tmp_path, learning_rate=[0.4])[0]
    assert sweeps.read_status(waiting, fingerprint)[0].metric == "miou"
    assert sweep.metric == "miou" and "validation mIoU" in report.table(sweep).columns
    report.write(sweep, sweeps.output_folder(tmp_path / "out"))
    with open(tmp_path / "out" / report.CSV_NAME) as file:
        assert [float(row["validation_miou"]) for row in csv.DictReader(file)] == [0.6, 0.7]
    assert report.to_json(sweep)["metric"].startswith("mIoU of the kept epoch")
    assert "kept/validation_miou" in hparams.metrics_of(sweep)


def test_a_sweep_trains_each_run_once_and_writes_what_it_came_to(swept, tmp_path):
    lines = []
    found, training = swept(lines=lines, learning_rate=[0.1, 0.2], seed=[1, 2])
    names = ["lr=0.1,seed=1", "lr=0.2,seed=1", "lr=0.1,seed=2", "lr=0.2,seed=2"]
    assert training.calls == [(name, sweeps.NEW) for name in names]
    assert lines[0] == "run 1 of 4: lr=0.1,seed=1" and "kept epoch 1: validation accuracy 61.00%" in lines[1]
    folder = tmp_path / "s"
    content = json.loads((folder / state.JSON_NAME).read_text())
    assert content["best"] == {"learning_rate": 0.2} and "test split is never evaluated" in content["metric"]
    # The kept epoch's, not the last one's.
    assert [run["score"] for run in content["runs"]] == pytest.approx([0.61, 0.71, 0.62, 0.72])
    assert content["base"] == {"model": "resnet14", "epochs": 2, "decay_epochs": [], "cache_gb": 4.0}
    with open(folder / report.CSV_NAME) as file:
        rows = list(csv.DictReader(file))
    assert [(row["learning_rate"], row["finished"], row["best"]) for row in rows] == [
        ("0.1", "2", "false"),
        ("0.2", "2", "true"),
    ]
    assert float(rows[1]["validation_accuracy"]) == pytest.approx(0.715)
    assert "| 0.2 | best | 2 of 2 | 71.50% | 0.71 |" in (folder / report.TABLE_NAME).read_text()
    assert (folder / report.FIGURE_NAME).read_bytes().startswith(b"\x89PNG")
    assert (folder / state.FLAGS_DIR / f"{names[0]}.flags").read_text() == "--learning_rate=0.1\n"
    assert not list(folder.glob(f"{files.TEMPORARY_PREFIX}*")) and not (folder / files.FolderLock.NAME).exists()
    assert found == state.read_sweep(folder)


def test_finished_runs_are_skipped_and_a_grid_may_be_extended(swept):
    swept(learning_rate=[0.1], seed=[1])
    _, again = swept(learning_rate=[0.1], seed=[1])
    assert again.calls == []
    found, more = swept(learning_rate=[0.2], seed=[1])
    assert more.calls == [("lr=0.2,seed=1", sweeps.NEW)]
    assert [result.status for result in found.results] == [state.FINISHED] * 2


def test_an_interrupted_run_is_resumed_and_one_without_a_checkpoint_begun_again(swept, rgb_records, tmp_path):
    training = FakeTraining(rgb_records, stopped_in="lr=0.2,seed=1")
    found, _ = swept(training, learning_rate=[0.1, 0.2, 0.3], seed=[1])
    assert [result.status for result in found.results] == [state.FINISHED, state.INTERRUPTED, state.WAITING]
    assert found.results[1].epochs == 1
    # One that was killed before its first checkpoint.
    runs.output_folder(tmp_path / "s" / "lr=0.3,seed=1").write({runs.FLAGS_NAME: b""})
    found, again = swept(learning_rate=[0.1, 0.2, 0.3], seed=[1])
    assert again.calls == [("lr=0.2,seed=1", sweeps.RESUME), ("lr=0.3,seed=1", sweeps.NEW)]
    assert [result.status for result in found.results] == [state.FINISHED] * 3
    # Of several processes none took the time of the whole run.
    assert found.results[1].wall_seconds is None and found.results[2].wall_seconds is not None


def test_a_run_whose_card_is_missing_is_not_finished(swept, tmp_path):
    swept(learning_rate=[0.1])
    (tmp_path / "s" / "lr=0.1" / model_cards.MODEL_CARD_NAME).unlink()
    _, again = swept(learning_rate=[0.1])
    assert again.calls == [("lr=0.1", sweeps.RESUME)]


def test_a_finished_run_whose_checkpoints_were_removed_is_kept(swept, tmp_path):
    found, _ = swept(learning_rate=[0.1])
    run = tmp_path / "s" / "lr=0.1"
    shutil.rmtree(run / runs.CHECKPOINT_DIR)
    (run / "evaluation").mkdir()
    (run / "evaluation" / "metrics.json").write_text("{}")
    before = contents(run)
    again, training = swept(learning_rate=[0.1, 0.2])
    assert training.calls == [("lr=0.2", sweeps.NEW)]
    # The sweep's own note of the run, with the time of writing, and the list that has its SHA-256.
    noted = {event_files.name_of(event_files.TRAIN, event_files.SESSION), MANIFEST_NAME}
    after = contents(run)
    assert set(after) == set(before) > noted
    assert [name for name in before if name not in noted and after[name] != before[name]] == []
    assert again.results[0] == dataclasses.replace(found.results[0], ended=again.results[0].ended)
    # Of another rate, or not trained to its end: neither finished nor to be trained again.
    history = run / runs.HISTORY_NAME
    history.write_text("\n".join(history.read_text().splitlines()[:2]) + "\n")
    with pytest.raises(RunError, match=f"a model of 1 of 2 epochs.* Move {run} away"):
        swept(learning_rate=[0.1])


@pytest.mark.parametrize("name", ["lr=0.1/notes.md", "lr=0.1/history.csv", "logs/lr=0.1.log", "sweep.csv", "mine/x"])
def test_what_is_somebody_elses_stays(swept, tmp_path, name):
    path = tmp_path / "s" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    before = contents(tmp_path / "s")
    with pytest.raises(RunError, match="did not write") as caught:
        swept(learning_rate=[0.1])
    assert "overwrite" not in str(caught.value)  # launch.sweep has none.
    assert contents(tmp_path / "s") == before


def test_a_failed_run_is_told_and_the_sweep_goes_on(swept, rgb_records, tmp_path):
    lines, training = [], FakeTraining(rgb_records, failing=["lr=0.1"])
    found, _ = swept(training, lines=lines, learning_rate=[0.1, 0.2])
    assert [result.status for result in found.results] == [state.FAILED, state.FINISHED]
    assert "  failed: the loss is nan" in lines
    assert "* `lr=0.1` failed: the loss is nan" in (tmp_path / "s" / report.TABLE_NAME).read_text()
    found, again = swept(learning_rate=[0.1, 0.2])
    assert again.calls == [("lr=0.1", sweeps.NEW)] and found.results[0].status == state.FINISHED


def test_stop_on_error(swept, rgb_records):
    training = FakeTraining(rgb_records, failing=["lr=0.1"])
    found, _ = swept(training, learning_rate=[0.1, 0.2], stop_on_error=True)
    assert len(training.calls) == 1 and found.results[1].status == state.WAITING


def test_a_process_that_ends_early_without_an_error_has_failed(swept, rgb_records):
    training = FakeTraining(rgb_records, silent=["lr=0.1"])
    found, _ = swept(training, learning_rate=[0.1])
    assert found.results[0].status == state.FAILED and "left the run unfinished" in found.results[0].problem


def test_another_base_grid_or_data_is_refused_by_name(swept, tmp_path):
    swept(learning_rate=[0.1])
    with pytest.raises(RunError, match="begun with `epochs=2` in the base; expected `epochs=3`"):
        swept(base=BASE | {"epochs": 3}, learning_rate=[0.1])
    with pytest.raises(RunError, match="a sweep over learning_rate; expected learning_rate, seed"):
        swept(learning_rate=[0.1], seed=[1])
    # The base's own value of what is varied counts for nothing, nor does what changes no result.
    swept(base=BASE | {"learning_rate": 7.0, "cache_gb": 0.0}, learning_rate=[0.1])
    # Nor do the names and the text of numbers in lists that an earlier version wrote.
    path, now = tmp_path / "s" / state.JSON_NAME, {"final_lr_fraction": 0.1, "decay_epochs": [1.0, 2.5]}
    content = json.loads(path.read_text())
    content["base"] |= {"final_rate": 0.1, "decay_epochs": ["1", "2.5"]}
    path.write_text(json.dumps(content))
    swept(base=BASE | now, learning_rate=[0.1])
    with pytest.raises(RunError, match="begun with `decay_epochs=1,2.5` in the base; expected `decay_epochs=1`"):
        swept(base=BASE | now | {"decay_epochs": [1.0]}, learning_rate=[0.1])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_fingerprint": "0" * 64}))
    with pytest.raises(RunError, match="begun on other records"):
        swept(base=BASE | now, learning_rate=[0.1])
    path.write_text("{}")
    with pytest.raises(RunError, match="cannot be read"):
        swept(learning_rate=[0.1])


def test_a_folder_that_holds_another_run_is_refused(swept, short_training, rgb_records, tmp_path):
    other = plan_of(short_training, tmp_path / "s", learning_rate=[0.2])[0]
    wrong = dataclasses.replace(other.options, run_dir=str(tmp_path / "s" / "lr=0.1"))
    write_run(dataclasses.replace(other, options=wrong), cards.read_data_card(rgb_records).fingerprint, [0.9, 0.9])
    with pytest.raises(RunError, match="started with `learning_rate=0.2`, not `learning_rate=0.1`.*Move .*lr=0.1 away"):
        swept(learning_rate=[0.1])


def test_a_sweep_in_use_is_refused(swept, tmp_path):
    (tmp_path / "s").mkdir()
    with files.FolderLock(tmp_path / "s", RunError), pytest.raises(RunError, match="another process"):
        swept(learning_rate=[0.1])


def test_missing_records(swept, short_training):
    planned = grid.PlannedRun({"seed": 1}, dataclasses.replace(short_training, records_dir="/no/such"), "")
    with pytest.raises(RecordsError, match="/no/such"):
        sweeps.open_sweep("x", {}, [planned])


def test_remaining_time(short_training, tmp_path):
    plan = plan_of(short_training, tmp_path, learning_rate=[0.1, 0.2, 0.3, 0.4])
    done = RunStatus("lr=0.1", {"learning_rate": 0.1}, state.FINISHED, 2, seconds=90.0, wall_seconds=100.0)
    half = RunStatus("lr=0.2", {"learning_rate": 0.2}, state.INTERRUPTED, 1)
    others = [RunStatus(f"lr={rate}", {"learning_rate": rate}) for rate in (0.3, 0.4)]
    assert sweeps.remaining_seconds(state.Sweep({}, "", "", (done, half, *others)), plan) == 250.0
    waiting = dataclasses.replace(done, status=state.WAITING)
    assert sweeps.remaining_seconds(state.Sweep({}, "", "", (waiting, half, *others)), plan) is None
    assert [number_format.duration(seconds) for seconds in (40, 720, 11100)] == ["40 s", "12 min", "3 h 05 min"]


def session_groups(folder):
    """Asks the backend of TensorBoard's tab HParams, as its page does."""
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

    events = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(folder))
    events.Reload()
    provider = data_provider.MultiplexerDataProvider(events, str(folder))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider, logdir=str(folder)))
    statuses = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING, api_pb2.STATUS_UNKNOWN]
    request = api_pb2.ListSessionGroupsRequest(start_index=0, slice_size=100, allowed_statuses=statuses)
    groups = list_session_groups.Handler(context.RequestContext(), backend, "", request).run().session_groups
    asked = api_pb2.GetExperimentRequest(include_metrics=True)
    return groups, get_experiment.Handler(context.RequestContext(), backend, "", asked).run()


def test_tensorboard_shows_one_row_a_run_with_its_metrics(swept, rgb_records, tmp_path):
    from tensorboard.plugins.hparams import api_pb2

    training = FakeTraining(rgb_records, failing=["lr=0.3,seed=1"])
    swept(training, learning_rate=[0.1, 0.2, 0.3], seed=[1])
    folder = tmp_path / "s"
    groups, experiment = session_groups(folder)
    assert {info.name for info in experiment.hparam_infos} == {"learning_rate", "seed"}
    domains = {info.name: list(info.domain_discrete) for info in experiment.hparam_infos}
    assert domains == {"learning_rate": [0.1, 0.2, 0.3], "seed": [1]}
    rows = {group.name: group for group in groups}
    assert sorted(rows) == ["lr=0.1,seed=1", "lr=0.2,seed=1", "lr=0.3,seed=1"]
    values = {metric.name.tag: metric.value for metric in rows["lr=0.2,seed=1"].metric_values}
    assert values["kept/validation_accuracy"] == pytest.approx(0.71) and values["kept/epoch"] == 1
    assert values["last/validation_accuracy"] == pytest.approx(0.4)
    assert values["last/validation_loss"] == pytest.approx(0.6) and values["minutes"] == pytest.approx(1.0)
    assert rows["lr=0.2,seed=1"].hparams["learning_rate"].number_value == 0.2
    success, failure = api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE
    assert [rows[name].sessions[0].status for name in sorted(rows)] == [success, success, failure]
    # What has not changed keeps its file, which a running TensorBoard holds open.
    path = folder / "lr=0.1,seed=1" / event_files.name_of(event_files.TRAIN, event_files.SESSION)
    before = path.stat().st_ino
    swept(learning_rate=[0.1, 0.2, 0.3, 0.4], seed=[1])
    assert path.stat().st_ino == before
    assert len(session_groups(folder)[0]) == 4


def test_tensorboard_lists_each_run_once_and_each_tag_has_one_axis(tmp_path):
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    output, results = sweeps.output_folder(tmp_path), []
    for number, name in enumerate(("lr=0.1", "lr=0.2")):
        monitor = TensorBoardLogger(runs.output_folder(tmp_path / name), "--a=1")
        for epoch in (1, 2):
            row = {"epoch": epoch, "loss": 1.0, "val_loss": 0.9, "val_accuracy": 0.5 + epoch / 10}
            monitor.epoch(row, [(9 * epoch - 1, {"loss": 1.0, "learning_rate": 0.1})], {})
        results.append(RunStatus(name, {"learning_rate": 0.1 + number}, state.FINISHED, 2, 1, 0.6, 0.9, 0.7, 0.9))
    results.append(RunStatus("lr=0.3", {"learning_rate": 0.3}, state.FAILED))
    for _ in range(2):  # The second time nothing has changed.
        report.write(state.Sweep({}, "", "v", tuple(results)), output)
    groups, _ = session_groups(tmp_path)
    assert sorted(group.name for group in groups) == ["lr=0.1", "lr=0.2", "lr=0.3"]
    events = EventMultiplexer({}, {"tensors": 0}).AddRunsFromDirectory(str(tmp_path))
    events.Reload()
    trained = [f"{name}/tensorboard/{part}" for name in ("lr=0.1", "lr=0.2") for part in ("train", "validation")]
    assert sorted(events.Runs()) == sorted([*trained, "tensorboard", "tensorboard/lr=0.3"])
    axes = {}
    for run, found in events.Runs().items():
        for tag in found["tensors"]:
            axes.setdefault(tag, []).append([event.step for event in events.Tensors(run, tag)])
    assert axes["epoch/loss"] == [[1, 2]] * 4 and axes["step/loss"] == [[8, 17]] * 2
    assert axes["kept/validation_accuracy"] == [[1]] * 2 and axes["last/validation_accuracy"] == [[2]] * 2


def test_tensorboard_shows_none_as_a_word(tmp_path):
    points = grid.expand({"dropout": [None, 0.5], "nesterov": [True, False]})
    found = tuple(RunStatus(grid.run_name(point), point, state.FINISHED, 1, 1, 0.9, 0.1, 0.9, 0.1) for point in points)
    report.write(state.Sweep({}, "", "v", found), sweeps.output_folder(tmp_path))
    groups, _ = session_groups(tmp_path)
    shown = {(group.hparams["dropout"].string_value, group.hparams["nesterov"].bool_value) for group in groups}
    assert shown == {(rate, flag) for rate in ("none", "0.5") for flag in (True, False)}
