"""The sections on maps and tiles: made of the files, and agreeing with what README and flag files say."""

import json
import pathlib

import pytest

from benchmarks import results_maps
from eo_keras.core.options import with_present_names
from eo_keras.training.options import TrainingOptions

ROOT = pathlib.Path(__file__).parents[2]
MAPS = sorted((ROOT / "docs" / "results" / "maps").glob("*/metrics.json"))


@pytest.mark.parametrize("path", MAPS, ids=lambda path: path.parent.name)
def test_readme_and_flag_file_say_what_was_measured(path):
    mean = json.loads(path.read_text())["scores"]["macro_iou"]
    told = [f"{mean[name]:.4f}" for name in ("value", "low", "high")]
    flags = (ROOT / "launch" / "flagfiles" / f"{path.parent.name}.flags").read_text()
    comment = " ".join(line.removeprefix("# ") for line in flags.splitlines() if line.startswith("#"))
    assert all(number in comment for number in told), comment
    assert all(number in (ROOT / "README.md").read_text() for number in told)
    # What the flag file says is what the run was told.
    given = dict(line[2:].split("=", 1) for line in flags.splitlines() if line.startswith("--"))
    ran = dict(
        line[2:].split("=", 1) for line in (path.parent / "flags.txt").read_text().splitlines() if line.startswith("--")
    )
    ran = with_present_names(TrainingOptions, ran)
    assert {name: ran[name] for name in given if name not in ("warmup_epochs",)} == {
        name: value for name, value in given.items() if name not in ("warmup_epochs",)
    }


def test_the_page_holds_the_scores_of_the_files():
    lines = "\n".join(results_maps.section(ROOT / "docs" / "results"))
    for path in MAPS:
        scores = json.loads(path.read_text())["scores"]
        assert f"**{scores['macro_iou']['value']:.4f} (" in lines
        for item in scores["classes"]:
            assert f"| {item['name']} | {item['support']:,} | {item['iou']['value']:.4f} |" in lines


def test_a_threshold_is_told_beside_the_network_and_how_to_repeat_it():
    folder = ROOT / "docs" / "results" / "maps" / "ombria_deeplab_resnet14"
    found = json.loads((folder / "threshold.json").read_text())
    lines = "\n".join(results_maps.section(ROOT / "docs" / "results"))
    assert found["data_fingerprint"] == json.loads((folder / "metrics.json").read_text())["data_fingerprint"]
    assert f"IoU of Flooded {found['scores']['classes'][1]['iou']['value']:.4f} (" in lines
    assert f"mIoU {found['scores']['macro_iou']['value']:.4f} (" in lines and "kept epoch 20, the last one." in lines
    assert "benchmarks.pixel_threshold --records_dir=records/ombria --output=docs/results/maps/ombria" in lines
    # What is said of the threshold elsewhere.
    assert f"{found['scores']['macro_iou']['value']:.4f}" in (ROOT / "README.md").read_text()


def test_a_page_without_results_has_no_sections(tmp_path):
    assert results_maps.section(tmp_path) == []


def test_tiles_and_steps_are_told_with_their_ratios(tmp_path):
    spread = {"median": 2.0, "low": 1.5, "high": 2.5}
    machine = {"processor": "P", "cores": 2, "memory_gib": 8.0, "system": "Linux", "python": "3.11", "versions": {}}
    speed = {
        "scene": "4096x4096, 3 bands",
        "polygons": 1234,
        "tile_size": 256,
        "workers": 2,
        "tiles": 256,
        "tiles_per_second": spread,
        "torchgeo_tiles_per_second": spread,
        "ratio": {"median": 40.0, "low": 30.0, "high": 50.0},
        "torchgeo_versions": {"torchgeo": "0.8.1"},
    }
    memory = {
        "scene": "10980x10980, 13 bands, tiled GeoTIFF",
        "scene_bytes": 3_300_000_000,
        "polygons": 99,
        "tile_size": 512,
        "tiles_kept": 370,
        "seconds": 30.0,
        "peak_bytes": 614_000_000,
    }
    (tmp_path / "tile_building.json").write_text(json.dumps({"machine": machine, "speed": speed, "memory": memory}))
    work = {
        "images_per_second": {"ours": spread, "peer": spread},
        "ratio": spread,
        "parameters": {"ours": 26.8e6, "peer": 26.7e6},
        "versions": {"segmentation_models_pytorch": "0.6.0"},
    }
    content = {"machine": machine, "model": "deeplab_resnet50", "size": 256, "batch_size": 4, "works": {"step": work}}
    (tmp_path / "dense_step.json").write_text(json.dumps(content))
    lines = "\n".join(results_maps.section(tmp_path))
    assert "1,234 polygons" in lines and "40.0 (30.0 to 50.0)" in lines and "0.61 GB" in lines
    assert "training step, deeplab_resnet50, 256x256, batch 4 | 2.00 (1.50 to 2.50)" in lines and "26.8 M" in lines
