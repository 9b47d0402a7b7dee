import csv
import json
import os
import pathlib
import stat
import sys
import time

import pytest
from absl import flags

from eo_keras.errors import OptionError
from eo_keras.sweeps import grid, report, state
from eo_keras.sweeps import sweep as sweeps
from eo_keras.training.options import TrainingOptions
from launch import sweep
from tests.harness import tiny
from tests.launch.commands import assert_one_line_error, launch

BASE = """--model=tiny
--batch_size=8
--epochs=1
--steps_per_epoch=2
--warmup_epochs=0
"""


@pytest.fixture
def base(tmp_path):
    tiny.register()
    path = tmp_path / "base.flags"
    path.write_text(BASE)
    return path


def parsed(*arguments):
    values = flags.FlagValues()
    sweep.define_flags(values)
    values(["sweep", "--base=b", "--sweep_dir=s", *arguments])
    return values


def varied(base, *arguments):
    return sweep.varied_flags(parsed(*arguments), sweep.training_flags(str(base), "records"))


def test_values_are_read_as_the_flags_of_training_read_them(base):
    values_of = varied(
        base,
        "--learning_rate=0.02,1",
        "--seed=1,2",
        "--vary=nesterov=true,false",
        "--vary=dropout=none,0.5",
        "--vary=optimizer=sgd,adamw",
    )
    assert values_of == {
        "learning_rate": [0.02, 1.0],
        "seed": [1, 2],
        "nesterov": [True, False],
        "dropout": [None, 0.5],
        "optimizer": ["sgd", "adamw"],
    }
    assert isinstance(values_of["learning_rate"][1], float)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--vary=momentun=0.9"], "launch.train has no such flag"),
        (["--vary=momentum"], "NAME=V1,V2"),
        (["--vary=debug=true"], "no such flag"),
        (["--vary=records_dir=a,b"], "cannot be varied"),
        (["--vary=validation_from_train=0.1,0.2"], "equally many examples"),
        (["--vary=decay_epochs=1,2"], "holds a list"),
        (["--seed=1", "--vary=seed=2"], "--seed: it is varied twice"),
        (["--seed=1,x"], "--seed: 'x'"),
        (["--learning_rate=nan"], "--learning_rate: 'nan' .no finite number"),
        (["--learning_rate=0.1,"], "--learning_rate: ''"),
        (["--vary=momentum=none"], "--momentum: 'none'"),
    ],
)
def test_flags_that_cannot_be_varied(base, arguments, words):
    with pytest.raises(OptionError, match=words):
        varied(base, *arguments)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--epoch=3", "there is no flag --epoch. Did you mean --epochs"),
        ("--epochs=three", "epochs"),
        ("epochs", "'epochs' is no flag"),
    ],
)
def test_a_base_that_is_no_flag_file(base, text, words):
    base.write_text(f"{text}\n")
    with pytest.raises(OptionError, match=f"base.flags, line 1: .*{words}"):
        sweep.training_flags(str(base), "records")


def test_a_base_without_records(base):
    with pytest.raises(OptionError, match="neither it nor the base names records"):
        sweep.training_flags(str(base), None)
    base.write_text(f"{BASE}--records_dir=records/own\n")
    assert sweep.training_flags(str(base), None).records_dir == "records/own"


def test_the_plan_holds_the_base_and_the_point(base):
    base.write_text(f"{BASE}--dropout=0.3\n--overwrite\n--run_dir=runs/a\n--nonesterov\n")
    points = grid.expand({"learning_rate": [0.5], "nesterov": [True], "dropout": [None], "seed": [3]})
    (planned,) = sweep.make_plan(str(base), "records", "runs/s", points)
    options = planned.options
    assert options.run_dir == os.path.join("runs/s", "lr=0.5,nesterov=true,dropout=none,seed=3")
    assert (options.optimizer.learning_rate, options.optimizer.nesterov, options.seed) == (0.5, True, 3)
    assert options.dropout is None and options.batch_size == 8 and not options.overwrite
    lines = planned.flags_text.splitlines()
    assert {"--learning_rate=0.5", "--nesterov=true", "--seed=3", "--records_dir=records", "--model=tiny"} <= set(lines)
    assert not any(line.startswith(("--dropout", "--run_dir", "--overwrite", "--resume")) for line in lines)


def test_a_combination_that_training_refuses_names_its_run(base):
    points = grid.expand({"learning_rate": [0.5, -1.0]})
    with pytest.raises(OptionError, match="run lr=-1: learning_rate: -1.0"):
        sweep.make_plan(str(base), "records", "runs/s", points)


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Stands for Python: a script that is called as launch.train would be."""

    def write(body):
        path = tmp_path / "python"
        path.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{body}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sweep.sys, "executable", str(path))
        shown, log = [], tmp_path / "log"

        def go(mode=sweeps.NEW, stop=lambda: False):
            planned = grid.PlannedRun({"seed": 1}, TrainingOptions("records", str(tmp_path / "run")), "")
            problem = sweep.train_in_process(planned, mode, log, tmp_path / "flags", show=shown.append, stop=stop)
            return problem, shown, log.read_text()

        return go

    return write


def test_a_run_is_a_process_with_its_log(child, tmp_path):
    go = child("print(*sys.argv[1:]); print('epoch 1', flush=True); print('no line end', end='')")
    problem, shown, log = go(sweeps.RESUME)
    assert problem == ""
    command = f"-m launch.train --flagfile={tmp_path / 'flags'} --run_dir={tmp_path / 'run'} --resume"
    assert shown == [command, "epoch 1", "no line end"] and log == f"$ {command}\n{command}\nepoch 1\nno line end"
    _, _, log = go(sweeps.NEW)
    assert log.count("$ ") == 2 and log.count("--resume") == 2 and "--overwrite" not in log


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("print('epoch 1'); print('launch.train: error: a: b', file=sys.stderr); print('later'); sys.exit(2)", "a: b"),
        ("print('Traceback'); print('Segmentation'); sys.exit(1)", "Segmentation"),
        ("sys.exit(3)", "its process ended with code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL, perhaps by the system for want of memory"),
    ],
)
def test_the_last_error_line_is_told(child, body, problem):
    assert problem in child(body)()[0]


def test_a_signal_is_passed_on_once_and_the_checkpoint_waited_for(child):
    go = child(
        "heard = []\n"
        "signal.signal(signal.SIGTERM, lambda *a: heard.append(1))\n"
        "print('ready', flush=True)\n"
        "while not heard: time.sleep(0.01)\n"
        "time.sleep(0.7)\n"
        "print('saved', len(heard), 'own group', os.getpgid(0) == os.getpid())\n"
        "sys.exit(143)"
    )
    started = time.monotonic()
    problem, shown, _ = go(stop=lambda: time.monotonic() - started > 0.5)
    assert problem == "saved 1 own group True" and shown[0] == "ready"


def test_a_fault_of_the_sweep_ends_the_run_too(child, tmp_path):
    go = child(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); print('x', flush=True); time.sleep(60)")

    def stop():
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        go(stop=stop)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_mistakes_are_one_line_before_tensorflow_is_asked_for(base, tmp_path):
    where = [f"--base={base}", f"--sweep_dir={tmp_path / 's'}"]
    assert_one_line_error(launch("sweep", *where, "--records_dir=r", "--vary=bogus=1"), "no such flag")
    assert_one_line_error(launch("sweep", *where, f"--records_dir={tmp_path / 'r'}", "--seed=1"), "no such folder")
    assert not (tmp_path / "s").exists()


def test_help_says_what_base_is():
    result = launch("sweep", "--help")
    assert result.returncode == 0 and "not given as --flagfile" in result.stdout and "default:" in result.stdout


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    from tfrecords_builder import build
    from tfrecords_builder.splits import split as splits
    from tfrecords_builder.synthetic import archives

    folder = tmp_path_factory.mktemp("generated")
    source = archives.write_eurosat_archive(folder / "rgb.zip", kind="rgb", patches_per_class=6)
    split = splits.SplitOptions(seed=1, val_fraction=0.2)
    build.build(build.BuildOptions("eurosat_rgb", str(source), str(folder / "records"), split))
    return folder / "records"


@pytest.mark.slow
def test_a_sweep_from_the_command_to_the_table(base, records, tmp_path):
    folder = tmp_path / "s"
    arguments = (f"--base={base}", f"--records_dir={records}", f"--sweep_dir={folder}", "--seed=1")
    dry = launch("sweep", *arguments, "--learning_rate=0.01,0.02", "--dry_run")
    assert dry.returncode == 0 and "2 runs fit, nothing was written" in dry.stdout and not folder.exists()
    result = launch("sweep", *arguments, "--learning_rate=0.01,0.02")
    assert result.returncode == 0 and result.stderr == "", result
    assert "run 2 of 2: lr=0.02,seed=1" in result.stdout and "  epoch   1: loss" in result.stdout
    assert "never by the test split" in result.stdout and "next: python -m launch.evaluate" in result.stdout
    content = json.loads((folder / state.JSON_NAME).read_text())
    for run in content["runs"]:
        assert run["status"] == state.FINISHED
        with open(folder / run["name"] / "history.csv") as file:
            (row,) = csv.DictReader(file)
        assert run["score"] == float(row["val_accuracy"]) and run["loss"] == float(row["val_loss"])
        assert "epoch   1" in (folder / state.LOGS_DIR / f"{run['name']}.log").read_text()
    assert (folder / report.FIGURE_NAME).stat().st_size > 10_000
    models = {name: (folder / name / "model.keras").stat().st_mtime_ns for name in ("lr=0.01,seed=1", "lr=0.02,seed=1")}
    # A run that ends with an error is reported, and finished runs stay as they are.
    again = launch("sweep", *arguments, "--learning_rate=0.01,0.02,1e30")
    assert again.returncode == 2 and "1 of 3 runs: failed, the first of them lr=1e+30,seed=1: step 2" in again.stderr, (
        again
    )
    assert "runs:   3 (2 finished, 1 waiting)" in again.stdout
    for name, changed in models.items():
        assert pathlib.Path(folder / name / "model.keras").stat().st_mtime_ns == changed
