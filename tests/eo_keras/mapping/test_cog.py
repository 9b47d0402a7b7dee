import json
import resource
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from rio_cogeo import cogeo

from eo_keras.errors import StorageError
from eo_keras.geo.class_map import bands_path, open_class_map
from eo_keras.geo.grid import Grid
from eo_keras.legends.catalogue import HSL4, Legend, LegendClass
from eo_keras.mapping.cog import bytes_needed, write_cog

GRID = Grid("EPSG:32733", (10.0, 0.0, 399_960.0, 0.0, -10.0, 5_500_020.0), 1300, 1100)


def strip(path, grid, row, column, *bands):
    """Writes a piece of a map whose upper left corner lies at a pixel of the map."""
    pixels = np.stack(bands)
    transform = rasterio.Affine(*grid.window(row, column, *pixels.shape[1:]).transform)
    profile = {"driver": "GTiff", "tiled": True, "count": len(pixels), "dtype": pixels.dtype, "crs": grid.crs}
    with rasterio.open(
        path, "w", height=pixels.shape[1], width=pixels.shape[2], transform=transform, **profile
    ) as dataset:
        dataset.write(pixels)
    return path


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A map of two pieces with a gap, the pixels that it was made of, and the files written."""
    folder, rng = tmp_path_factory.mktemp("map"), np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 4, (65, 55)), np.ones((20, 20))).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.1] = 255
    labels[500:700] = 255
    confidence = np.where(labels == 255, 0, 255).astype(np.uint8)
    pieces = [
        strip(folder / f"{row}.tif", GRID, row, 0, labels[row : row + height], confidence[row : row + height])
        for row, height in ((0, 500), (700, 600))
    ]
    progress = []
    tags = {"TITLE": "Tö<w>n & \x07", "MODEL": "resnet14"}
    written = write_cog(
        pieces, folder / "town.tif", GRID, HSL4, ["class", "confidence"], tags, lambda *said: progress.append(said)
    )
    assert progress == [("writing the map", 1, 2), ("writing the map", 2, 2)]
    return folder / "town.tif", labels, confidence, written


def test_pieces_make_one_map(town):
    path, labels, confidence, written = town
    assert sorted(written) == sorted(path.parent.glob("town*"))
    with open_class_map(path) as class_map:
        assert class_map.grid == GRID and class_map.legend == HSL4
        assert class_map.band_names == ("class", "confidence")
        assert class_map.tags["TITLE"] == "Tö<w>n & ?" and class_map.tags["MODEL"] == "resnet14"
        np.testing.assert_array_equal(class_map.read(0, 0, 1300, 1100), labels)
        np.testing.assert_array_equal(class_map.read(0, 0, 1300, 1100, band="confidence"), confidence)


def test_form_of_the_files(town):
    path, labels, _, _ = town
    for file in (path, bands_path(path)):
        valid, errors, warnings = cogeo.cog_validate(file, strict=True)
        assert valid, (errors, warnings)
    with rasterio.open(path) as dataset:
        assert dataset.nodata == 255 and dataset.descriptions == ("class",)
        assert [dataset.colormap(1)[label] for label in (0, 3)] == [(217, 217, 217, 255), (0, 166, 0, 255)]
        assert json.loads(dataset.tags()["LEGEND"])["name"] == "hsl4"
        assert dataset.overviews(1) == [2, 4]
    with rasterio.open(path, overview_level=1) as dataset:
        small, whole = dataset.read(1)[:100], labels[:400].reshape(100, 4, 275, 4).swapaxes(1, 2).reshape(100, 275, 16)
        counts = np.stack([(whole == label).sum(axis=2) for label in range(4)])
        # Squares of 20 pixels, and a tenth of no data: the most frequent class is that of the square.
        np.testing.assert_array_equal(small, np.where(counts.any(axis=0), counts.argmax(axis=0), 255))
    with rasterio.open(bands_path(path)) as dataset:
        np.testing.assert_array_equal(dataset.read_masks(1), np.where(labels == 255, 0, 255))
        assert dataset.descriptions == ("confidence",)
    with rasterio.open(bands_path(path), overview_level=1) as dataset:
        # Confidence is 255 wherever there is a class: pixels of no data do not lower the mean.
        assert set(np.unique(dataset.read(1)[dataset.read_masks(1) > 0])) == {255}


def test_category_names_are_those_of_gdal(town):
    path = town[0]
    names = ElementTree.parse(path.with_name("town.tif.aux.xml")).iterfind("PAMRasterBand/CategoryNames/Category")
    assert tuple(name.text for name in names) == HSL4.class_names
    entries = ElementTree.parse(path.with_suffix(".qml")).iter("paletteEntry")
    assert [(one.attrib["value"], one.attrib["label"], one.attrib["color"]) for one in entries] == [
        (str(label), item.name, item.colour) for label, item in enumerate(HSL4.classes)
    ]
    alone = path.with_name("alone.tif")
    alone.write_bytes(path.read_bytes())
    with open_class_map(alone) as class_map:
        assert class_map.legend == HSL4 and class_map.band_names == ("class",)


def test_same_pieces_make_the_same_bytes(tmp_path):
    labels = np.random.default_rng(1).integers(0, 4, (700, 900)).astype(np.uint8)
    grid = Grid("EPSG:4326", (1e-4, 0.0, 11.123456789, 0.0, -1e-4, 48.987654321), 700, 900)
    legend = Legend("one & two", tuple(LegendClass(f"<{k}>", f"#0000{k:02x}") for k in range(4)))
    contents = []
    for cut in (100, 450):
        pieces = [
            strip(tmp_path / f"{cut}-left.tif", grid, 0, 0, labels[:, :cut]),
            strip(tmp_path / f"{cut}-right.tif", grid, 0, cut, labels[:, cut:]),
        ]
        written = write_cog(pieces, tmp_path / "map.tif", grid, legend, ["class"], {})
        contents.append([file.read_bytes() for file in written])
        assert [file.name for file in written] == ["map.tif", "map.tif.aux.xml", "map.qml"]
    assert contents[0] == contents[1]
    with open_class_map(tmp_path / "map.tif") as class_map:
        assert class_map.grid == grid and class_map.legend == legend


def test_full_disk_leaves_what_was_there(tmp_path):
    piece = strip(tmp_path / "piece.tif", GRID, 0, 0, np.random.default_rng(0).integers(0, 4, (900, 900), np.uint8))
    (path,) = write_cog([piece], tmp_path / "map.tif", GRID, HSL4, ["class"], {})[:1]
    former, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    # With the tail alone missing, GDAL says nothing.
    for share in (0.001, 0.1, 0.5, 0.9, 0.99):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * len(former)), limits[1]))
        try:
            with pytest.raises(StorageError, match="Free some space"):
                write_cog([piece], path, GRID, HSL4, ["class"], {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == former
        assert sorted(file.name for file in tmp_path.iterdir()) == [
            "map.qml",
            "map.tif",
            "map.tif.aux.xml",
            "piece.tif",
        ]


def test_space_asked_for_is_enough_for_noise(tmp_path):
    rng = np.random.default_rng(0)
    bands = [rng.integers(0, 255, (1300, 1100)).astype(np.uint8) for _ in range(3)]
    legend = Legend("many", tuple(LegendClass(str(k), "#102030") for k in range(255)))
    piece = strip(tmp_path / "piece.tif", GRID, 0, 0, *bands)
    written = write_cog([piece], tmp_path / "map.tif", GRID, legend, ["class", "a", "b"], {})
    size = sum(file.stat().st_size for file in written)
    assert size < bytes_needed(GRID, 3) < 2 * size


@pytest.mark.parametrize(
    ("row", "column", "shift", "said"),
    [(0, 0, 3.0, "does not lie on the map's pixels"), (1000, 0, 0.0, "reaches beyond the map")],
)
def test_piece_that_does_not_fit(tmp_path, row, column, shift, said):
    grid = Grid(GRID.crs, (10.0, 0.0, GRID.transform[2] + shift, 0.0, -10.0, GRID.transform[5]), 1300, 1100)
    piece = strip(tmp_path / "piece.tif", grid, row, column, np.zeros((400, 400), np.uint8))
    with pytest.raises(ValueError, match=said):
        write_cog([piece], tmp_path / "map.tif", GRID, HSL4, ["class"], {})
