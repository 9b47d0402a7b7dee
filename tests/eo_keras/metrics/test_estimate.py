"""Score intervals: published figures, and the share of samples that they hold the truth of."""

import numpy as np
import pytest

from eo_keras.metrics import estimate


@pytest.mark.parametrize(
    ("first", "second", "examples", "low", "high"),
    [
        # Fagerland, Lydersen & Laake 2014, Statistics in Medicine 33(16): 21 children, before and after.
        (1, 7, 21, -0.517, -0.026),
        (6, 16, 161, -0.124, -0.005),
    ],
)
def test_paired_differences_by_tango(first, second, examples, low, high):
    found = estimate.paired_difference(first, second, examples)
    assert found == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))
    turned = estimate.paired_difference(second, first, examples)
    assert turned == (pytest.approx(-found[1]), pytest.approx(-found[0]))


def test_without_a_difference_found_the_interval_is_as_wide_as_the_number_leaves_open():
    low, high = estimate.paired_difference(0, 0, 10)
    assert high == -low == pytest.approx(1.959963985**2 / (10 + 1.959963985**2))
    assert estimate.paired_difference(0, 0, 10_000)[1] < 0.0004
    assert estimate.paired_difference(5, 0, 5)[1] == 1


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
def test_intervals_hold_the_truth_of_95_per_cent_of_samples(share):
    rng, examples = np.random.default_rng(0), 60
    drawn = rng.binomial(examples, share, 4000)
    ends = [estimate.wilson(count / examples, examples) for count in range(examples + 1)]
    assert 0.93 < np.mean([ends[count][0] <= share <= ends[count][1] for count in drawn]) < 0.99
    pairs = rng.multinomial(examples, (share, share / 2, 1 - 1.5 * share), 400).tolist()
    kept = [estimate.paired_difference(first, second, examples) for first, second, _ in pairs]
    assert np.mean([low <= share / 2 <= high for low, high in kept]) > 0.92
