import csv
import dataclasses

import numpy as np
import pytest

from eo_keras.errors import RunError
from eo_keras.metrics.mask_predictions import MaskPredictions, read_mask_predictions
from eo_keras.metrics.outcomes import PlaceOutcomes
from eo_keras.metrics.segmentation import SegmentationScorer

NAMES = ("Water, deep", "Land")


@pytest.fixture(params=[{}, {"tolerances": (0.5,), "width": 3, "object_class": "Water, deep"}])
def predictions(request):
    scorer, random = SegmentationScorer(NAMES, **request.param), np.random.default_rng(0)
    for key in ("a_1", "a,2", "b"):
        scorer.add(key, random.integers(0, 2, (16, 16)), random.integers(0, 2, (16, 16)))
    return MaskPredictions(scorer, 0.7, {"a_1": "a", "a,2": "a", "b": "b"})


@pytest.mark.parametrize("placed", [True, False])
def test_counts_are_read_back_whole(predictions, placed, tmp_path):
    predictions = predictions if placed else MaskPredictions(predictions.scorer, 0.7)
    scores = predictions.scorer.scores(resamples=50, places=predictions.places, negative_log_likelihood=0.7)
    (tmp_path / "p.csv").write_text(predictions.to_csv())
    found = read_mask_predictions(tmp_path / "p.csv", scores)
    assert (found.keys, found.places, found.cross_entropy) == (predictions.keys, predictions.places, 0.7)
    again = found.scorer.scores(resamples=50, places=found.places, negative_log_likelihood=found.cross_entropy)
    assert again == scores


def test_files_of_one_tolerance_are_read_and_compared(predictions, tmp_path):
    scores = predictions.scorer.scores(resamples=50, negative_log_likelihood=0.7)
    earlier = dataclasses.replace(scores, details={"boundary_tolerance": 2.0})
    counts = ("correct", "true", "predicted", "boundary_predicted", "boundary_predicted_near", "boundary_true")
    columns = ["key", "place", *(f"{name}_{of}" for of in NAMES for name in (*counts, "boundary_true_near"))]
    lines = [columns]
    for key, sums in predictions.scorer.sums.items():
        areas = sums[:3].T.tolist()
        lines.append([key, "", *areas[0], 40, 20, 50, 30, *areas[1], 40, 20, 50, 30])
    with open(tmp_path / "p.csv", "w", newline="") as file:
        csv.writer(file).writerows(lines)
    found = read_mask_predictions(tmp_path / "p.csv", earlier)
    old, new = (PlaceOutcomes.of(one.scorer, resamples=20) for one in (found, predictions))
    np.testing.assert_array_equal(old.truth, new.truth)
    assert found.scorer.scores(resamples=5).value("boundary_f1") == pytest.approx(2 * 0.5 * 0.6 / 1.1)
    for one, other in ((old, new), (new, old)):
        paired = one.paired(other, scores.overall, scores.overall)
        assert {name: each.difference.value for name, each in paired.items()} == {"miou": 0}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda text: text.replace("Land", "Forest"), 1),
        (lambda text: text.replace("\nb,b,", "\nb,b,x"), 4),
        (lambda text: text.rsplit(",", 1)[0] + "\n", 4),
        (lambda text: text.partition("\n")[0] + "\n", 1),
    ],
)
def test_a_damaged_line_is_named(predictions, change, line, tmp_path):
    scores = predictions.scorer.scores(resamples=10, negative_log_likelihood=0.7)
    (tmp_path / "p.csv").write_text(change(predictions.to_csv()))
    with pytest.raises(RunError, match=f"line {line} cannot be read"):
        read_mask_predictions(tmp_path / "p.csv", scores)
