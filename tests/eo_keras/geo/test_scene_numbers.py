"""Ranges of stored numbers and what they are said to mean: usual mistakes are named, real scenes are not refused."""

import numpy as np
import pytest
import rasterio

from eo_keras.errors import OptionError, SourceError
from eo_keras.geo import scenes
from eo_keras.geo.scene_reader import SceneReader
from eo_keras.geo.scenes import SceneOptions
from tests.harness import products

BANDS = ("B04", "B03", "B02")


def ground(low, high, seed=0, size=60):
    """Reflectance between two numbers, in blocks as of fields."""
    blocks = np.random.default_rng(seed).uniform(low, high, (3, size // 4, size // 4))
    return np.kron(blocks, np.ones((4, 4)))


def write(path, numbers, dtype, tags=None, names=BANDS, **more):
    numbers = numbers if dtype.startswith("float") else np.rint(numbers)
    products.write_raster(path, numbers.astype(dtype), 10, names=names, **more)
    if tags:
        with rasterio.open(path, "r+") as file:
            file.scales, file.offsets = (tags[0],) * len(names), (tags[1],) * len(names)
    return path


TOWN = (0.03, 0.35)


@pytest.mark.parametrize(
    ("dtype", "units", "factor", "looks", "remedy"),
    [
        ("float32", "reflectance", 100, "per cent", "`scene_scale=0.01"),
        ("float32", "dn", 100, "per cent", "`scene_scale=0.01"),
        ("uint16", None, 100, "per cent", "`scene_scale=0.01"),
        ("float32", "reflectance", 255 / 0.35, "grey values", "keeps its numbers"),
        ("float32", "dn", 255 / 0.35, "grey values", "keeps its numbers"),
        ("uint16", None, 255 / 0.35, "grey values", "keeps its numbers"),
        ("int16", None, 254 / 0.35, "grey values", "keeps its numbers"),
        ("uint16", None, 65535, "16 bits", "`scene_scale=1.5259e-05"),
        ("float32", "dn", 65535, "16 bits", "`scene_scale=1.5259e-05"),
        ("float32", "reflectance", 65535, "stretched|digital numbers", "scene"),
        ("float32", "reflectance", 10_000, "digital numbers", "`scene_units=dn"),
        ("float64", "dn", 1, "look like reflectance;", "`scene_units=reflectance"),
        ("uint16", None, 1 / 0.35, "look like reflectance;", "keeps its numbers"),
        ("float32", "reflectance", 1e-4, "black", "keeps its numbers"),
    ],
)
def test_the_usual_mistakes_are_named_with_a_remedy(tmp_path, dtype, units, factor, looks, remedy):
    path = write(tmp_path / "town.tif", ground(*TOWN) * factor, dtype)
    with pytest.raises(SourceError, match=f"(?i)({looks}).*{remedy}"):
        scenes.open_scene(path, SceneOptions(units=units))


@pytest.mark.parametrize(
    ("dtype", "options", "factor"),
    [
        ("float32", {"scale": 0.01}, 100),
        ("uint16", {"scale": 0.01}, 100),
        ("uint16", {"scale": 1 / 65535}, 65535),
        ("uint16", {}, 10_000),
        ("uint32", {}, 10_000),
        ("int32", {"offset": -1000}, 10_000),
        ("float32", {"units": "dn", "offset": -1000}, 10_000),
        ("float64", {"units": "reflectance"}, 1),
        ("float64", {"scale": 1, "offset": -0.1}, 1),
        ("float32", {"scale": 1e-4}, 10_000),
        ("uint8", {"scale": 1 / 255}, 255),
    ],
)
def test_after_the_remedy_the_numbers_are_right(tmp_path, dtype, options, factor):
    reflectance = ground(*TOWN)
    offset = options.get("offset", 0)
    path = write(tmp_path / "town.tif", reflectance * factor - offset, dtype)
    with SceneReader(scenes.open_scene(path, SceneOptions(level="L1C", **options))) as reader:
        image, _ = reader.read(0, 0, 60, 60)
    step = 10_000 / factor if dtype[0] in "ui" else 0
    np.testing.assert_allclose(image.transpose(2, 0, 1), reflectance * 10_000, atol=step / 2 + 1)


def test_sixteen_bits_are_known_by_their_gaps(tmp_path):
    numbers = np.random.default_rng(1).integers(300, 1400, (3, 60, 60))
    for name, stretched in (("round", np.rint), ("cut", np.floor)):
        path = write(tmp_path / f"{name}.tif", stretched(numbers / 10_000 * 65535), "uint16")
        with pytest.raises(SourceError, match="x 65535"):
            scenes.open_scene(path)
        assert scenes.open_scene(path, SceneOptions(scale=1 / 65535)).layers[0].scale == pytest.approx(0.1526, abs=1e-4)
    grey = np.random.default_rng(1).integers(10, 90, (3, 60, 60)) * 257
    with pytest.raises(SourceError, match="8-bit numbers stretched"):
        scenes.open_scene(write(tmp_path / "grey.tif", grey, "uint16"))
    scenes.open_scene(write(tmp_path / "right.tif", numbers, "uint16"))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("deep water", 0.004, 0.03),
        ("black lake", 0.008, 0.016),
        ("snow", 0.7, 1.15),
        ("snow on slopes", 0.9, 1.5),
        ("cloud", 0.5, 1.1),
        ("desert", 0.25, 0.7),
        ("forest", 0.01, 0.06),
    ],
)
@pytest.mark.parametrize(("dtype", "units", "factor"), [("uint16", None, 10_000), ("float32", "reflectance", 1)])
def test_dark_and_bright_scenes_are_not_refused(tmp_path, name, low, high, dtype, units, factor):
    path = write(tmp_path / "scene.tif", ground(low, high) * factor, dtype)
    assert scenes.open_scene(path, SceneOptions(units=units)).warnings == ()


def test_single_infrared_and_cirrus_bands_may_be_nearly_black(tmp_path):
    numbers = np.random.default_rng(0).integers(3, 25, (3, 60, 60))
    scenes.open_scene(write(tmp_path / "black.tif", numbers, "uint16", names=("B09", "B10", "B12")))


def test_who_repeats_the_usual_scale_insists_on_a_dark_scene(tmp_path):
    path = write(tmp_path / "black.tif", ground(0.0003, 0.0045) * 10_000, "uint16")
    with pytest.raises(SourceError, match=r"if they are correct, say `scene_scale=0\.0001"):
        scenes.open_scene(path)
    scenes.open_scene(path, SceneOptions(scale=0.0001))
    with pytest.raises(SourceError, match="they look like"):
        scenes.open_scene(path, SceneOptions(scale=0.00001))


def test_negative_numbers_are_told_apart(tmp_path):
    with pytest.raises(SourceError, match=r"-9999.*does not declare.*-a_nodata -9999"):
        numbers = ground(*TOWN) * 10_000
        numbers[:, :10] = -9999
        scenes.open_scene(write(tmp_path / "fill.tif", numbers, "int16"))
    scenes.open_scene(write(tmp_path / "declared.tif", numbers, "int16", nodata=-9999))
    with pytest.raises(SourceError, match="below 0.*applied already.*`scene_offset=0"):
        scenes.open_scene(
            write(tmp_path / "twice.tif", ground(0.02, 0.12) * 10_000, "uint16"), SceneOptions(offset=-1000)
        )
    with pytest.raises(SourceError, match="below 0"):
        scenes.open_scene(write(tmp_path / "radar.tif", -ground(3, 20), "float32"), SceneOptions(units="dn"))
    # A little below 0 is what an overdone correction leaves of water.
    scenes.open_scene(write(tmp_path / "water.tif", ground(0.09, 0.14) * 10_000, "uint16"), SceneOptions(offset=-1000))


@pytest.mark.parametrize(
    ("dtype", "units", "fill"),
    [("int16", None, 32767), ("uint16", None, 55537), ("float32", "reflectance", 1e20), ("float32", "reflectance", -1)],
)
def test_an_undeclared_number_of_no_data_is_named_on_either_side(tmp_path, dtype, units, fill):
    numbers = ground(*TOWN) * (1 if units else 10_000)
    numbers[:, :10] = fill
    with pytest.raises(SourceError, match=r"16\.7% of the numbers of B04.*no data.*gdal_edit.py -a_nodata") as refused:
        scenes.open_scene(write(tmp_path / "fill.tif", numbers, dtype), SceneOptions(units=units))
    said = float(str(refused.value).rpartition(" ")[2])
    path = write(tmp_path / "declared.tif", numbers, dtype, nodata=said)
    with SceneReader(scenes.open_scene(path, SceneOptions(units=units))) as reader:
        mask = reader.read(0, 0, 60, 60)[1]
    assert (mask[:10] == 0).all()
    assert (mask[10:] == 1).all()


def test_bright_plateaus_of_glint_and_dark_grey_pictures_are_no_fill(tmp_path):
    numbers = ground(*TOWN) * 10_000
    numbers[:, :1, :30] = np.linspace(12_000, 27_000, 30)
    numbers[:, :1, 20:30] = 28_000
    scenes.open_scene(write(tmp_path / "glint.tif", numbers, "uint16"))
    with pytest.raises(SourceError, match="or grey values of a dark picture"):
        scenes.open_scene(write(tmp_path / "grey.tif", ground(0.02, 0.29) * 255, "uint16"))


def test_a_statement_that_goes_before_flags_is_corrected_by_the_column(tmp_path):
    path = write(tmp_path / "tags.tif", ground(0.02, 0.12) * 10_000, "uint16", tags=(1e-4, -0.1))
    with pytest.raises(SourceError, match="applied already.*give the city a column scene_offset with 0"):
        scenes.open_scene(path, SceneOptions(offset=0))
    scenes.open_scene(path, SceneOptions(offset=0, override_metadata=True))


def test_an_offset_tag_of_reflectance_is_reflectance(tmp_path):
    def first(path, **options):
        with SceneReader(scenes.open_scene(path, SceneOptions(level="L1C", **options))) as reader:
            return reader.read(0, 0, 1, 1)[0].ravel().tolist()

    flat = np.full((3, 20, 20), 0.4)
    path = write(tmp_path / "float.tif", flat, "float32", tags=(1.0, -0.1))
    assert first(path, units="reflectance") == [3000] * 3
    path = write(tmp_path / "both.tif", flat * 10_000, "uint16", tags=(0.0001, -0.1))
    assert first(path) == [3000] * 3
    path = write(tmp_path / "whole.tif", flat * 10_000, "uint16", tags=(1.0, -1000.0))
    assert first(path) == [3000] * 3
    path = write(tmp_path / "floats_as_dn.tif", flat * 10_000, "float32", tags=(1.0, -1000.0))
    assert first(path, units="dn") == [3000] * 3
    path = write(tmp_path / "odd.tif", flat * 10_000, "uint16", tags=(1.0, -0.1))
    with pytest.raises(SourceError, match="offset -0.1 and scale 1"):
        scenes.open_scene(path)
    assert first(path, offset=-1000) == [3000] * 3


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"units": "percent"}, "scene_units"),
        ({"scale": 0}, "scene_scale"),
        ({"scale": -1}, "scene_scale"),
        ({"scale": float("nan")}, "scene_scale"),
        ({"scale": 0.01, "units": "dn"}, "scene_units"),
        ({"offset": -0.1}, "scene_offset"),
        ({"offset": float("nan")}, "scene_offset"),
        ({"offset": -1000, "scale": 0.01}, "scene_offset"),
    ],
)
def test_what_cannot_be_said_of_numbers_is_refused_by_its_flag(options, flag):
    with pytest.raises(OptionError, match=flag):
        SceneOptions(**options)


@pytest.mark.real_data
def test_real_scenes_are_in_range(real_data):
    names = "B01,B02,B03,B04,B05,B06,B07,B08,B8A,B09,B11,B12"
    without_b09 = names.replace("B09,", "")
    samples = real_data / "samples" / "s2"
    for pattern, order in (("*TOA_10.tif", names), ("*BOA_10.tif", without_b09), ("Boadella_*.tif", names)):
        for path in sorted(samples.rglob(pattern)):
            scenes.open_scene(path, SceneOptions(band_order=scenes.parse_band_order(order)))
    for path in (*samples.rglob("2023*.tif"), *samples.rglob("leipzig*.tif")):
        scenes.open_scene(path, SceneOptions(units="dn"))
        with pytest.raises(SourceError, match="`scene_units=dn"):
            scenes.open_scene(path, SceneOptions(units="reflectance"))
