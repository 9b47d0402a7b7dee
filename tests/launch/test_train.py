"""The workflow from records to scores as a user runs it: each command a process of its own."""

import csv
import json
import pathlib

import pytest
from absl import flags

from eo_keras import models
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.training.options import TrainingOptions
from launch import options as launch_options
from launch import train
from tests.launch.commands import assert_one_line_error, launch
from tfrecords_builder import build
from tfrecords_builder.splits import split as splits
from tfrecords_builder.synthetic import archives

FLAGFILES = pathlib.Path(train.__file__).parent / "flagfiles"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    source = archives.write_eurosat_archive(folder / "rgb.zip", kind="rgb", patches_per_class=10)
    split = splits.SplitOptions(seed=1, val_fraction=0.2)
    build.build(build.BuildOptions("eurosat_rgb", str(source), str(folder / "records"), split))
    return folder / "records"


@pytest.fixture(scope="module")
def trained(records, tmp_path_factory):
    """A run, and what the command printed."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    flagfile = folder.parent / "experiment.flags"
    flagfile.write_text(
        "# A comment is allowed.\n--model=tiny\n--batch_size=12\n--epochs=2\n--optimizer=adamw\n"
        "--learning_rate=0.001\n--weight_decay=0.05\n--schedule=piecewise\n--decay_epochs=1,1.5\n--nodihedral\n"
        "--progressive_sizes=32\n--progressive_epochs=1\n--warmup_epochs=0.5\n--deterministic\n"
    )
    return folder, launch("train", f"--flagfile={flagfile}", f"--records_dir={records}", f"--run_dir={folder}")


def history(folder):
    with open(folder / runs.HISTORY_NAME) as file:
        return list(csv.DictReader(file))


def test_training_tells_what_it_does(trained):
    folder, result = trained
    assert result.returncode == 0 and result.stderr == "", result
    assert "chosen: the epoch by 20 examples (the split val)" in result.stdout
    assert "epoch   2: loss" in result.stdout and f"next: python -m launch.evaluate --run_dir={folder}" in result.stdout
    words = (folder / runs.FLAGS_NAME).read_text().split()
    assert {"--dihedral=false", "--optimizer=adamw", "--decay_epochs=1,1.5", "--seed=1"} <= set(words)
    assert not any(word.startswith(("--run_dir", "--resume", "--overwrite", "--debug")) for word in words)
    assert model_cards.read_model_card(folder).flags["optimizer"]["decay_epochs"] == [1.0, 1.5]


def test_flags_txt_repeats_the_run_to_the_bit(trained, tmp_path):
    folder, _ = trained
    again = launch("train", f"--flagfile={folder / runs.FLAGS_NAME}", f"--run_dir={tmp_path / 'b'}")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "b" / runs.FLAGS_NAME).read_text() == (folder / runs.FLAGS_NAME).read_text()
    for one, other in zip(history(folder), history(tmp_path / "b"), strict=True):
        for name in ("epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
            assert one[name] == other[name], name
    for one, other in zip(
        runs.open_run(folder).model.get_weights(), runs.open_run(tmp_path / "b").model.get_weights(), strict=True
    ):
        assert (one == other).all()


def test_evaluation_tells_what_chose_the_epoch(trained):
    folder, _ = trained
    result = launch("evaluate", f"--run_dir={folder}")
    assert result.returncode == 0 and result.stderr == "", result
    assert "on the split val; never by the test split" in result.stdout
    scores = json.loads((folder / runs.EVALUATION_DIR / "test" / "metrics.json").read_text())["scores"]
    assert f"accuracy {scores['accuracy']['value']:.2%} (" in result.stdout
    assert model_cards.read_model_card(folder).scores["test"]["accuracy"] == scores["accuracy"]["value"]


def test_mistakes_before_tensorflow_is_asked_for(records, tmp_path):
    run_dir = f"--run_dir={tmp_path / 'r'}"
    assert_one_line_error(launch("train", f"--records_dir={records}"), "--run_dir")
    assert_one_line_error(launch("train", f"--records_dir={records}", run_dir, "--epoch=3"), "'epoch'")
    assert_one_line_error(launch("evaluate", run_dir, "--checkpoint=first"), "--checkpoint")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--progressive_sizes=32,big", "--progressive_epochs=1,1"],
            "--progressive_sizes=32,big: '32,big' is not whole numbers separated by commas",
        ),
        (["--bands=CI"], "does not hold B08"),
        (["--records_dir=/no/such/folder"], "/no/such/folder: there is no such folder"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(records, tmp_path, arguments, words):
    result = launch("train", f"--records_dir={records}", f"--run_dir={tmp_path / 'r'}", *arguments)
    assert_one_line_error(result, words)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("path", sorted(FLAGFILES.glob("*.flags")), ids=lambda path: path.stem)
def test_every_flag_file_names_its_result_and_can_be_run(path):
    assert path.read_text().startswith("# ")
    values = flags.FlagValues()
    train.define_flags(values)
    values(["train", "--records_dir=r", "--run_dir=r", f"--flagfile={path}"])
    options = launch_options.read(TrainingOptions, values)
    assert options.model in models.MODELS
    if "paper" in path.stem:
        # Phase 1 at 0.01, phase 2 at 1e-3 to 1e-4, RMSProp: facts of the paper and not ours to tune.
        assert (options.weights, options.head_learning_rate, options.head_epochs > 0) == ("imagenet", 0.01, True)
        chosen = options.optimizer
        assert (chosen.optimizer, chosen.learning_rate, chosen.final_lr_fraction) == ("rmsprop", 0.001, 0.1)
