"""Reference systems: which may be asked for, and what pixels measure on the ground."""

import math

import pytest
from rasterio.crs import CRS
from rasterio.warp import transform

from eo_keras.errors import OptionError
from eo_keras.geo import reference_systems
from eo_keras.geo.grid import Grid


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("EPSG:99999", "is no coordinate reference system"),
        ("somewhere", "is no coordinate reference system"),
        ("", "is no coordinate reference system"),
        ("EPSG:5773", "is one of heights"),
        ("EPSG:4326", "is in degrees"),
        ("OGC:CRS84", "is in degrees"),
        ("EPSG:4978", "is geocentric"),
        ("EPSG:2263", "US survey foot"),
        ("EPSG:5800", "has no place on the ground"),
        ("EPSG:32633+5773", "has a height"),
    ],
)
def test_what_no_scene_can_be_brought_to_is_refused_in_silence(capfd, text, fault):
    with pytest.raises(OptionError, match=fault):
        reference_systems.target(text)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["EPSG:32633", "EPSG:3035", "ESRI:54009", "+proj=utm +zone=33"])
def test_projections_in_metres_are_taken(text):
    assert reference_systems.target(text).is_projected


def grid_at(crs, longitude, latitude, size=10.0, height=None):
    (x,), (y,) = transform(CRS.from_epsg(4326), CRS.from_user_input(crs), [longitude], [latitude])
    return Grid(crs, (size, 0.0, x - 50 * size, 0.0, -(height or size), y + 50 * (height or size)), 100, 100)


@pytest.mark.parametrize(
    ("crs", "longitude", "latitude", "width", "height"),
    [
        ("EPSG:32633", 15, 50, 10, 10),
        ("EPSG:32633", 18, 0, 10, 10),  # The zone's edge, where the scale is 1.00098.
        ("EPSG:3035", 10, 52, 10, 10),
        ("EPSG:3857", 15, 0, 10, 10),
        ("EPSG:3995", 0, 71, 10, 10),
    ],
)
def test_a_projection_that_is_true_to_scale_keeps_its_own_pixel_size(crs, longitude, latitude, width, height):
    found = reference_systems.pixel_on_ground(grid_at(crs, longitude, latitude))
    assert found == pytest.approx((width, height))


@pytest.mark.parametrize("latitude", [-65, 30, 50])
def test_pixels_of_web_mercator_are_measured_on_the_ground(latitude):
    # Radii of curvature of WGS 84, over the radius of the sphere that Web Mercator projects by.
    flat, sine = 0.00669437999, math.sin(math.radians(latitude))
    across = 1 / math.sqrt(1 - flat * sine**2)
    along = (1 - flat) * across**3
    width, height = (10 * radius * math.cos(math.radians(latitude)) for radius in (across, along))
    found = reference_systems.pixel_on_ground(grid_at("EPSG:3857", 15, latitude))
    assert found == pytest.approx((width, height), rel=1e-4)


def test_pixels_in_feet_degrees_and_turned_grids_are_measured_in_metres():
    assert reference_systems.pixel_on_ground(grid_at("EPSG:2263", -74, 40.7, 32.8084)) == pytest.approx((10, 10), 1e-4)
    width, height = reference_systems.pixel_on_ground(grid_at("EPSG:4326", 15, 60, 1e-4))
    assert (width, height) == pytest.approx((5.58, 11.141), rel=1e-3)
    turned = math.sqrt(0.5) * 10
    grid = Grid("EPSG:32633", (turned, turned, 5e5, turned, -turned, 5.5e6), 100, 100)
    assert reference_systems.pixel_on_ground(grid) == pytest.approx((10, 10))


def test_the_projection_for_a_place_is_its_utm_zone():
    for longitude, latitude, zone in ((15, 50, "EPSG:32633"), (-55, -25, "EPSG:32721"), (180, 5, "EPSG:32601")):
        assert reference_systems.projection_for(grid_at("EPSG:3857", longitude, latitude)) == zone
    assert reference_systems.projection_for(grid_at("EPSG:3031", 0, -85)) == "EPSG:3031"
