"""No data and saturation through every way of reading: number types, nodata tags, masks and grids."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.warp import transform

from eo_keras.geo import scenes
from eo_keras.geo.scene_reader import SceneReader
from eo_keras.geo.scenes import SceneOptions
from eo_keras.records.example import NO_DATA, SATURATED, VALID

CRS, OTHER = "EPSG:32633", "EPSG:3035"
X, Y, EDGE = 500_000, 5_500_000, 600  # Metres.
HOLE = slice(6, 12)  # Rows and columns of the band of 20 m.
DTYPES = ("uint16", "int16", "float32", "float64")
GRIDS = ("same", "coarser", "other CRS")


def reflectance(x, y):
    """A gentle wave, so that an interpolation shows what it took in."""
    return 0.3 + 0.08 * np.sin((x - X) / 200) + 0.07 * np.cos((y - Y) / 180)


def field(resolution, dtype):
    """The wave at the centres of pixels; digital numbers where the type is of whole ones."""
    centres = (np.arange(EDGE // resolution) + 0.5) * resolution
    values = reflectance(*np.meshgrid(X + centres, Y - centres))
    return values.astype(dtype) if dtype.startswith("float") else np.rint(values * 10_000).astype(dtype)


def write(path, pixels, resolution, nodata=None, alpha=None, mask=None):
    bands = [pixels] if alpha is None else [pixels, alpha]
    profile = {"driver": "GTiff", "height": pixels.shape[0], "width": pixels.shape[1], "count": len(bands)}
    place = {"crs": CRS, "transform": Affine(resolution, 0, X, 0, -resolution, Y), "nodata": nodata}
    with rasterio.open(path, "w", dtype=pixels.dtype, **profile, **place) as file:
        if alpha is not None:
            file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
        file.write(np.stack(bands))
        if mask is not None:
            file.write_mask(mask)


def read(folder, dtype, grid, bands, **more):
    units = "reflectance" if dtype.startswith("float") else None
    target = OTHER if grid == "other CRS" else None
    scene = scenes.open_scene(folder, SceneOptions(bands=bands, level="L1C", units=units, target_crs=target, **more))
    with SceneReader(scene) as reader:
        image, mask = reader.read(0, 0, scene.grid.height, scene.grid.width)
    rows, columns = np.mgrid[: scene.grid.height, : scene.grid.width] + 0.5
    xs, ys = scene.grid.coordinates(columns.ravel(), rows.ravel())
    if target:
        xs, ys = map(np.array, transform(OTHER, CRS, xs, ys))
    return image[..., -1].astype(float), mask, xs.reshape(rows.shape), ys.reshape(rows.shape)


def check(folder, dtype, grid, hole, resampling="cubic", bands=("B02", "B05")):
    """The hole, and nothing else inside the scene, is no data; what is valid shows the wave."""
    values, mask, xs, ys = read(folder, dtype, grid, bands, resampling=resampling)
    inside = (xs > X) & (xs < X + EDGE) & (ys < Y) & (ys > Y - EDGE)
    in_hole = inside.copy()
    if hole:
        row, column = (Y - ys) / 20, (xs - X) / 20
        in_hole &= (row >= HOLE.start) & (row < HOLE.stop) & (column >= HOLE.start) & (column < HOLE.stop)
    else:
        in_hole[:] = False
    expected = np.where(inside & ~in_hole, VALID, NO_DATA)
    # Centres that lie on an edge after a reprojection may fall on either side.
    assert (mask != expected).sum() <= (0 if grid != "other CRS" else 0.002 * mask.size)
    error = np.abs(values - 10_000 * reflectance(xs, ys)) / (10_000 * reflectance(xs, ys))
    edge = (xs < X + 40) | (xs > X + EDGE - 40) | (ys > Y - 40) | (ys < Y - EDGE + 40)
    assert error[(mask == VALID) & ~edge].max() < (0.001 if grid == "same" else 0.02)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(
    ("dtype", "tag"),
    [(dtype, tag) for dtype in DTYPES for tag in (None, 0) if tag is None or dtype != "float64"]
    + [("uint16", 65535), ("int16", -9999), ("float32", -9999), ("float64", -3.4028234663852886e38)]
    + [("float32", float("nan")), ("float64", float("nan"))],
)
def test_no_data_stays_out_of_its_neighbours(tmp_path, dtype, tag, grid):
    numbers = [0.0, *([] if tag is None else [tag])]
    numbers += [float("nan"), float("inf")] if dtype.startswith("float") else []
    pixels = field(20, dtype)
    pixels[HOLE, HOLE] = np.resize(numbers, (HOLE.stop - HOLE.start,) * 2)
    write(tmp_path / "S_B05.tif", pixels, 20, nodata=tag)
    bands = ("B05",)
    if grid != "same":
        write(tmp_path / "S_B02.tif", field(10, dtype), 10, nodata=tag)
        bands = ("B02", "B05")
    check(tmp_path, dtype, grid, hole=True, bands=bands)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("form", ["internal", "msk", "alpha", "alpha behind a tag"])
def test_the_files_own_mask_counts(tmp_path, form, grid):
    pixels, mask = field(20, "uint16"), np.full((30, 30), 255, np.uint8)
    mask[HOLE, HOLE] = 0
    pixels[HOLE, HOLE] = 9000  # What lies below a mask is anything.
    path = tmp_path / "S_B05.tif"
    if form.startswith("alpha"):
        write(path, pixels, 20, alpha=mask.astype("uint16") * 257, nodata=None if form == "alpha" else 7)
    else:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=form == "internal"):
            write(path, pixels, 20, mask=mask)
    assert path.with_name("S_B05.tif.msk").exists() == (form == "msk")
    if form.startswith("alpha"):
        path = path.rename(tmp_path / "S.tif")
        options = {"band_order": ("B05", "alpha")}
        target = OTHER if grid == "other CRS" else None
        scene = scenes.open_scene(path, SceneOptions(level="L1C", target_crs=target, **options))
        with SceneReader(scene) as reader:
            image, found = reader.read(0, 0, scene.grid.height, scene.grid.width)
        assert image.max() < 5000
        if grid == "same":
            np.testing.assert_array_equal(found == NO_DATA, mask == 0)
        return
    bands = ("B05",)
    if grid != "same":
        write(tmp_path / "S_B02.tif", field(10, "uint16"), 10)
        bands = ("B02", "B05")
    check(tmp_path, "uint16", grid, hole=True, bands=bands)


@pytest.mark.parametrize("resampling", scenes.RESAMPLINGS)
def test_every_way_of_resampling_keeps_no_data_out(tmp_path, resampling):
    pixels = field(20, "float32")
    pixels[HOLE, HOLE] = 0
    write(tmp_path / "S_B05.tif", pixels, 20, nodata=-9999)
    write(tmp_path / "S_B02.tif", field(10, "float32"), 10, nodata=-9999)
    values, mask, xs, ys = read(tmp_path, "float32", "coarser", ("B02", "B05"), resampling=resampling)
    expected = np.full(mask.shape, VALID)
    expected[2 * HOLE.start : 2 * HOLE.stop, 2 * HOLE.start : 2 * HOLE.stop] = NO_DATA
    np.testing.assert_array_equal(mask, expected)
    assert np.abs(values / 10_000 - reflectance(xs, ys))[mask == VALID].max() < 0.05


@pytest.mark.parametrize("resampling", scenes.RESAMPLINGS)
@pytest.mark.parametrize("grid", GRIDS)
def test_saturation_is_marked_as_far_as_the_kernel_reaches(tmp_path, grid, resampling):
    def scene(name, saturated):
        folder = tmp_path / name
        folder.mkdir()
        pixels = np.full((30, 30), 2000, np.uint16)
        pixels[saturated] = 65535
        write(folder / "S_B05.tif", pixels, 20)
        write(folder / "S_B02.tif", np.full((60, 60), 2000, np.uint16), 10)
        bands = ("B05",) if grid == "same" else ("B02", "B05")
        return read(folder, "uint16", grid, bands, resampling=resampling)[:2]

    values, mask = scene("some", ([4, 15, 16, 22], [4, 15, 15, 7]))
    clean, clean_mask = scene("none", ([], []))
    assert set(np.unique(clean_mask)) <= {NO_DATA, VALID}
    np.testing.assert_array_equal(mask == NO_DATA, clean_mask == NO_DATA)
    changed = (values != clean) & (mask != NO_DATA)
    # Every pixel that a saturated one has changed is marked, and none that is out of a kernel's reach.
    assert changed.any()
    assert (mask[changed] == SATURATED).all()
    assert (mask == SATURATED).sum() <= (1.1 * changed.sum() if grid != "other CRS" else 2 * changed.sum() + 40)


def test_what_was_interpolated_below_one_is_dark_and_not_no_data(tmp_path):
    pixels = np.full((30, 30), 3, np.uint16)
    pixels[:, 15:] = 4000  # A cubic kernel swings below 0 beside an edge.
    write(tmp_path / "S_B05.tif", pixels, 20)
    write(tmp_path / "S_B02.tif", np.full((60, 60), 2000, np.uint16), 10)
    values, mask, _, _ = read(tmp_path, "uint16", "coarser", ("B02", "B05"))
    assert (mask == VALID).all()
    assert values.min() == 1


def test_bands_mask_themselves_alone_in_one_file(tmp_path):
    pixels = np.stack([field(20, "float32"), field(20, "float32")])
    pixels[0, 3:6, 3:6], pixels[1, 20:25, 20:25] = np.nan, -9999
    place = {"crs": CRS, "transform": Affine(20, 0, X, 0, -20, Y), "nodata": -9999}
    path = tmp_path / "S.tif"
    with rasterio.open(path, "w", driver="GTiff", height=30, width=30, count=2, dtype="float32", **place) as file:
        file.write(pixels)
        file.descriptions = ("B05", "B06")
    scene = scenes.open_scene(path, SceneOptions(level="L1C", units="reflectance", target_crs="EPSG:32632"))
    with SceneReader(scene) as reader:
        image, mask = reader.read(0, 0, scene.grid.height, scene.grid.width)
    assert 1 < image[mask == VALID].min()
    assert np.abs(image[mask == VALID].astype(int) - 3000).max() < 1600


def test_windows_in_another_system_are_cut_out_of_the_whole(tmp_path):
    noise = np.random.default_rng(0).integers(500, 5000, (60, 60)).astype("uint16")
    noise[20:25, 20:25], noise[40, 40] = 0, 65535
    write(tmp_path / "S_B02.tif", noise, 10)
    write(tmp_path / "S_B05.tif", noise[::2, ::2], 20)
    scene = scenes.open_scene(tmp_path, SceneOptions(level="L1C", target_crs=OTHER))
    with SceneReader(scene) as reader:
        image, mask = reader.read(0, 0, scene.grid.height, scene.grid.width)
        for row, column in ((0, 0), (13, 7), (31, 33)):
            part, part_mask = reader.read(row, column, 30, 29)
            np.testing.assert_array_equal(part_mask, mask[row : row + 30, column : column + 29])
            np.testing.assert_allclose(part, image[row : row + 30, column : column + 29], atol=2)
