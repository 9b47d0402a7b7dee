"""The pages on results: made of the files, repeatable, and agreeing with README and flag files."""

import json
import shutil

import pytest

from benchmarks import harness, kept_runs, report
from eo_keras.metrics.scores import Scores

FOLDER = report.DOCS / "results"
MAPS = kept_runs.runs_of(FOLDER / "maps")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FOLDER, tmp_path / "results")


def add_run(folder, name, accuracy):
    """A run like one that is there, but for its accuracy."""
    shutil.copytree(FOLDER / "eurosat_rgb_resnet50_scratch", folder / name)
    path = folder / name / "metrics.json"
    content = json.loads(path.read_text())
    content["scores"]["accuracy"] = accuracy
    path.write_text(json.dumps(content))


def cells(folder, measured=None, **row):
    """The table's cells of one figure to reach, of a plan with one row."""
    row = {"name": "row", "title": "the figure", "best_known": "98%", "reach": 0.986, **row}
    plan = {"title": "A plan", "seeds": [3], "scores": ["accuracy"], "rows": [row]}
    place = folder / "campaigns" / "aplan"
    place.mkdir(exist_ok=True)
    (place / "plan.json").write_text(json.dumps(plan))
    if measured is not None:
        evaluations = {"test": {"accuracy": {"mean": measured, "values": [measured], "low": 0.9, "high": 0.99}}}
        (place / "results.json").write_text(json.dumps({"rows": [{"name": "row", "evaluations": evaluations}]}))
    (line,) = (line for line in report.accuracy_page(folder).splitlines() if line.startswith("| the figure |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_pages_are_what_the_files_say():
    assert (report.DOCS / "results.md").read_text() == report.results_page(FOLDER)
    assert (report.DOCS / "accuracy.md").read_text() == report.accuracy_page(FOLDER)


def test_every_run_can_be_repeated_and_another_number_shows(folder):
    runs = kept_runs.runs_of(folder)
    assert len(runs) == 3 and len(MAPS) == 2
    text = report.results_page(folder)
    for run in runs:
        assert f"--flagfile=docs/results/{run.name}/flags.txt" in text and "model" in run.flags
        assert f"**{run.scores.value('accuracy'):.2%}**" in text and run.metrics["split"] == "test"
    for run in MAPS:
        assert f"--flagfile=docs/results/maps/{run.name}/flags.txt" in text
    path = runs[0].folder / "metrics.json"
    path.write_text(path.read_text().replace(repr(runs[0].scores.value("accuracy")), "0.1234"))
    assert "12.34%" in report.results_page(folder)


def test_results_of_the_present_layout_give_the_same_page(folder):
    before = report.results_page(folder), report.accuracy_page(folder)
    for run in (*kept_runs.runs_of(folder), *kept_runs.runs_of(folder / "maps")):
        for path in run.folder.glob("metrics*.json"):
            content = json.loads(path.read_text())
            path.write_text(json.dumps(content | Scores.read(content).to_json()))
    assert (report.results_page(folder), report.accuracy_page(folder)) == before


@pytest.mark.parametrize("run", MAPS, ids=lambda run: run.name)
def test_scores_of_tiles_stand_on_the_page_in_readme_and_in_the_flag_file(run):
    text = report.results_page(FOLDER)
    miou = run.scores["miou"]
    numbers = [f"{value:.4f}" for value in (miou.value, miou.low, miou.high)]
    assert f"**{numbers[0]}** ({numbers[1]} to {numbers[2]})" in text
    for name, values in run.scores.by_class.items():
        assert f"| {name} | {values['support']:,} | {values['iou'].value:.4f} |" in text
    flags = next((harness.ROOT / "launch" / "flagfiles").rglob(f"{run.name}.flags")).read_text()
    comment = " ".join(line.removeprefix("# ") for line in flags.splitlines() if line.startswith("#"))
    readme = (harness.ROOT / "README.md").read_text()
    assert all(number in comment and number in readme for number in numbers)
    # The run had the flags of the flag file.
    given = dict(line[2:].split("=", 1) for line in flags.splitlines() if line.startswith("--"))
    given.pop("warmup_epochs", None)
    assert {name: run.flags[name] for name in given} == given


def test_a_threshold_stands_beside_the_network_with_the_command_that_repeats_it():
    (run,) = (run for run in MAPS if run.name == "ombria_deeplab_resnet14")
    found = json.loads((run.folder / "threshold.json").read_text())
    scores, text = Scores.read(found), report.results_page(FOLDER)
    assert found["data_fingerprint"] == run.metrics["data_fingerprint"]
    assert f"IoU of Flooded {scores.value('iou', 'Flooded'):.4f} (" in text
    assert f"mIoU {scores.value('miou'):.4f} (" in text and "kept epoch 20: the last one." in text
    assert "benchmarks.pixel_threshold --records_dir=records/ombria --output=docs/results/maps/ombria" in text
    assert f"{scores.value('miou'):.4f}" in (harness.ROOT / "README.md").read_text()


def test_a_work_is_shown_with_its_ratio_and_versions_and_what_was_kept(folder):
    text = report.results_page(folder)
    assert "a scene of 10980x10980, 13 bands" in text and "0.61 GB" in text and "4,930 polygons" in text
    path = folder / "tile_building.json"
    content = json.loads(path.read_text())
    sides = content["works"]["tiles"]["sides"]
    sides[harness.OURS] |= {"ratio": {"median": 40.0, "low": 30.0, "high": 50.0}, "rates": [1.0]}
    sides[harness.PEER] |= {"rates": [1.0], "runs": [{"versions": {"torchgeo": "9.9"}}]}
    del content["memory"]
    path.write_text(json.dumps(content))
    section = report.results_page(folder).partition("## Building tiles")[2].partition("## ")[0]
    assert "40.00 (30.00 to 50.00)" in section and "torchgeo 9.9." in section and "0.61 GB" not in section
    assert "The commands and every run are in [tile_building.json]" in section
    assert "The figures are in [dense_step.json]" in text
    assert "26.8 M and 26.7 M parameters" in text


def test_targets_are_listed_with_their_outcome(folder):
    path = folder / "train_step.json"
    content = json.loads(path.read_text())
    side = content["works"]["resnet50_float32_keras"]["sides"][harness.OURS]
    for median, outcome in ((0.97, "0.970 times, target 0.97 reached."), (0.9694, "0.969 times, target 0.97 missed.")):
        side["ratio"]["median"] = median
        path.write_text(json.dumps(content))
        what = "* resnet50 in float32, 64x64 pixels, batches of 64: launch.train beside Keras: "
        assert what + outcome in report.results_page(folder)


def test_speed_is_shown_with_its_targets_and_versions(folder):
    run = {"examples": 10, "seconds": 2, "versions": {"torchgeo": "0.8.1"}}
    side = {"title": "a", "rates": [5.0], "median": 5.0, "low": 5.0, "high": 5.0, "runs": [run]}
    ratio = {"median": 0.5, "low": 0.4, "high": 0.6}
    sides = {harness.OURS: side | {"ratio": ratio, "target": 1}, harness.PEER: side}
    sources = {"rgb": {"name": "EuroSAT_RGB.zip", "files": 27000, "copies": 1}}
    content = {
        "runs": 1,
        "cache": "warm",
        "sources": sources | {"ms": {"name": "part.zip", "files": 10, "copies": 3}},
        "machine": harness.machine(),
        "works": {"ms_build": {"title": "the work", "unit": "images/s", "timed": "inside", "sides": sides}},
    }
    (folder / "speed.json").write_text(json.dumps(content))
    text = report.results_page(folder)
    assert "0.50 (0.40 to 0.60) | 1 (missed) |" in text and "torchgeo 0.8.1" in text
    assert "`part.zip` (10 GeoTIFFs, repeated 3 times" in text
    assert "python -m benchmarks.speed --rgb_source=data/EuroSAT_RGB.zip --ms_source=data/part.zip " in text


def test_sections_without_files_are_left_out(folder):
    for name in ("maps", "leaks", "input", "campaigns"):
        shutil.rmtree(folder / name)
    for path in folder.glob("*.json"):
        if path.stem != "published":
            path.unlink()
    (folder / "earlier.md").unlink()
    text = report.results_page(folder)
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## EuroSAT"]


def test_runs_made_before_a_plan_are_there():
    plans = [json.loads(path.read_text()) for path in FOLDER.glob("campaigns/*/plan.json")]
    named = {name for plan in plans for row in plan["rows"] for name in row.get("earlier", ())}
    assert named and named <= {run.name for run in kept_runs.runs_of(FOLDER)}


def test_open_missed_reached_and_the_goal(folder):
    assert cells(folder)[2:] == ["98.60%", "", "open"]
    assert cells(folder, reach=None)[2:] == ["", "", "open"]
    assert cells(folder, best_known="")[1:] == ["", "98.60%", "", "open"]
    add_run(folder, "a", 0.98594)
    assert cells(folder, earlier=["a"])[3:] == ["**98.59%** (96.44% to 97.35%)", "missed; 1 of 2 seeds open"]
    both = cells(folder, 0.9864, earlier=["a"])
    assert both[3:] == ["**98.62%**, mean of 2 seeds (98.59%, 98.64%)", "reached"]
    assert cells(folder, 0.9864, goal=0.99)[2:] == [
        "98.60%, the goal 99.00%",
        "**98.64%** (90.00% to 99.00%)",
        "reached",
    ]
    assert cells(folder, 0.9903, goal=0.99)[-1] == "goal reached"
    assert cells(folder, 0.9903, reach=None)[2::2] == ["", "measured"]


def test_recipes_stand_with_their_validation_the_best_first_and_what_repeats_them(folder):
    shutil.rmtree(folder / "sweeps", ignore_errors=True)
    assert "How recipes were chosen" not in report.accuracy_page(folder)
    place = folder / "sweeps" / "one"
    place.mkdir(parents=True)
    (place / "flags.txt").write_text("--model=compact\n--learning_rate=0.05\n--ema=0.9\n")
    (place / "text.md").write_text("Few epochs.\n")

    def sweep(name, varied, *settings):
        numbers = {"finished": 2, "score_sd": 0.001, "loss": 0.25, "minutes": 3.0}
        content = {
            "validation": "a tenth",
            "varied": varied,
            "settings": [{"values": values, "score": score, **numbers} for values, score in settings],
            "runs": [{"settings": values | {"seed": seed}} for seed in (1, 2) for values, _ in settings],
        }
        (place / f"{name}.json").write_text(json.dumps(content))

    rate = "learning_rate"
    sweep("a", [rate, "seed"], ({rate: 0.05}, 0.9), ({rate: 0.1}, 0.95))
    sweep("b", ["ema", "head_epochs"], ({"ema": 0.9, "head_epochs": None}, 0.9), ({"ema": 0, "head_epochs": 1}, 0.8))
    text = report.accuracy_page(folder).partition("## How recipes were chosen")[2]
    assert [line for line in text.splitlines() if line.startswith("| ")][2:] == [
        "| `--learning_rate=0.1` | 2 | 95.00% ± 0.10% | 0.2500 | 3.0 |",
        "| as the base | 2 | 90.00% ± 0.10% | 0.2500 | 3.0 |",
        "| `--ema=0` `--head_epochs=1` | 2 | 80.00% ± 0.10% | 0.2500 | 3.0 |",
    ]
    assert "Few epochs." in text and "Validation examples: a tenth." in text
    base = "python -m launch.sweep --base=docs/results/sweeps/one/flags.txt --sweep_dir=runs/one-"
    assert f"{base}a --vary=learning_rate=0.05,0.1 --vary=seed=1,2" in text
    assert f"{base}b --vary=ema=0.9,0 --vary=head_epochs=none,1" in text


def test_the_flag_files_and_the_readme_say_what_was_measured():
    texts = {path.stem: path.read_text() for path in (harness.ROOT / "launch" / "flagfiles").rglob("*.flags")}
    runs = [run for run in kept_runs.runs_of(FOLDER) if run.name in texts]
    assert {run.name for run in runs} >= {"eurosat_rgb_compact_scratch", "eurosat_rgb_resnet50_scratch"}
    for run in runs:
        accuracy = run.scores["accuracy"]
        figures, where = [f"{value:.2%}" for value in (accuracy.value, *accuracy.ends)], [texts[run.name]]
        if run.name == "eurosat_rgb_compact_scratch":
            where.append((harness.ROOT / "README.md").read_text())
            figures.append(f"{run.variants['d4'].value('accuracy'):.2%}")
        for text in where:
            assert all(figure.rstrip("%") in text for figure in figures)
            assert f"{run.hours:.1f} hours" in text.replace("\n# ", " ")
        for line in texts[run.name].splitlines():
            if line.startswith("--"):
                name, value = line.removeprefix("--").split("=")
                # A whole number of epochs is written as 2.0.
                assert run.flags[name].removesuffix(".0") == value


def figures_of(evaluations, value="mean"):
    """Accuracy in per cent with its interval, and what it is averaged over the symmetries of the square."""
    plain, averaged = (evaluations[name]["accuracy"] for name in ("test", "test-d4"))
    return [f"{100 * one:.2f}" for one in (plain[value], plain["low"], plain["high"], averaged[value])]


def test_the_flag_file_of_the_campaign_says_what_it_measured():
    campaign = FOLDER / "campaigns" / "eurosat"
    text = (harness.ROOT / "launch" / "flagfiles" / "eurosat_rgb_lite0_imagenet.flags").read_text()
    flags = [line for line in text.splitlines() if line.startswith("--")]
    assert flags == [*(campaign / "flags.txt").read_text().splitlines(), "--seed=1"]
    rows = {one["name"]: one for one in json.loads((campaign / "results.json").read_text())["rows"]}
    row, whole = rows["lite0"], rows["lite0_whole"]
    run = next(one for one in row["runs"] if one["seed"] == 1)
    assert all(figure in text for figure in figures_of(run["evaluations"], "value"))
    assert f"{figures_of(row['evaluations'])[0]} % in the mean of seeds 1 to {len(row['runs'])}" in text
    assert f"{run['seconds'] / 3600:.1f} hours" in text
    mean = figures_of(whole["evaluations"])[0]
    assert f"--validation_from_train=0, which trains on all and keeps the last epoch, {mean} %" in text


def test_the_readme_says_what_the_campaign_measured():
    rows = json.loads((FOLDER / "campaigns" / "eurosat" / "results.json").read_text())["rows"]
    rows = {row["name"]: row for row in rows}
    readme = (harness.ROOT / "README.md").read_text()
    for name, cores in {"lite0_whole": "one core", "lite0_spatial": "one core", "resnet50_lists": "two cores"}.items():
        value, low, high, averaged = figures_of(rows[name]["evaluations"])
        text = f"{value} % ({low} to {high}), averaged over the symmetries of the square {averaged} %"
        assert text in readme and f"{rows[name]['hours']:.1f} hours on {cores}" in readme
    assert f"compact from random weights {figures_of(rows['compact_spatial']['evaluations'])[0]} %" in readme


def test_the_readme_says_what_few_labels_gave():
    rows = json.loads((FOLDER / "campaigns" / "few_labels" / "results.json").read_text())["rows"]
    found = {row["name"]: f"{100 * row['evaluations']['test']['accuracy']['mean']:.2f} %" for row in rows}
    readme = (harness.ROOT / "README.md").read_text()
    for network in ("lite0", "compact"):
        assert ", ".join(found[f"{network}_{count}"] for count in (10, 100, 500)) in readme
