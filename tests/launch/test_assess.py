"""launch.assess, and launch.evaluate of a map, in this process."""

import json

import numpy as np
import pytest
from absl import flags

from eo_keras.geo.points import points_file, read_points
from eo_keras.mapping import reference_report
from launch import app, assess, evaluate
from tests.harness.class_maps import GRID, NAMES, patches, write_class_map

LABELS = patches()


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a command in a folder with a map; returns its exit code, its output and its errors."""
    monkeypatch.chdir(tmp_path)
    write_class_map("town.tif", LABELS)

    def run(command, *arguments):
        values = flags.FlagValues()
        app.define_flags(values)
        command.define_flags(values)
        monkeypatch.setattr(command, "FLAGS", values)
        return app.exit_code(command.main, ["command", "--map=town.tif", *arguments], values), *capsys.readouterr()

    return run


def fill_in(path, classes):
    """Interprets a sample: each place with the map's class, but for every fifth one."""
    points = read_points(path, "reference_class", others=("map_class",))
    names = points.others["map_class"].astype(object)
    names[::5] = classes[0]
    path.write_bytes(points_file(points.coordinates, {"reference_class": names}, points.crs, "sample", points.metadata))


def test_a_sample_and_its_assessment(run, tmp_path):
    output = tmp_path / "sample.gpkg"
    code, out, _ = run(assess, f"--output={output}", "--dry_run")
    assert code == 0 and f"would write a sample to {output}" in out and not output.exists()
    code, out, err = run(assess, f"--output={output}", "--sample=120", "--seed=2")
    assert code == 0 and f"{output}: 120 places; fill in the field reference_class" in out, err
    assert "  launch.assess --map=town.tif --interpreted=" in out.replace("python -m", " ")
    drawn = output.read_bytes()
    # Its own file is replaced, an interpreted one is not.
    assert run(assess, f"--output={output}", "--sample=120", "--seed=2")[0] == 0 and output.read_bytes() == drawn
    fill_in(output, NAMES)
    code, _, err = run(assess, f"--output={output}")
    assert code == 2 and "it has changed since" in err
    code, out, err = run(assess, f"--interpreted={output}", "--dry_run")
    assert code == 0 and "would write assessment.json" in out
    code, out, err = run(assess, f"--interpreted={output}")
    assert code == 0, err
    assert "Error matrix in proportions of the whole area" in out and "overall accuracy " in out
    content = json.loads((tmp_path / "assessment" / "town" / "assessment.json").read_text())
    assert content["places"] == 120 and content["classes"][0]["name"] == NAMES[0]
    assert 0.7 < content["overall_accuracy"]["low"] < content["overall_accuracy"]["high"] < 1


def test_a_map_against_points(run, tmp_path, monkeypatch):
    monkeypatch.setattr(reference_report, "confusion_matrix_png", lambda *arguments: b"\x89PNG\r\n\x1a\n" + bytes(24))
    rows, columns = np.random.default_rng(1).integers(20, 90, (2, 150))
    names = [NAMES[label] for label in np.where(np.arange(150) % 4, LABELS[rows, columns], 2)]
    places = np.stack(GRID.coordinates(columns + 0.5, rows + 0.5), axis=-1)
    (tmp_path / "points.gpkg").write_bytes(points_file(places, {"kind": names}, GRID.crs, "points", {}))
    words = ("--points=points.gpkg", "--class_field=kind", "--resamples=100")
    code, out, _ = run(evaluate, *words, "--dry_run")
    assert code == 0 and "would write metrics.json" in out and not (tmp_path / "evaluation").exists()
    code, out, err = run(evaluate, *words)
    assert code == 0, err
    folder = tmp_path / "evaluation" / "town-points"
    metrics = json.loads((folder / "metrics.json").read_text())
    accuracy = np.mean([NAMES[label] == name for label, name in zip(LABELS[rows, columns], names, strict=True)])
    assert metrics["scores"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert metrics["kind"] == "points" and metrics["counts"]["scored"] == 150
    assert "user's accuracy" in out and f"overall accuracy {accuracy:.2%} (" in out
    assert (folder / "confusion_matrix.png").is_file()
    page = (folder / "report.html").read_text()
    assert "town.tif against points.gpkg" in page and "producer&#x27;s accuracy" in page


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (evaluate, ["--run_dir=runs/a"], "--run_dir: it does not apply to the evaluation of a map"),
        (evaluate, ["--points=a.gpkg", "--class_field=b", "--split=val"], "--split: it does not apply to the evalu"),
        (evaluate, [], "--points: no reference is given; expected one of --points, --polygons and --raster"),
        (evaluate, ["--points=a.gpkg"], "--class_field: it is not given"),
        (evaluate, ["--points=absent.gpkg", "--class_field=b"], "absent.gpkg: there is no such file"),
        (assess, [], "neither it nor --interpreted is given"),
        (assess, ["--output=a.gpkg", "--interpreted=a.gpkg"], "--output: it is given beside --interpreted"),
        (assess, ["--output=a.gpkg", "--class_table=b"], "--class_table: it does not apply to a new sample"),
        (assess, ["--interpreted=a.gpkg", "--sample=5"], "--sample: it does not apply to an interpreted sample"),
        (assess, ["--output=a.csv"], "--output: a.csv; expected the name of a GeoPackage"),
        (assess, ["--output=a.gpkg", "--sample=3"], "--sample: 3; expected at least 2 for each of the map's 4 classes"),
    ],
)
def test_mistakes_are_one_line(run, command, words, message):
    code, _, err = run(command, *words)
    assert code == 2 and err.count("\n") == 1 and message in err, err


def test_runs_or_a_map(run, capsys, monkeypatch):
    def refused(*words):
        values = flags.FlagValues()
        app.define_flags(values)
        evaluate.define_flags(values)
        monkeypatch.setattr(evaluate, "FLAGS", values)
        assert app.exit_code(evaluate.main, ["evaluate", *words], values) == 2
        return capsys.readouterr().err

    assert "--run_dir: it is not given; expected run folders by --run_dir, or a map by --map" in refused()
    assert "--raster: it does not apply to the evaluation of runs" in refused("--run_dir=a", "--raster=b.tif")
