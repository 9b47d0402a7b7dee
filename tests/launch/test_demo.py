import json

import pytest

from tests.launch.commands import launch


@pytest.mark.slow
def test_the_demo_goes_the_whole_way_and_its_network_beats_mean_colours(tmp_path):
    result = launch("demo", f"--output_dir={tmp_path / 'demo'}")
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "demo" / "run" / "evaluation" / "test" / "metrics.json").read_text())
    assert metrics["scores"]["accuracy"]["value"] > 0.9 and metrics["count"] == 400
    baseline = float(result.stdout.rpartition("band means ")[2].partition("%")[0]) / 100
    assert 0.2 < baseline <= 0.7
    assert (tmp_path / "demo" / "serving" / "1" / "saved_model.pb").exists()
    assert len((tmp_path / "demo" / "predictions.csv").read_text().splitlines()) == 201
    maps = json.loads((tmp_path / "demo" / "run_cities" / "evaluation" / "test" / "metrics.json").read_text())["scores"]
    colours = float(result.stdout.rpartition("on colors alone ")[2].partition("%")[0]) / 100
    # In a city that was not seen in training.
    assert maps["miou"]["value"] > 0.6 and maps["accuracy"]["value"] > 0.75 > 0.7 > colours > 0.4
    mapped = json.loads((tmp_path / "demo" / "city_evaluation" / "metrics.json").read_text())["scores"]
    assert mapped["accuracy"]["value"] > 0.75
    names = {path.name for path in (tmp_path / "demo").glob("city*")}
    assert names >= {"city.tif", "city_bands.tif", "city.gpkg", "city_areas.csv", "city.png", "city.html"}
