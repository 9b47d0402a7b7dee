"""Stratified estimation: the example of Olofsson et al. 2014, other estimators, and simulated samples."""

import numpy as np
import pytest

from eo_keras.errors import EOKerasError, OptionError
from eo_keras.metrics.area_estimation import allocate, estimate_areas, sample_size

NAMES = ("Deforestation", "Forest gain", "Stable forest", "Stable non-forest")
COUNTS = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]  # Table 8 of the paper.
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
HECTARES = 0.09  # Of a pixel of 30 m.


def test_worked_example():
    """Numbers of section 5.2, as printed but for three, which contradict the paper's own equations.

    The producer's accuracy of forest gain is printed with +-0.23, that of stable non-forest with +-0.01: equation 7
    gives, for instance of forest gain, with proportions 0.0110 of its own stratum and 0.0019846 of the last one,
    P = 0.8472 and 1.96 sqrt((0.015 * 0.1528)^2 * 0.7333 * 0.2667 / 74 + 0.8472^2 * 0.645^2 * (1 / 325) * (324 / 325)
    / 324) / 0.012985 = 0.254. The area of deforestation is 235,086 +- 68,418 pixels, not hectares, and its standard
    error, printed as 34,097 pixels, is 68,418 / 1.96 = 34,907.
    """
    found = estimate_areas(COUNTS, PIXELS * HECTARES, NAMES)
    np.testing.assert_array_equal(
        found.proportions.round(4),
        [
            [0.0176, 0, 0.0013, 0.0011],
            [0, 0.0110, 0.0016, 0.0024],
            [0.0019, 0, 0.2967, 0.0213],
            [0.0040, 0.0020, 0.0179, 0.6212],
        ],
    )
    assert (round(found.overall.value, 2), round(found.overall.half_width, 2)) == (0.95, 0.02)
    assert [(round(one.value, 2), round(one.half_width, 2)) for one in found.users] == [
        (0.88, 0.07),
        (0.73, 0.10),
        (0.93, 0.04),
        (0.96, 0.02),
    ]
    assert [(round(one.value, 2), round(one.half_width, 2)) for one in found.producers] == [
        (0.75, 0.21),
        (0.85, 0.25),
        (0.93, 0.03),
        (0.96, 0.02),
    ]
    areas = [(round(one.value), round(one.half_width)) for one in found.areas]
    assert areas == [(21_158, 6_158), (11_686, 3_756), (285_770, 15_510), (581_386, 16_282)]
    in_pixels = found.areas[0].value / HECTARES, found.areas[0].half_width / HECTARES
    assert [round(number) for number in in_pixels] == [235_086, 68_418]
    first, total = found.areas[0], (PIXELS * HECTARES).sum()
    assert (first.low, first.high) == pytest.approx((first.value - first.half_width, first.value + first.half_width))
    assert sum(one.value for one in found.areas) == pytest.approx(total)


def test_sample_size_and_allocation_of_the_worked_example():
    """Section 5.1.1 and table 5; its mixed allocations are rounded by hand and are not those of its own rule."""
    weights, expected = PIXELS / PIXELS.sum(), (0.70, 0.60, 0.90, 0.95)
    assert sample_size(weights, expected, 0.01) == 641
    assert sample_size(weights, expected, 0.01, pixels=1000) < 641
    assert allocate(641, weights, "proportional").tolist() == [13, 10, 205, 413]
    assert allocate(640, weights, "equal").tolist() == [160] * 4
    assert allocate(640, weights, minimum=75).tolist() == [75, 75, 162, 328]
    # In proportion to weight times deviation: 9.2, 7.3, 96.0 and 140.6.
    optimal = allocate(640, weights, "optimal", minimum=2, expected_accuracies=expected)
    np.testing.assert_allclose(optimal / 640, np.array([9.165, 7.348, 96.0, 140.57]) / 253.08, atol=1.5 / 640)


def by_ratios(counts, weights):
    """Estimates by ratios of stratified means of places' indicators (Stehman 2014), with variances from the places."""
    labels = np.arange(len(weights))
    strata = [np.repeat(labels, row) for row in counts]

    def ratio(part, whole):
        samples = [(weights[k] ** 2, weights[k], part(k, seen) * 1.0, whole(k, seen) * 1.0) for k, seen in strata_of()]
        above = sum(weight * y.mean() for _, weight, y, _ in samples)
        below = sum(weight * x.mean() for _, weight, _, x in samples)
        value = above / below
        variance = sum(square * np.var(y - value * x, ddof=1) / len(y) for square, _, y, x in samples)
        return value, np.sqrt(variance) / below

    def strata_of():
        return [(k, seen) for k, seen in enumerate(strata) if len(seen)]

    def ones(k, seen):
        return np.ones(len(seen))

    overall = ratio(lambda k, seen: seen == k, ones)
    areas = [ratio(lambda k, seen, c=c: seen == c, ones) for c in labels]
    producers = [ratio(lambda k, seen, c=c: (seen == c) & (k == c), lambda k, seen, c=c: seen == c) for c in labels]
    users = [
        ratio(lambda k, seen, c=c: (seen == c) & (k == c), lambda k, seen, c=c: ones(k, seen) * (k == c))
        for c in labels
    ]
    return overall, users, producers, areas


@pytest.mark.parametrize("seed", range(5))
def test_other_estimators_agree(seed):
    random = np.random.default_rng(seed)
    counts = random.integers(1, 30, (4, 4)) + np.diag(random.integers(20, 90, 4))
    areas = random.random(4) * 1000
    found = estimate_areas(counts, areas, NAMES)
    overall, users, producers, shares = by_ratios(counts, areas / areas.sum())

    def pairs(estimates, scale=1.0):
        return [(one.value / scale, one.standard_error / scale) for one in estimates]

    np.testing.assert_allclose(pairs([found.overall]), [overall], rtol=1e-9)
    np.testing.assert_allclose(pairs(found.users), users, rtol=1e-9)
    np.testing.assert_allclose(pairs(found.producers), producers, rtol=1e-9)
    np.testing.assert_allclose(pairs(found.areas, areas.sum()), shares, rtol=1e-9)


@pytest.mark.parametrize(
    ("drawn", "normal", "score"), [((200, 300, 600), 0.90, 0.93), ((30, 40, 230), 0.75, 0.92)], ids=["many", "few"]
)
def test_intervals_cover_the_truth(drawn, normal, score):
    """Of areas, overall accuracy and the first class's producer's accuracy, in 400 samples of a known population."""
    random = np.random.default_rng(3)
    weights = np.array([0.02, 0.28, 0.7])
    shares = np.array([[0.8, 0.1, 0.1], [0.02, 0.93, 0.05], [0.005, 0.095, 0.9]])
    truth = weights @ shares
    expected = np.array([*truth, weights @ np.diag(shares), weights[0] * 0.8 / truth[0]])
    covered = np.zeros((2, 5))
    for _ in range(400):
        counts = np.stack([random.multinomial(n, share) for n, share in zip(drawn, shares, strict=True)])
        found = estimate_areas(counts, weights, NAMES[:3])
        estimates = (*found.areas, found.overall, found.producers[0])
        for kind, ends in enumerate(
            ([(one.low, one.high) for one in estimates], [one.score_interval for one in estimates])
        ):
            low, high = np.array(ends).T
            covered[kind] += (low <= expected) & (expected <= high)
    assert (covered[0] / 400 > normal).all() and (covered[1] / 400 > score).all(), covered / 400


def test_a_sample_without_errors_has_no_interval_of_no_width():
    found = estimate_areas(np.diag([20, 20, 30]), [10.0, 20.0, 70.0], NAMES[:3])
    assert found.overall.value == 1
    for one in (found.overall, *found.users, *found.producers):
        assert one.standard_error == 0 and one.high == 1 and one.score_interval == (one.low, one.high)
        assert 0.5 < one.low < 0.97
    for one, mapped in zip(found.areas, (10, 20, 70), strict=True):
        assert one.value == pytest.approx(mapped)
        assert one.low < one.value - 1 < one.value + 1 < one.high
    more = estimate_areas(np.diag([200, 200, 300]), [10.0, 20.0, 70.0], NAMES[:3])
    assert more.overall.low > found.overall.low


def test_classes_that_the_map_or_the_sample_does_not_have():
    counts = [[30, 0, 2, 0], [1, 40, 4, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    found = estimate_areas(counts, [30.0, 70.0, 0.0, 0.0], NAMES)
    assert found.users[2] is None and found.producers[3] is None
    assert found.producers[2].value == 0
    assert found.areas[2].value == pytest.approx(30 * 2 / 32 + 70 * 4 / 45)
    assert found.areas[3].value == 0 and found.areas[3].high > 0


def test_a_class_of_which_every_pixel_is_sampled():
    counts, areas = [[1, 0, 0], [2, 40, 3], [0, 4, 60]], [0.01, 30.0, 70.0]
    found = estimate_areas(counts, areas, NAMES[:3], complete=[True, False, False])
    assert found.users[0].value == found.users[0].low == found.users[0].high == 1
    shares = np.array([[1, 0, 0], [2 / 45, 40 / 45, 3 / 45], [0, 4 / 64, 60 / 64]])
    expected = 30 * np.sqrt(shares[1] * (1 - shares[1]) / 44), 70 * np.sqrt(shares[2] * (1 - shares[2]) / 63)
    errors = [one.standard_error for one in found.areas]
    np.testing.assert_allclose(errors, np.hypot(*expected))
    with pytest.raises(EOKerasError, match="has 1 places"):
        estimate_areas(counts, areas, NAMES[:3])


def test_refusals():
    with pytest.raises(EOKerasError, match=r"Forest gain \(40.00% of the map\) has 1 places"):
        estimate_areas([[20, 1], [0, 1]], [60.0, 40.0], NAMES[:2])
    with pytest.raises(EOKerasError, match="Forest gain, which the map does not have"):
        estimate_areas([[20, 1], [0, 5]], [60.0, 0.0], NAMES[:2])
    with pytest.raises(OptionError, match="at least 2 for each of the map's 3 classes"):
        allocate(5, [0.2, 0.3, 0.5])
    with pytest.raises(OptionError, match="more than the sample's 100"):
        allocate(100, [0.2, 0.3, 0.5], minimum=50)


def test_no_more_than_the_map_has():
    assert allocate(300, [0.1, 0.4, 0.5, 0.0], available=[5, 5000, 5000, 0]).tolist()[0] == 5
    assert allocate(300, [0.1, 0.4, 0.5, 0.0], available=[5, 5000, 5000, 0]).sum() == 300
    assert allocate(300, [0.1, 0.4, 0.5], available=[5, 50, 60]).tolist() == [5, 50, 60]
