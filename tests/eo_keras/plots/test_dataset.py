import io

import numpy as np
import pytest
from PIL import Image

from eo_keras.plots import dataset
from eo_keras.sensors.radiometry import Reflectance

UNIT = Reflectance(1e-4, 0.0)


def decoded(png, smallest=(300, 100)):
    """Returns the figure's pixels after checking that it is a PNG of a sane size that is not blank or cut off."""
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        assert smallest[0] <= image.width <= 2500 and smallest[1] <= image.height <= 2500
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels < 200).any()
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()
    return pixels


def dots(pixels, colour, tolerance=60):
    """Counts the dots of about a colour."""
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    return int((np.abs(pixels.astype(int) - wanted).max(axis=-1) <= tolerance).sum())


def bars(pixels, part):
    return dots(pixels, dataset.SPLIT_COLORS[part], 3)


def test_bars_are_as_long_as_the_counts():
    counts = {"train": {"Forest": 300, "River $x$": 100}, "test": {"Forest": 100, "River $x$": 0}}
    pixels = decoded(dataset.class_balance_png(counts, ["Forest", "River $x$"], "T"), (600, 200))
    assert bars(pixels, "train") / bars(pixels, "test") == pytest.approx(4, rel=0.25)
    assert bars(pixels, "val") == 0
    three = {**counts, "val": {"Forest": 5}}
    assert bars(decoded(dataset.class_balance_png(three, ["Forest", "River $x$"], "T")), "val") > 0


def test_places_in_a_row_leave_no_waste_around_the_map():
    degrees = np.stack([np.repeat([2.0, 8.0, 14.0, 20.0], 3), 48 + 0.01 * np.arange(12)], axis=-1)
    for places in (degrees, degrees[:, ::-1] % [60, 30]):
        pixels = decoded(dataset.map_png({"train": places}, "T"))
        ground = (pixels == 250).all(axis=-1)
        assert ground.sum() > 0.3 * ground.size, "the map itself fills the figure"


def test_class_balance_of_nothing():
    decoded(dataset.class_balance_png({}, ["Forest"], "T"))
    decoded(dataset.class_balance_png({"train": {"Forest": 0}}, ["Forest"], "T"))


def test_histograms_of_many_bands_and_of_one_number():
    rng = np.random.default_rng(0)
    counts = {}
    for part in ("train", "test"):
        counts[part] = np.stack(
            [np.bincount(rng.poisson(mean, 4000), minlength=65536) for mean in (12, 1300, 2600, 900)]
        )
    counts["train"][3] = counts["test"][3] = 0
    counts["train"][3, 77] = 5
    before = counts["train"].copy()
    bands = ("B10", "B01", "B8A", "B$2$")
    png = dataset.band_histograms_png(counts, bands, UNIT, 0, "T")
    pixels = decoded(png, (700, 400))
    assert dots(pixels, dataset.SPLIT_COLORS["train"]) and dots(pixels, dataset.SPLIT_COLORS["test"])
    np.testing.assert_array_equal(counts["train"], before)
    assert png == dataset.band_histograms_png(counts, bands, UNIT, 0, "T")


def test_no_data_is_not_drawn():
    counts = np.zeros((1, 256), np.int64)
    counts[0, 100:110] = 50
    png = dataset.band_histograms_png({"train": counts}, ("B04",), UNIT, 0, "T")
    with_holes = counts.copy()
    with_holes[0, 0] = 10_000
    assert dataset.band_histograms_png({"train": with_holes}, ("B04",), UNIT, 0, "T") == png
    only_holes = np.zeros((1, 256), np.int64)
    only_holes[0, 0] = 9
    decoded(dataset.band_histograms_png({"train": only_holes}, ("B04",), UNIT, 0, "T"))
    decoded(dataset.band_histograms_png({"train": counts, "test": only_holes}, ("B04",), UNIT, 0, "T"))


def test_saturated_pixels_are_drawn_at_the_end_of_the_axis():
    counts = np.zeros((1, 256), np.int64)
    counts[0, 1:256] = 10
    plain = dataset.band_histograms_png({"train": counts}, ("B04",), UNIT, 0, "T")
    counts[0, 255] = 400
    decoded(plain)
    assert dataset.band_histograms_png({"train": counts}, ("B04",), UNIT, 0, "T") != plain


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.98, 1.0])
def test_percentiles_are_those_of_the_pixels(share):
    values = np.sort(np.random.default_rng(0).integers(0, 256, 999))
    found = dataset._percentile(np.bincount(values, minlength=256), share)
    assert found == values[max(0, int(np.ceil(share * 999)) - 1)]


def test_a_map_shows_testing_over_training():
    rng = np.random.default_rng(0)
    train = rng.uniform((5, 45), (15, 55), (500, 2))
    test = rng.uniform((15, 45), (25, 55), (100, 2))
    pixels = decoded(dataset.map_png({"test": test, "train": train}, "T"), (500, 400))
    left, right = np.array_split(pixels, 2, axis=1)
    for half, here, there in ((left, "train", "test"), (right, "test", "train")):
        colours = dataset.SPLIT_COLORS
        assert dots(half, colours[here]) > 5 * dots(half[: -len(half) // 5], colours[there], 20)
    same = decoded(dataset.map_png({"test": train, "train": train}, "T"))[: -len(pixels) // 5].astype(int)
    assert (same[..., 0] > same[..., 2] + 40).sum() > 50 * (same[..., 2] > same[..., 0] + 40).sum()


def test_maps_of_little():
    decoded(dataset.map_png({"train": [[10.0, 50.0]]}, "One patch"))
    decoded(dataset.map_png({"train": np.empty((0, 2))}, "No patch"))
    decoded(dataset.map_png({"train": [[-5.0, 40.0], [30.0, 40.2]]}, "A strip from west to east"))
    decoded(dataset.map_png({"train": [[5.0, 35.0], [5.1, 65.0]], "x$y$": [[5.0, 36.0]]}, "From south to north"))
