import json
import shutil

import pytest

from benchmarks import accuracy, measuring, results
from benchmarks.measured import measured
from eo_keras.core.options import with_present_names
from eo_keras.training.options import TrainingOptions

FOLDER = results.DOCS / "results"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FOLDER, tmp_path / "results")


def add_run(folder, name, accuracy_of_it):
    """A run measured like the one that is there, but for its accuracy."""
    shutil.copytree(FOLDER / "eurosat_rgb_resnet50_scratch", folder / name)
    path = folder / name / "metrics.json"
    found = json.loads(path.read_text())
    found["scores"]["accuracy"] = accuracy_of_it
    path.write_text(json.dumps(found))


def rows(folder, **row):
    """The table's cells of one figure."""
    row = {"figure": "the figure", "best_known": "98%", "reach": 0.986, **row}
    (folder / "campaign.json").write_text(json.dumps([row]))
    (line,) = (line for line in accuracy.page(folder).splitlines() if line.startswith("| the figure |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_is_what_the_files_say():
    assert (results.DOCS / "accuracy.md").read_text() == accuracy.page(FOLDER)


def test_every_measured_run_answers_for_a_figure():
    named = {name for row in json.loads((FOLDER / "campaign.json").read_text()) for name in row["runs"]}
    assert {path.parent.name for path in FOLDER.glob("*/metrics.json")} <= named


def test_open_missed_reached_and_the_goal(folder):
    assert rows(folder, runs=["a", "b"])[3:] == ["", "open"]
    add_run(folder, "a", 0.98594)
    assert rows(folder, runs=["a"])[3:] == ["**98.59%** (96.44% to 97.35%)", "missed"]
    assert rows(folder, runs=["a", "b"])[-1] == "missed; 1 of 2 seeds open"
    add_run(folder, "b", 0.9864)
    assert rows(folder, runs=["a", "b"])[3:] == ["**98.62%**, mean of 2 seeds (98.59%, 98.64%)", "reached"]
    assert rows(folder, runs=["b"], goal=0.99)[2:] == [
        "98.60%, the goal 99.00%",
        "**98.64%** (96.44% to 97.35%)",
        "reached",
    ]
    add_run(folder, "c", 0.9903)
    assert rows(folder, runs=["c"], goal=0.99)[-1] == "goal reached"
    assert rows(folder, runs=["c"], reach=None)[2::2] == ["", "measured"]


def test_what_was_tried_is_told_by_its_flags(folder):
    shutil.rmtree(folder / "tried", ignore_errors=True)
    for name, rate in (("a_base", "0.05"), ("b_other", "0.7")):
        (folder / "tried" / name).mkdir(parents=True)
        flags = f"--records_dir=records/{name}\n--optimizer=sgd\n--learning_rate={rate}\n--batch_size=64\n"
        (folder / "tried" / name / "flags.txt").write_text(flags)
        (folder / "tried" / name / "history.csv").write_text(
            f"epoch,seconds,val_accuracy,val_loss\n1,1800,0.5,2\n2,1800,0.{rate[2:]}9,0.25\n"
        )
    text = accuracy.page(folder)
    assert "| a_base |  | 2 whole | 1.0 | 5.90% | 0.2500 |" in text
    assert "| b_other | `--learning_rate=0.7` | 2 whole | 1.0 | 79.00% | 0.2500 |" in text


def test_a_cross_validation_is_shown(folder):
    one = {"patches": 466, "blocks": 90, "accuracy": 0.8, "accuracy_low": 0.75, "accuracy_high": 0.85, "macro_f1": 0.79}
    other = {**one, "accuracy": 0.9, "gain": 0.1, "gain_low": -0.01, "gain_high": 0.2, "over": "RGB"}
    found = {"source": "a.zip", "training_flags": "a.flags", "folds": 5, "block_km": 20, "buffer_km": 1}
    (folder / "cross_validation.json").write_text(json.dumps({**found, "bands": {"RGB": one, "all": other}}))
    text = accuracy.page(folder)
    assert "saw about 372 patches" in text
    assert "| RGB | 80.0% | 75.0% to 85.0% | 79.0% |  |  |" in text
    assert "| all | 90.0% | 75.0% to 85.0% | 79.0% | +10.0% | -1.0% to +20.0% |" in text


def test_the_flag_files_and_the_readme_say_what_was_measured():
    told = {path.stem: path.read_text() for path in (measuring.ROOT / "launch" / "flagfiles").glob("*.flags")}
    runs = [one for one in measured(FOLDER) if one.name in told]
    assert {one.name for one in runs} >= {"eurosat_rgb_compact_scratch", "eurosat_rgb_resnet50_scratch"}
    for one in runs:
        figures = [f"{one.scores[name]:.2%}" for name in ("accuracy", "accuracy_low", "accuracy_high")]
        texts = [told[one.name]]
        if one.name == "eurosat_rgb_compact_scratch":
            texts.append((measuring.ROOT / "README.md").read_text())
            figures.append(f"{one.averaged['accuracy']:.2%}")
        for text in texts:
            assert all(figure.rstrip("%") in text for figure in figures)
            assert f"{one.hours:.1f} hours" in text
        # Runs of before a flag was renamed hold its earlier name.
        ran = with_present_names(TrainingOptions, one.flags)
        for line in told[one.name].splitlines():
            if line.startswith("--"):
                name, value = line.removeprefix("--").split("=")
                # A whole number of epochs is written as 2.0.
                assert ran[name].removesuffix(".0") == value
