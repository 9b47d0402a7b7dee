"""Which pretrained kernel each band takes, and how much of it."""

import numpy as np
import pytest

from eo_keras.errors import BandError, OptionError
from eo_keras.models.pretrained.stem import IMAGENET_STD, assign_sources, inflate_stem
from eo_keras.models.pretrained.weights import input_scales
from eo_keras.sensors.sentinel2 import EUROSAT_ORDER, NOMINAL_ORDER

RED, GREEN, BLUE = IMAGENET_STD


@pytest.fixture
def kernel():
    return np.random.default_rng(0).normal(size=(7, 7, 3, 4)).astype("float32")


def test_rgb_by_name_is_the_kernel_itself(kernel):
    inflated, plan = inflate_stem(kernel, ("B04", "B03", "B02"))
    np.testing.assert_array_equal(inflated, kernel)
    assert inflated.dtype == np.float32
    assert [(entry.source, entry.factor) for entry in plan] == [("B04", 1), ("B03", 1), ("B02", 1)]


@pytest.mark.parametrize("bands", [NOMINAL_ORDER, EUROSAT_ORDER])
def test_13_bands_by_name(kernel, bands):
    inflated, _ = inflate_stem(kernel, bands)
    assert inflated.shape == (7, 7, 13, 4)
    for channel, band in enumerate(("B04", "B03", "B02")):
        np.testing.assert_array_equal(inflated[:, :, bands.index(band)], kernel[:, :, channel])
    np.testing.assert_allclose(inflated[:, :, bands.index("B01")], kernel[:, :, 2] / 10, rtol=1e-6)
    for band in ("B05", "B08", "B8A", "B10", "B12"):
        np.testing.assert_allclose(inflated[:, :, bands.index(band)], kernel[:, :, 0] / 10, rtol=1e-6)


def test_colour_infrared_by_name_and_by_position(kernel):
    bands = ("B08", "B04", "B03")
    by_name, plan = inflate_stem(kernel, bands, "by_name")
    np.testing.assert_array_equal(by_name, kernel[:, :, [0, 0, 1]])  # One band without a colour: divided by 1.
    assert [entry.source for entry in plan] == ["B04", "B04", "B03"]
    by_position, plan = inflate_stem(kernel, bands, "by_position")
    np.testing.assert_array_equal(by_position, kernel)
    assert [entry.source for entry in plan] == ["B04", "B03", "B02"]
    assert input_scales("imagenet", {"image": bands}, "by_name") == {"image": (RED, RED, GREEN)}
    assert input_scales("imagenet", {"image": bands}, "by_position") == {"image": (RED, GREEN, BLUE)}


def test_by_position_with_more_bands():
    plan = assign_sources(("B08", "B04", "B03", "B12", "B01"), "by_position")
    assert [(entry.source, entry.factor) for entry in plan] == [
        ("B04", 1), ("B03", 1), ("B02", 1), ("B04", 0.5), ("B02", 0.5)
    ]  # fmt: skip


def test_without_any_colour(kernel):
    inflated, _ = inflate_stem(kernel, ("B11", "B12"))
    np.testing.assert_allclose(inflated, kernel[:, :, [0, 0]] / 2, rtol=1e-6)


def test_bands_of_other_sensors_take_the_kernels_in_turn(kernel):
    inflated, plan = inflate_stem(kernel, ("VV", "VH", "height", "angle"))
    assert [entry.source for entry in plan] == ["B04", "B03", "B02", "B04"]
    np.testing.assert_allclose(inflated, kernel[:, :, [0, 1, 2, 0]] / 4, rtol=1e-6)
    plan = assign_sources(("B08", "VV", "B03"))
    assert [(entry.source, entry.factor) for entry in plan] == [("B04", 0.5), ("B04", 0.5), ("B03", 1)]
    plan = assign_sources(("VH", "B04"), sources=("VV", "VH"))
    assert [(entry.source, entry.factor) for entry in plan] == [("VH", 1), ("VV", 1)]
    assert input_scales("imagenet", {"s1": ("VV", "VH")}, "by_name") == {"s1": (RED, GREEN)}


def test_colors_of_aerial_images_are_those_of_sentinel2(kernel):
    inflated, plan = inflate_stem(kernel, ("B", "G", "R", "NIR"))
    np.testing.assert_array_equal(inflated, kernel[:, :, [2, 1, 0, 0]])
    assert [(entry.band, entry.source) for entry in plan] == [("B", "B02"), ("G", "B03"), ("R", "B04"), ("NIR", "B04")]
    assert [entry.source for entry in assign_sources(("B04", "B08"), sources=("B", "G", "R"))] == ["R", "R"]


def test_errors(kernel):
    with pytest.raises(BandError, match="2 bands for stem by_position; expected at least 3"):
        inflate_stem(kernel, ("B08", "B04"), "by_position")
    with pytest.raises(BandError, match="no bands, or one of them twice"):
        inflate_stem(kernel, ("B04", "B04"))
    with pytest.raises(OptionError, match="'by_colour'"):
        inflate_stem(kernel, ("B04",), "by_colour")
    with pytest.raises(BandError, match="3 input channels"):
        inflate_stem(kernel[:, :, :2], ("B04",))
