"""Figures of masks: the panels of a tile pixel by pixel, and figures that are drawn."""

import io
import types

import numpy as np
import pytest
from PIL import Image

from eo_keras.legends.catalogue import EUROSAT, FLOOD, FOOTPRINTS
from eo_keras.metrics.predictions import PredictedSample
from eo_keras.metrics.segmentation import SegmentationScorer
from eo_keras.plots import segmentation
from eo_keras.plots.figure import classes_to_display
from eo_keras.records.targets import DistanceClasses

BANDS = ("B08", "B04", "B03")


def card_of(legend, distance=None):
    return types.SimpleNamespace(legend=legend, distance=distance)


def rgb(color):
    return tuple(int(color[place : place + 2], 16) for place in (1, 3, 5))


def quarters(*values):
    """A mask of four quarters."""
    return np.array(values, np.uint8).reshape(2, 2).repeat(16, 0).repeat(16, 1)


def noise(bands=3, kind=np.uint8, most=20):
    return np.random.default_rng(0).integers(1, most, (32, 32, bands)).astype(kind)


def board_in(picture):
    """Where the checkerboard is, whose cells are of two pixels here: gray and white."""
    cells = (np.arange(32) // 2)[:, np.newaxis] + np.arange(32) // 2
    return (picture == np.where(cells % 2, 255, 205)[..., np.newaxis]).all(axis=-1)


def colors_of_quarters(picture):
    return [tuple(int(one) for one in picture[row, column]) for row in (8, 24) for column in (8, 24)]


def test_errors_of_a_class_are_told_apart():
    labels, predictions = quarters(1, 1, 0, 255), quarters(1, 0, 1, 0)
    found = segmentation.panels_of(PredictedSample("a", noise(), labels, predictions), card_of(FLOOD), BANDS, "Flooded")
    assert list(found) == ["image\nB08,B04,B03", "mask", "prediction", "errors"]
    names = ("true positive", "false negative", "false positive")
    assert colors_of_quarters(found["errors"])[:3] == [rgb(segmentation.OUTCOMES[name]) for name in names]
    np.testing.assert_array_equal(board_in(found["errors"]), labels == 255)
    np.testing.assert_array_equal(board_in(found["mask"]), labels == 255)
    # The prediction is shown where the truth is not known, but not where there is no data.
    np.testing.assert_array_equal(found["prediction"], classes_to_display(predictions, FLOOD.colours))
    np.testing.assert_array_equal(found["mask"][:16], classes_to_display(labels, FLOOD.colours)[:16])


def test_of_more_classes_all_incorrect_pixels_are_shown():
    tile = PredictedSample("a", noise(), quarters(1, 2, 3, 255), quarters(1, 2, 9, 0))
    errors = segmentation.panels_of(tile, card_of(EUROSAT), BANDS, None)["errors"]
    # A quarter of the color, and three quarters of white.
    pale = [tuple(round(0.25 * one + 0.75 * 255) for one in rgb(EUROSAT.colours[place])) for place in (1, 2)]
    assert colors_of_quarters(errors)[:3] == [*pale, rgb(segmentation.INCORRECT)]
    of_forest = segmentation.panels_of(tile, card_of(EUROSAT), BANDS, "Forest")["errors"]
    names = ("true positive", "true negative", "true negative")
    assert colors_of_quarters(of_forest)[:3] == [rgb(segmentation.OUTCOMES[name]) for name in names]


@pytest.mark.parametrize(("kind", "most"), [(np.uint8, 9), (np.uint16, 9), (np.uint16, 9000), (np.float32, 9)])
def test_images_are_stretched(kind, most):
    tile = PredictedSample("a", noise(kind=kind, most=most), quarters(1, 1, 1, 1), quarters(1, 1, 1, 1))
    (image, *_) = segmentation.panels_of(tile, card_of(FLOOD), BANDS, None).values()
    assert (image.min(), image.max()) == (0, 255) and 115 < image.mean() < 140


def test_each_modality_is_shown_and_predictions_where_any_has_data():
    labels = quarters(1, 0, 0, 1)
    height = np.arange(256, dtype=np.float32).reshape(16, 16, 1)
    height[:8] = np.nan
    optical = noise(4, np.uint16, 9000)
    optical[:, :16] = 0
    images = {"s2": optical, "height": height, "s1": np.full((64, 64, 2), np.nan, np.float32)}
    bands = {"s2": ("B02", "B03", "B04", "B08"), "height": ("HEIGHT",), "s1": ("VV", "VH")}
    found = segmentation.panels_of(PredictedSample("a", images, labels, labels), card_of(FOOTPRINTS), bands, None)
    titles = ["s2\nB04,B03,B02", "height\nHEIGHT", "s1\nVV"]
    assert list(found) == [*titles, "mask", "prediction", "errors"]
    assert [found[title].shape[0] for title in titles] == [32, 16, 64]
    np.testing.assert_array_equal(board_in(found[titles[0]]), (optical == 0).all(axis=-1))
    heights = found[titles[1]][8:]
    assert (heights == heights[..., :1]).all() and (np.diff(heights[..., 0].ravel().astype(int)) >= 0).all()
    assert set(np.unique(found[titles[2]])) == {205, 255}, "s1 is missing"
    # Only the upper left quarter has no data of any.
    for name in ("prediction", "errors"):
        np.testing.assert_array_equal(board_in(found[name]), quarters(1, 0, 0, 0))
    assert not board_in(found["mask"]).any()


def test_distance_classes_are_those_of_the_mask():
    labels = np.zeros((32, 32), np.uint8)
    labels[:, 16:], labels[:4] = 1, 255
    kind = DistanceClasses(truncation=5.0, classes=5)
    found = segmentation.panels_of(
        PredictedSample("a", noise(), labels, labels), card_of(FOOTPRINTS, kind), BANDS, None
    )
    assert list(found)[1:3] == ["mask", "distance"]
    np.testing.assert_array_equal(board_in(found["distance"]), labels == 255)
    row = [tuple(int(one) for one in pixel) for pixel in found["distance"][10]]
    # Classes are two columns wide, the middle one a column on either side of the boundary.
    assert [len(set(row[:13])), len(set(row[13:15])), len(set(row[15:17])), len(set(row[19:]))] == [1] * 4
    assert len(set(row)) == 5


def test_tiles_are_drawn_beside_each_other():
    labels = np.zeros((700, 700), np.uint8)
    tile = PredictedSample("$a", np.ones((700, 700, 1), np.uint8), labels, labels)
    assert {one.shape for one in segmentation.panels_of(tile, card_of(FLOOD), ("SAR",), None).values()} == {
        (234, 234, 3)
    }

    def size(*arguments, **options):
        png = segmentation.maps_png(
            *arguments, card_of(FLOOD, DistanceClasses(20, 11, "Flooded")), ("SAR",), "T", **options
        )
        return Image.open(io.BytesIO(png)).size

    one, two, below = size([tile]), size([tile] * 2), size([tile] * 2, panels=9)
    assert two[0] > 1.5 * one[0] and two[1] < 1.4 * one[1]
    assert below[0] < 1.2 * one[0] and below[1] > 1.3 * one[1]
    assert size([])[0] > 300


def test_scores_of_classes_and_boundaries():
    scorer = SegmentationScorer(EUROSAT.class_names, width=3)
    for number in range(3):
        scorer.add(str(number), quarters(1, 2, 3, 4), np.roll(quarters(1, 2, 3, 4), 2, axis=0))
    png = segmentation.class_scores_png(scorer.scores(resamples=10), EUROSAT, "T")
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    pixels = [int((picture == rgb(color)).all(axis=-1).sum()) for color in EUROSAT.colours]
    assert min(pixels[1:5]) > 2000 and pixels[0] == max(pixels[5:]) == 0
    assert all(
        int((picture == rgb(color)).all(axis=-1).sum()) > 200 for color in ("#9ecae1", "#4292c6", "#08519c", "#d95f02")
    )
