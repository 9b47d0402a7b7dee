"""The simplest mask of two classes finds the rule that the data were made by, and is scored as a network is."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import harness, pixel_threshold
from eo_keras.errors import RecordsError
from tests.harness.archives import rgb_members, write_zip
from tests.harness.building import built
from tests.tfrecords_builder.sources.test_ombria import NAMED, both_sensors, members

BANDS = ("B11", "B08", "B03")


def pixels(seed, count=20_000):
    return np.random.default_rng(seed).integers(1, 200, (count, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("bands", "below", "truth", "value"),
    [
        (("B08",), True, lambda p: p[:, 1] < 60, 60),
        (("B03",), False, lambda p: p[:, 2] >= 120, 120),
        (("B11", "B03"), True, lambda p: pixel_threshold.index(p, [0, 2]) < -0.3, -0.3),
    ],
)
def test_the_rule_that_made_the_labels_is_found(bands, below, truth, value):
    images = pixels(1)
    found = pixel_threshold.fit(images, truth(images).astype(np.uint8), BANDS)
    assert (found.bands, found.below) == (bands, below)
    assert found.value == pytest.approx(value, abs=1 if len(bands) == 1 else 0.003) and found.iou > 0.98
    others = pixels(2)[:, np.newaxis]
    assert np.mean(found(others, BANDS)[:, 0] == truth(others[:, 0])) > 0.99


def test_with_noise_no_other_threshold_is_better():
    images, random = pixels(3, 4000), np.random.default_rng(4)
    labels = ((images[:, 0] < 80) ^ (random.random(4000) < 0.2)).astype(np.uint8)
    found = pixel_threshold.fit(images, labels, BANDS)
    for place, band in enumerate(BANDS):
        for value in range(0, 201, 10):
            for below in (True, False):
                said = pixel_threshold.Threshold((band,), below, value, 0)(images[:, np.newaxis], BANDS)[:, 0]
                assert np.sum(said & labels) / np.sum(said | labels) <= found.iou + 1e-12, (place, value)


def test_the_index_of_nothing_is_0():
    assert pixel_threshold.index(np.zeros((2, 2, 3), np.uint8), [0, 2]).tolist() == [[0, 0], [0, 0]]


def test_the_command_scores_the_test_tiles_alone(tmp_path):
    built("ombria_s2", write_zip(tmp_path / "o.zip", members()), tmp_path / "r", split="published", **NAMED)
    output = tmp_path / "results" / "threshold.json"
    words = ["-m", "benchmarks.pixel_threshold", f"--records_dir={tmp_path / 'r'}", f"--output={output}"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=harness.ROOT)
    assert done.returncode == 0 and "Flooded      IoU 1.0000" in done.stdout, done.stderr
    found = json.loads(output.read_text())
    # The first band alone separates water here, and the scores are those of two tiles without their rows of no data.
    assert found["rule"]["bands"] == ["B11"] and found["rule"]["below"]
    assert found["details"]["images"] == 2 and found["count"] == 2 * 240 * 256
    assert found["by_class"]["Flooded"]["iou"]["value"] == 1.0


def test_of_several_modalities_one_is_taken(tmp_path):
    built("ombria", write_zip(tmp_path / "o.zip", both_sensors()), tmp_path / "r", sar_band="VV", **NAMED)
    found = {name: pixel_threshold.measure(tmp_path / "r", name) for name in (None, "s2", "s1")}
    assert found["s2"]["rule"]["bands"] == ("B11",) and found["s1"]["rule"]["bands"] == ("VV",)
    assert found[None]["rule"] == found["s2"]["rule"] and found["s1"]["modality"] == "s1"
    # Where s2 has no data, which s1 has, the prediction is dry land, as the mask says.
    assert found["s2"]["by_class"]["Flooded"]["iou"]["value"] == 1.0 and found["s2"]["count"] == 2 * 256 * 256
    with pytest.raises(RecordsError, match="there is no modality height; expected one of s2, s2_before, s1, s1_before"):
        pixel_threshold.measure(tmp_path / "r", "height")
    assert not pixel_threshold.records.has_data(np.array([[np.nan, 1.0]], np.float32)).any()


def test_records_of_patches_are_refused(tmp_path):
    built("eurosat_rgb", write_zip(tmp_path / "e.zip", rgb_members(per_class=4)), tmp_path / "r")
    with pytest.raises(RecordsError, match="classification, 10 classes; expected tiles of two"):
        list(pixel_threshold.tiles(tmp_path / "r", "test"))
