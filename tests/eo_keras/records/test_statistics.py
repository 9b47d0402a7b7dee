import numpy as np
import pytest

from eo_keras.records.example import NO_DATA, OBSCURED, SATURATED, VALID
from eo_keras.records.statistics import PERCENTILES, Histograms

BANDS = ("B04", "B08")


def counted(images, dtype="uint16"):
    histograms = Histograms(images.shape[-1], dtype)
    histograms.add(images)
    return histograms


def test_statistics_agree_with_numpy():
    rng = np.random.default_rng(0)
    images = rng.poisson((900, 2500), (6, 32, 32, 2)).astype(np.uint16)
    images[0, :3] = 0
    images[1, :2, :, 1] = 0  # Dark in one band.
    for index, found in enumerate(counted(images).statistics(BANDS)):
        values = images[..., index][images.any(axis=-1)].astype(np.float64)
        assert found.band == BANDS[index]
        assert found.mean == pytest.approx(values.mean(), rel=1e-13)
        assert found.std == pytest.approx(values.std(), rel=1e-11)
        assert (found.minimum, found.maximum, found.valid) == (values.min(), values.max(), values.size)
        assert found.nodata == images[..., index].size - values.size
        assert found.nodata_share == 3 * 32 / images[..., 0].size
        for percent in PERCENTILES:
            expected = np.percentile(values, percent, method="inverted_cdf")
            assert found.percentiles[str(percent)] == expected


def test_no_order_and_no_division_changes_a_bit():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 65536, (40, 16, 16, 2), dtype=np.uint16)
    images[3, 5, 5:9] = 0
    whole = counted(images).statistics(BANDS)
    for order in (rng.permutation(40), rng.permutation(40)):
        merged = Histograms(2, "uint16")
        for part in np.array_split(order, rng.integers(2, 9)):
            merged.merge(counted(images[part]))
        assert merged.statistics(BANDS) == whole


@pytest.mark.parametrize(("dtype", "bands"), [("uint16", 2), ("uint8", 3)])
def test_what_is_not_clear_is_left_out(dtype, bands):
    rng = np.random.default_rng(3)
    images = rng.integers(1, 200, (3, 16, 16, bands)).astype(dtype)
    validity = np.full((3, 16, 16), VALID, np.uint8)
    images[0, :2], validity[0, :2] = 0, NO_DATA
    images[1, 4:6, 4:6], validity[1, 4:6, 4:6] = np.iinfo(dtype).max, SATURATED
    images[2, 8:], validity[2, 8:] = 250, OBSCURED
    histograms = Histograms(bands, dtype)
    for image, mask in zip(images, validity, strict=True):
        histograms.add(image, mask)
    for band, found in enumerate(histograms.statistics("abc"[:bands])):
        values = images[..., band][validity == VALID].astype(np.float64)
        assert (found.mean, found.std) == (pytest.approx(values.mean()), pytest.approx(values.std()))
        assert (found.valid, found.nodata, found.maximum) == (values.size, 32, values.max())
    histograms.add(images[:0], validity[:0])


def test_sums_of_a_country_do_not_overflow():
    histograms = Histograms(1, "uint16")
    # 10^13 pixels of 65,535 and as many of 65,533: their squares add up to 8.6e22, far beyond 64 bits.
    histograms.counts[0, [65533, 65535]] = 10**13
    (found,) = histograms.statistics(("B04",))
    assert (found.mean, found.std) == (65534.0, 1.0)


def test_a_band_without_data_has_zeros():
    (found,) = counted(np.zeros((2, 8, 8, 1), np.uint8), "uint8").statistics(("B04",))
    assert (found.mean, found.std, found.minimum, found.maximum, found.valid, found.nodata) == (0, 0, 0, 0, 0, 128)
    assert found.nodata_share == 1.0 and set(found.percentiles.values()) == {0}


def test_images_of_another_kind_are_refused():
    for images in (np.zeros((1, 8, 8, 2), np.uint8), np.zeros((1, 8, 8, 3), np.uint16)):
        with pytest.raises(ValueError, match="do not belong"):
            Histograms(2, "uint16").add(images)


def test_bytes_are_counted_like_other_numbers():
    images = np.random.default_rng(2).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    histograms = counted(images, "uint8")
    histograms.add(images[:2, ::2])
    for band in range(3):
        expected = np.bincount(images[..., band].ravel(), minlength=256)
        expected += np.bincount(images[:2, ::2, :, band].ravel(), minlength=256)
        np.testing.assert_array_equal(histograms.counts[band], expected)


def test_real_numbers_are_counted_to_three_digits_in_any_order():
    random = np.random.default_rng(0)
    images = random.normal([-12.0, 0.001, 3e4], [4, 0.0002, 9e3], (6, 16, 16, 3)).astype(np.float32)
    images[0, :4, :4, 1] = np.nan
    images[1, 0, 0] = [-0.0, 0.0, 1e-30]
    whole, halves = Histograms(3, "float32"), Histograms(3, "float32")
    whole.add(images)
    for part in (images[3:], images[:3]):
        other = Histograms(3, "float32")
        other.add(part)
        halves.merge(other)
    assert halves.statistics("abc") == whole.statistics("abc")
    known = images[np.isfinite(images).all(axis=-1)].astype(np.float64)
    for place, found in enumerate(whole.statistics("abc")):
        values = known[:, place]
        assert (found.valid, found.nodata) == (len(known), 16)
        assert found.mean == pytest.approx(values.mean(), rel=1e-3)
        assert found.std == pytest.approx(values.std(), rel=2e-3)
        assert (found.minimum, found.maximum) == pytest.approx((values.min(), values.max()), rel=2**-8)
        assert found.percentiles["50"] == pytest.approx(np.median(values), rel=2**-7)
