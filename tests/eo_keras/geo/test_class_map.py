import json

import numpy as np
import pytest
import rasterio

from eo_keras.errors import SourceError
from eo_keras.geo.class_map import bands_path, open_class_map
from eo_keras.legends.catalogue import HSL4

LABELS = np.array([[0, 1, 2, 3], [3, 2, 255, 255], [0, 0, 0, 1]], np.uint8)
LEGEND = json.dumps({"name": "hsl4", "classes": [{"name": c.name, "colour": c.colour} for c in HSL4.classes]})


def write(path, *bands, nodata=255, colours=None, names=(), descriptions=None, **tags):
    pixels = np.stack([np.asarray(band) for band in bands])
    profile = {"driver": "GTiff", "height": pixels.shape[1], "width": pixels.shape[2], "count": len(pixels)}
    profile |= {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_500_000)}
    with rasterio.open(path, "w", dtype=pixels.dtype, nodata=nodata, **profile) as dataset:
        dataset.write(pixels)
        dataset.update_tags(**tags)
        if colours:
            dataset.write_colormap(1, colours)
        dataset.descriptions = descriptions or [None] * len(pixels)
    if names:
        categories = "".join(f"<Category>{name}</Category>" for name in names)
        text = f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames></PAMRasterBand>'
        path.with_name(path.name + ".aux.xml").write_text(text + "</PAMDataset>")
    return path


def test_map_of_this_program_with_its_further_bands(tmp_path):
    path = write(tmp_path / "town.tif", LABELS, LEGEND=LEGEND, TITLE="Town")
    confidence = (LABELS % 5 * 60).astype(np.uint8)
    write(bands_path(path), confidence, nodata=None, descriptions=["confidence"], LEGEND=LEGEND, TITLE="Town")
    with open_class_map(path) as class_map:
        assert class_map.legend == HSL4
        assert (class_map.grid.crs, class_map.grid.height, class_map.grid.width) == ("EPSG:32633", 3, 4)
        assert class_map.nodata == 255 and class_map.tags["TITLE"] == "Town"
        assert class_map.band_names == ("class", "confidence")
        np.testing.assert_array_equal(class_map.read(0, 0, 3, 4), LABELS)
        np.testing.assert_array_equal(class_map.read(1, 2, 2, 2), LABELS[1:, 2:])
        np.testing.assert_array_equal(class_map.read(1, 0, 1, 4, band="confidence"), confidence[1:2])
        assert list(class_map.row_bands(2)) == [(0, 2), (2, 1)]
        with pytest.raises(SourceError, match="no band 'entropy'; expected one of class, confidence"):
            class_map.read(0, 0, 1, 1, band="entropy")


def test_bands_of_a_former_map_are_refused(tmp_path):
    path = write(tmp_path / "town.tif", LABELS, LEGEND=LEGEND, SCENES="new")
    write(bands_path(path), LABELS, descriptions=["confidence"], LEGEND=LEGEND, SCENES="old")
    with pytest.raises(SourceError, match="it is of another map"), open_class_map(path):
        pass


def test_map_of_another_program_by_category_names(tmp_path):
    codes = np.array([[10, 20, 20], [0, 30, 10]], np.uint8)
    names = [""] * 10 + ["trees"] + [""] * 9 + ["water"] + [""] * 9 + ["town"]
    path = write(tmp_path / "cover.tif", codes, nodata=30, names=names, colours={10: (0, 100, 0), 30: (9, 9, 9)})
    with open_class_map(path) as class_map:
        # The number of no data is no class, whatever its name, nor is one without a name.
        assert class_map.legend.class_names == ("trees", "water")
        assert class_map.legend.colours[0] == "#006400" and class_map.legend.colours[1] != "#000000"
        np.testing.assert_array_equal(class_map.codes, [10, 20])
        np.testing.assert_array_equal(class_map.read(0, 0, 2, 3), [[0, 1, 1], [255, 255, 0]])


def test_map_of_another_program_by_color_table_and_mask(tmp_path):
    labels = np.array([[1, 2], [2, 1]], np.uint8)
    path = write(tmp_path / "cover.tif", labels, nodata=None, colours={1: (255, 0, 0), 2: (0, 0, 255)})
    with rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.array([[255, 255], [0, 255]], np.uint8))
    with open_class_map(path) as class_map:
        assert class_map.legend.class_names == ("class 1", "class 2")
        assert class_map.legend.colours == ("#ff0000", "#0000ff")
        np.testing.assert_array_equal(class_map.read(0, 0, 2, 2), [[0, 1], [255, 0]])


def test_number_without_a_class_is_named(tmp_path):
    path = write(tmp_path / "cover.tif", np.array([[1, 7]], np.int16), nodata=None, names=["land", "water"])
    with open_class_map(path) as class_map, pytest.raises(SourceError, match="number 7, which has no name"):
        class_map.read(0, 0, 1, 2)


@pytest.mark.parametrize(
    ("bands", "options", "said"),
    [
        ([LABELS], {}, "its numbers have no names and no colors"),
        ([LABELS.astype(np.float32)], {}, "numbers are of the type float32"),
        ([LABELS, LABELS], {"names": ["a", "b", "c", "d"]}, "it has 2 bands"),
        ([LABELS], {"LEGEND": "{}"}, "its tag LEGEND cannot be read"),
        ([LABELS], {"LEGEND": '{"name": "none", "classes": []}'}, "it has 0 classes"),
    ],
)
def test_rasters_that_are_no_class_maps(tmp_path, bands, options, said):
    path = write(tmp_path / "raster.tif", *bands, **options)
    with pytest.raises(SourceError, match=said), open_class_map(path):
        pass


def test_missing_file(tmp_path):
    with pytest.raises(SourceError, match="there is no such file"), open_class_map(tmp_path / "no.tif"):
        pass


def test_small_copy_takes_the_most_frequent_class(tmp_path):
    labels = np.repeat(np.repeat(LABELS[:2], 50, 0), 50, 1)
    labels[::7, ::7] = 255
    path = write(tmp_path / "town.tif", labels, labels, descriptions=["class", "confidence"], LEGEND=LEGEND)
    with open_class_map(path) as class_map:
        np.testing.assert_array_equal(class_map.read_small(4), LABELS[:2])
        assert class_map.read_small(1000).shape == (100, 200)
        assert class_map.read_small(2, band="confidence").shape == (1, 2)
