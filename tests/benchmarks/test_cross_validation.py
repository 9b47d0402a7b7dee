import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import cross_validation, harness
from benchmarks.cross_validation import Pooled
from eo_keras.metrics.predictions import ClassPredictions
from tfrecords_builder.synthetic import archives

CLASSES = tuple("abcdefghij")


def pooled(correct, blocks):
    """Predictions of which some are correct."""
    labels = np.arange(len(correct)) % len(CLASSES)
    chosen = np.where(correct, labels, (labels + 1) % len(CLASSES))
    probabilities = np.full((len(correct), len(CLASSES)), 0.05, np.float32)
    probabilities[np.arange(len(correct)), chosen] = 0.55
    return Pooled(
        ClassPredictions(labels, probabilities, tuple(map(str, range(len(correct))))), CLASSES, np.asarray(blocks)
    )


def test_blocks_that_agree_widen_the_interval():
    rng = np.random.default_rng(0)
    of_block = rng.random(50) < 0.8
    blocks = np.repeat(np.arange(50), 20)
    alike = cross_validation.interval(of_block[blocks].astype(float), blocks)
    apart = cross_validation.interval((rng.random(1000) < 0.8).astype(float), blocks)
    # 20 patches that are all correct or all incorrect count as one: the square root of 20 is 4.5.
    assert 3.5 < (alike[1] - alike[0]) / (apart[1] - apart[0]) < 5.5
    assert apart[1] - apart[0] == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 1000), rel=0.2)


def test_gains_are_paired():
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 60, 600)
    blocks[:60] = np.arange(60)
    first = rng.random(600) < 0.6
    second = first | (rng.random(600) < 0.25)
    found = cross_validation.score({"RGB": pooled(first, blocks), "all": pooled(second, blocks)})
    assert "gain" not in found["RGB"] and found["RGB"]["accuracy"] == first.mean()
    assert found["all"]["gain"] == pytest.approx(second.mean() - first.mean())
    assert 0 < found["all"]["gain_low"] < found["all"]["gain"] < found["all"]["gain_high"]
    # The interval of the gain is narrower than two independent ones would make it.
    width = found["all"]["gain_high"] - found["all"]["gain_low"]
    assert width < found["RGB"]["accuracy_high"] - found["RGB"]["accuracy_low"]
    assert found["all"]["blocks"] == 60 and found["all"]["patches"] == 600


def test_predictions_of_other_patches_are_no_pairs():
    correct = np.ones(20, bool)
    with pytest.raises(harness.MeasurementError, match="other patches"):
        other = pooled(correct, range(20))
        other = Pooled(
            ClassPredictions(other.predictions.labels, other.predictions.probabilities, ("x",) * 20),
            CLASSES,
            other.blocks,
        )
        cross_validation.score({"RGB": pooled(correct, range(20)), "all": other})


def test_a_block_is_a_square_of_land():
    # Twice 0.2 degrees north of Darmstadt, 22.2 km each: of blocks of 20 km, never the same one again.
    degrees = np.array([[8.65, 49.87], [8.65, 50.07], [8.65, 50.27], [8.6501, 49.8701]])
    blocks = cross_validation.blocks_of(degrees, 20)
    assert len(np.unique(blocks[:3], axis=0)) == 3
    assert (np.abs(np.diff(blocks[:3, 1])) <= 2).all() and (blocks[0] == blocks[3]).all()


@pytest.mark.slow
def test_every_patch_is_predicted_once_and_a_second_call_does_nothing_again(tmp_path):
    source = archives.write_eurosat_archive(tmp_path / "ms.zip", kind="ms", patches_per_class=8)
    training = tmp_path / "training.flags"
    training.write_text("--model=resnet14\n--epochs=1\n--warmup_epochs=0\n--batch_size=16\n--validation_from_train=0\n")
    words = [sys.executable, "-m", "benchmarks.cross_validation", f"--source={source}", "--folds=2", "--bands=RGB,all"]
    words += [f"--training_flags={training}", f"--work_dir={tmp_path / 'work'}", f"--output={tmp_path / 'found.json'}"]
    words += ["--block_km=5"]
    first = subprocess.run(words, cwd=harness.ROOT, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("training") == 4 and first.stdout.count("evaluation") == 4
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["bands"]["RGB"]["patches"] == found["bands"]["all"]["patches"] == 80
    second = subprocess.run(words, cwd=harness.ROOT, capture_output=True, text=True)
    assert second.returncode == 0 and "training" not in second.stdout
    assert json.loads((tmp_path / "found.json").read_text()) == found
