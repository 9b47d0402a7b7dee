import numpy as np
import pytest
import shapely

from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import polygons
from eo_keras.geo.grid import Grid
from eo_keras.geo.scenes import Scene
from eo_keras.mapping import plan as plans
from eo_keras.mapping.lattice import Lattice

LATTICE = Lattice.of_masks(64, 16)
WEST, NORTH = 600_003.0, 5_000_007.0  # No multiples of the pixel size.


def scene(row=0, column=0, height=100, width=150, *, crs="EPSG:32632", size=10.0, west=WEST, north=NORTH):
    grid = Grid(crs, (size, 0.0, west + size * column, 0.0, -size, north - size * row), height, width)
    return Scene(f"{row},{column}.tif", "p", "L1C", None, ("B04",), (), grid, None, "cubic")


def make(*scenes, **options):
    return plans.make_plan(scenes, LATTICE, 4, **{"resolution_m": 10.0} | options)


def write_area(folder, *boxes, crs="EPSG:32632"):
    """Writes polygons; boxes are first row, end row, first column and end column of the scenes' pixels."""
    shapes = [
        shapely.box(WEST + 10 * left, NORTH - 10 * bottom, WEST + 10 * right, NORTH - 10 * top)
        for top, bottom, left, right in boxes
    ]
    polygons.write_polygons(folder / "area.gpkg", "area", np.array(shapes), {"n": np.arange(len(shapes))}, crs)
    return str(folder / "area.gpkg")


def covered_once(plan):
    """Returns which pixels lie in a block, and checks that each does at most once."""
    count = np.zeros((plan.grid.height, plan.grid.width), int)
    for block in plan.blocks:
        count[block.row : block.row + block.height, block.column : block.column + block.width] += 1
    assert count.max() == 1
    return count == 1


def test_own_pixels_are_kept():
    one = scene()
    plan = make(one)
    assert plan.grid == one.grid and plan.covered == 1
    (look,) = plan.looks
    assert look.scene == one and (look.row, look.column) == (0, 0) and look.whole == one.grid
    assert covered_once(plan).all()
    # A neighbor half a pixel away is brought to the pixels of the first one.
    plan = make(one, scene(50, 100, 100, 100, west=WEST + 5))
    assert plan.grid == one.grid.window(0, 0, 150, 201)
    assert [(look.row, look.column, look.scene.grid.width) for look in plan.looks] == [(0, 0, 150), (50, 100, 101)]
    assert covered_once(plan).all()
    # In the order of preference, whose first one has its pixels kept.
    plan = make(scene(50, 100, west=WEST + 5), one)
    assert plan.grid.transform == pytest.approx((10.0, 0.0, WEST - 5, 0.0, -10.0, NORTH))


def test_blocks_cover_every_pixel_of_a_scene_once(monkeypatch):
    monkeypatch.setattr(plans, "_BUFFERS", 1)
    # Two scenes far apart: what lies between is in no block.
    plan = make(scene(0, 0, 300, 400), scene(1000, 1200, 70, 90), block_rows=100)
    here = covered_once(plan)
    assert here[:300, :400].all() and here[1000:1070, 1200:1290].all() and not here[500:700].any()
    assert all(plan.looks_over(block) for block in plan.blocks)
    assert len({block.column for block in plan.blocks}) > 3
    assert plan.blocks[0].over(plan.looks[0]) == (0, plan.blocks[0].height, 0, plan.blocks[0].width)
    assert plan.blocks[0].over(plan.looks[1]) is None
    # The blocks' width follows from the memory, not their number from the map's.
    monkeypatch.setattr(plans, "_BUFFERS", 400_000_000)
    assert [(block.height, block.width) for block in make(scene(0, 0, 100, 10980)).blocks] == [(100, 10980)]


def test_two_zones_give_that_of_the_center():
    # From 14 km west to 3 km east of 12 degrees east, the border of the zones.
    west = scene(0, 0, 100, 900, west=710_000.0, north=5_320_000.0)
    east = scene(0, 0, 100, 300, crs="EPSG:32633", west=276_500.0, north=5_320_000.0)
    plan = make(east, west)
    assert plan.grid.crs == "EPSG:32632" and plan.grid.transform[:3] == (10.0, 0.0, 710_000.0)
    assert [look.scene.source for look in plan.looks] == [east.source, west.source]
    # The scene of the map's own zone keeps its pixels, and the other one is brought to them.
    assert plan.looks[1].scene.grid == west.grid
    assert plan.looks[0].scene.grid.crs == "EPSG:32632" and plan.looks[0].column > 1200
    covered_once(plan)
    assert make(east, west, target_crs="EPSG:32633").looks[0].scene.grid == east.grid


def test_other_reference_systems():
    plan = make(scene(), target_crs="EPSG:3035")
    assert plan.grid.crs == "EPSG:3035" and plan.grid.pixel_size == 10
    assert plan.grid.transform[2] % 10 == plan.grid.transform[5] % 10 == 0
    # It covers the scene's corners, and no more than their box in pixels.
    assert 100 < plan.grid.height < 140 and 150 < plan.grid.width < 190
    with pytest.raises(OptionError, match="target_crs"):
        make(scene(), target_crs="EPSG:4326")
    south = scene(crs="EPSG:32733", west=400_000.0, north=8_000_000.0)
    assert make(south).grid == south.grid
    degrees = scene(crs="EPSG:4326", size=9e-5, west=18.4, north=-33.9)
    with pytest.raises(SourceError, match=r"degrees.*`target_crs=EPSG:32734`"):
        make(degrees)
    plan = make(degrees, target_crs="EPSG:32734")
    assert plan.grid.crs == "EPSG:32734" and plan.grid.pixel_size == 10 and 0 < plan.grid.bounds[1] < 10_000_000


def test_pixels_of_another_size():
    assert make(scene(size=10.1)).grid.pixel_size == pytest.approx(10.1)
    for size in (20.0, 9.0):
        with pytest.raises(SourceError, match=rf"pixels are {size:g} x {size:g} m; expected 10 m.*`resolution=10`"):
            make(scene(size=size))
    plan = make(scene(size=20.0), resolution=10.0)
    assert plan.grid.pixel_size == 10 and 200 <= plan.grid.height <= 202 and 300 <= plan.grid.width <= 302
    assert covered_once(plan).all()
    assert make(scene(size=20.0), resolution=20.0).grid == scene(size=20.0).grid


def test_area(tmp_path):
    one = scene()
    # Pixel centers decide: rows 10 to 29; columns 20 to 39, since 39.4 is left of the center of column 39.
    area = write_area(tmp_path, (9.6, 30.4, 19.6, 39.4), (60, 70, 100, 110))
    plan = make(one, area=area, block_rows=20)
    assert plan.grid == one.grid.window(9, 19, 61, 91) and plan.covered == 1
    (look,) = plan.looks
    assert (look.row, look.column) == (0, 0) and look.scene.grid == plan.grid
    assert look.whole == plan.grid.window(-9, -19, 100, 150)
    inside = np.zeros((61, 91), bool)
    for block in plan.blocks:
        here = slice(block.row, block.row + block.height), slice(block.column, block.column + block.width)
        inside[here] = plan.inside(block)
    expected = np.zeros((100, 150), bool)
    expected[10:30, 20:39] = expected[60:70, 100:110] = True
    np.testing.assert_array_equal(inside, expected[9:70, 19:110])
    assert covered_once(plan)[inside].all()
    assert plan.inside(plan.blocks[0]).shape == (plan.blocks[0].height, plan.blocks[0].width)
    assert make(one).inside(make(one).blocks[0]) is None


def test_area_beyond_the_scenes(tmp_path):
    plan = make(scene(), area=write_area(tmp_path, (50, 150, 100, 200)))
    assert plan.grid == scene().grid.window(50, 100, 50, 50) and plan.covered == pytest.approx(0.25)
    far = scene(0, 5000)
    assert len(make(scene(), far, area=write_area(tmp_path, (0, 10, 0, 10))).looks) == 1
    for box in ((200, 300, 0, 10), (0, 100, 200, 4900)):
        with pytest.raises(OptionError, match=r"area.gpkg lies outside all scenes"):
            make(scene(), far, area=write_area(tmp_path, box))


def test_area_chooses_the_zone(tmp_path):
    west = scene(0, 0, 100, 900, west=717_000.0, north=5_320_000.0)
    east = scene(0, 0, 100, 900, crs="EPSG:32633", west=270_000.0, north=5_321_000.0)
    for box, zone in ((shapely.box(12.005, 47.9, 12.03, 48.1), 33), (shapely.box(11.9, 47.9, 11.99, 48.1), 32)):
        path = tmp_path / f"{zone}.gpkg"
        polygons.write_polygons(path, "area", np.array([box]), {"n": np.array([1])}, "EPSG:4326")
        assert make(west, east, area=str(path)).grid.crs == f"EPSG:326{zone}"


def test_window():
    one = scene(height=400, width=300)
    plan = make(one, window=(100, 50, 130, 200), block_rows=64)
    assert plan.grid == one.grid
    here = covered_once(plan)
    assert here[100:230, 50:250].all() and here.sum() == 130 * 200
    for window in ((0, 0, 401, 10), (-1, 0, 10, 10), (0, 290, 10, 20), (0, 0, 0, 10)):
        with pytest.raises(OptionError, match=r"window.*400 x 300"):
            make(one, window=window)
    # A window between scenes has no data, which is no error.
    assert make(one, scene(1000, 1000), window=(500, 500, 10, 10)).blocks == ()
