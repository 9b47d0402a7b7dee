import collections
import dataclasses
import json
import shutil

import numpy as np
import pytest

from eo_keras.core import files
from eo_keras.errors import BandError, OptionError, SourceError, StorageError
from eo_keras.geo import images as rasters
from eo_keras.geo import scenes
from eo_keras.geo.class_map import open_class_map
from eo_keras.mapping import mapper, predictors
from eo_keras.mapping.options import MapOptions
from eo_keras.mapping.products import ProductOptions
from eo_keras.metrics import calibration
from eo_keras.runs import folder as runs
from eo_keras.runs import temperature
from eo_keras.sensors.radiometry import stretch_like_eurosat_jpeg
from eo_keras.serving import saved_model
from tests.harness import products

BANDS = ["B02", "B03", "B04"]
SIZE = 150


def textured(name, size, resolution):
    """Squares of several brightness with noise, and a corner without data."""
    rng = np.random.default_rng(len(name) + int(name[-2:], 16))
    squares = np.kron(rng.integers(300, 3000, (size // 20 + 1,) * 2), np.ones((20, 20)))[:size, :size]
    pixels = (squares + rng.integers(0, 200, (size, size))).astype(np.uint16)
    pixels[:40, :30] = 0
    return pixels


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    folder = tmp_path_factory.mktemp("town")
    return products.write_product(folder, bands=BANDS, size=SIZE, pixels=textured)


@pytest.fixture(scope="module")
def run_dir(finished_on_tiles, town, tmp_path_factory):
    """A segmentation run whose classes differ from place to place: a short training hardly gets so far."""
    folder = tmp_path_factory.mktemp("runs") / "decided"
    shutil.copytree(finished_on_tiles[0].run_dir, folder)
    model = runs.open_run(folder).model
    patch = np.stack([textured(band, SIZE, 10)[64:128, 64:128] for band in BANDS[::-1]], axis=-1)
    logits = np.log(model.predict(patch[None], verbose=0).reshape(-1, 4))
    layer, scale = [layer for layer in model.layers if layer.weights][-1], 2 / logits.std(axis=0).mean()
    kernel, bias = layer.get_weights()
    layer.set_weights([scale * kernel, scale * (bias - logits.mean(axis=0))])
    runs.save_model(model, folder / runs.MODEL_NAME)
    return str(folder)


@pytest.fixture(scope="module")
def segmenter(run_dir):
    return predictors.open_predictor(run_dir)


@pytest.fixture
def make(run_dir, town, tmp_path):
    """A function that returns options of a map of the town in blocks of 48 rows."""

    def options(output="map.tif", **changes):
        chosen = {"run_dir": run_dir, "scenes": (str(town),), "block_rows": 48, "confidence": True}
        return MapOptions(output=str(tmp_path / output), **chosen | changes)

    return options


def bands_of(path):
    with open_class_map(path) as found:
        height, width = found.grid.height, found.grid.width
        return {band: found.read(0, 0, height, width, band) for band in found.band_names}


def made(folder, stem):
    """Returns the bytes of a map's files by the end of their names."""
    return {path.name.removeprefix(stem): path.read_bytes() for path in folder.glob(f"{stem}[._]*") if path.is_file()}


def stop_after(pixels):
    def progress(stage, done, total):
        if stage == mapper.STAGE and done >= pixels:
            raise KeyboardInterrupt

    return progress


def test_same_bytes_after_an_interruption(make, tmp_path):
    report = mapper.map_scenes(make("whole.tif"))
    assert report.kept_blocks == 0 and set(made(tmp_path, "whole")) >= {".tif", ".tif.aux.xml", "_bands.tif"}
    with pytest.raises(KeyboardInterrupt):
        mapper.map_scenes(make(), progress=stop_after(80 * SIZE))
    assert not (tmp_path / "map.tif").exists() and not (tmp_path / "map_bands.tif").exists()
    # With other options or another scene, these blocks are not resumed.
    for changes in ({"overlap": 8}, {"confidence": False}, {"block_rows": 64}, {"allow_level_mismatch": True}):
        with pytest.raises(StorageError, match=f"unfinished map of something else.*{next(iter(changes))}"):
            mapper.map_scenes(make(**changes))
    # Of blocks that are there, no more space is asked for.
    needed = mapper.plan_map(make("whole.tif", overwrite=True)).bytes_needed
    assert mapper.plan_map(make()).bytes_needed <= needed - 2 * 32 * SIZE
    report = mapper.map_scenes(make())
    assert report.kept_blocks >= 1
    assert made(tmp_path, "map") == made(tmp_path, "whole")
    assert not (tmp_path / "map.tif.unfinished").exists()


def test_a_changed_area_or_scene_is_noticed(make, town, tmp_path):
    from tests.harness import towns

    area, own = tmp_path / "area.gpkg", tmp_path / town.name
    shutil.copytree(town, own)
    towns.write_land_use(area, SIZE, products.CORNER, margin=10)
    options = make(area=str(area), scenes=(str(own),))
    with pytest.raises(KeyboardInterrupt):
        mapper.map_scenes(options, progress=stop_after(1))
    area.unlink()
    towns.write_land_use(area, SIZE, products.CORNER, margin=20)
    with pytest.raises(StorageError, match=r"unfinished map of something else \(.*area.gpkg has changed"):
        mapper.map_scenes(options)
    with open(next(own.rglob("*B04*.tif")), "ab") as file:
        file.write(b"0")
    with pytest.raises(StorageError, match=r"unfinished map of something else"):
        mapper.map_scenes(options)
    mapper.map_scenes(dataclasses.replace(options, overwrite=True))
    classes = bands_of(tmp_path / "map.tif")["class"]
    # The area's border lies half a pixel or less off, for it was written in another projection.
    assert classes.shape in {(110, 110), (111, 111), (112, 112)}


def test_blocks_batches_and_windows_do_not_change_the_map(make, segmenter, town, tmp_path):
    mapper.map_scenes(make("one.tif", block_rows=1000, probabilities=True))
    mapper.map_scenes(make("two.tif", block_rows=32, batch_size=3, probabilities=True))
    one, two = bands_of(tmp_path / "one.tif"), bands_of(tmp_path / "two.tif")
    assert len(np.unique(one["class"])) > 2, "classes and no data"
    np.testing.assert_array_equal(one["class"] == 255, textured("B04", SIZE, 10) == 0)
    chances = np.stack([band for name, band in one.items() if name.startswith("p_")])
    best = np.sort(chances, axis=0)[-2:].astype(int)
    decided = best[1] - best[0] > 1
    np.testing.assert_array_equal(one["class"][decided], two["class"][decided])
    for name in set(one) - {"class"}:
        assert abs(one[name].astype(int) - two[name]).max() <= 1
    np.testing.assert_array_equal(one["confidence"], chances.max(axis=0))
    # In memory the same, and of a window exactly that part.
    with open_class_map(tmp_path / "one.tif") as found:
        assert json.loads(found.tags["SCENES"])[0]["level"] == "L1C" and found.tags["CLOUD_MASK"] == "none"
    scene = scenes.open_scene(town)
    whole = mapper.map_scene(segmenter, scene, probabilities=True)
    np.testing.assert_array_equal(whole.classes[decided], one["class"][decided])
    part = mapper.map_scene(segmenter, scene, (21, 33, 70, 90), probabilities=True)
    here = slice(21, 91), slice(33, 123)
    assert part.grid == whole.grid.window(21, 33, 70, 90)
    for name in ("classes", "confidence", "looks", "probabilities"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[here])


@pytest.mark.slow
def test_workers_make_the_same_map(make, tmp_path):
    mapper.map_scenes(make("one.tif"))
    mapper.map_scenes(make("two.tif", num_workers=2))
    assert made(tmp_path, "one") == made(tmp_path, "two")


def test_files_that_are_there(make, tmp_path):
    (tmp_path / "map_bands.tif").write_bytes(b"mine")
    with pytest.raises(StorageError, match="map_bands.tif: it is already there"):
        mapper.plan_map(make())
    # Without further bands there is no such file, and it stays.
    mapper.map_scenes(make(confidence=False))
    assert (tmp_path / "map_bands.tif").read_bytes() == b"mine"
    report = mapper.map_scenes(make("other.tif", products=ProductOptions(areas=True)))
    assert not report.warnings
    before = (tmp_path / "other.tif").read_bytes()
    report = mapper.map_scenes(make("other.tif", confidence=False, overlap=0))
    assert report.warnings == ("other_areas.csv beside the map was not written with it",)
    assert not (tmp_path / "other_bands.tif").exists() and (tmp_path / "other.tif").read_bytes() != before
    (tmp_path / "other.tif").write_bytes(b"mine")
    with pytest.raises(StorageError, match="other.tif: it is already there"):
        mapper.plan_map(make("other.tif", confidence=False))


def test_a_truncated_band(make, tmp_path):
    rough = products.write_product(tmp_path, bands=BANDS, size=600, suffix=".jp2", pixels=textured)
    band = next(rough.rglob("*B03.jp2"))
    band.write_bytes(band.read_bytes()[: band.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"B03\.jp2: .*rows \d+ to \d+, columns 0 to 599 of the map") as caught:
        mapper.map_scenes(make(scenes=(str(rough),)))
    assert "\n" not in str(caught.value)
    assert not made(tmp_path, "map")


def test_what_does_not_fit_is_refused_before_the_start(make, make_run, monkeypatch, tmp_path):
    usage = collections.namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: usage(10**12, 10**12, 1000))
        with pytest.raises(StorageError, match=r"0.0 GB are free; expected up to"):
            mapper.plan_map(make())
    other = products.write_product(tmp_path, bands=BANDS, size=60, level="L2A", pixels=textured)
    with pytest.raises(SourceError, match=r"Level-2A; expected Level-1C.*`allow_level_mismatch`"):
        mapper.plan_map(make(scenes=(str(other),)))
    job = mapper.plan_map(make(scenes=(str(other),), allow_level_mismatch=True))
    assert mapper._tags(job)["LEVEL"] == "L2A (the model was trained on L1C)"
    poor = products.write_product(tmp_path / "poor", bands=["B04", "B08"], size=60)
    with pytest.raises(BandError, match=r"does not hold B03,B02"):
        mapper.plan_map(make(scenes=(str(poor),)))
    monkeypatch.setitem(rasters.REFLECTANCES, "uint8", None)
    nameless = make_run(tmp_path / "run", "uint8", ("B04", "B03", "B02"))
    with pytest.raises(BandError, match="no known relation to reflectance"):
        mapper.plan_map(make(run_dir=str(nameless.folder)))


def test_clouds_of_the_scene_classification_have_no_data(make, tmp_path):
    scl = np.full((75, 75), 4)
    scl[20:30, 40:60] = 9
    cloudy = products.write_product(tmp_path, bands=BANDS, size=SIZE, level="L2A", scl=scl, pixels=textured)
    mapper.map_scenes(make(scenes=(str(cloudy),), allow_level_mismatch=True))
    expected = np.kron(scl == 9, np.ones((2, 2))).astype(bool) | (textured("B04", SIZE, 10) == 0)
    np.testing.assert_array_equal(bands_of(tmp_path / "map.tif")["class"] == 255, expected)
    mapper.map_scenes(make("none.tif", scenes=(str(cloudy),), allow_level_mismatch=True, cloud_mask="none"))
    np.testing.assert_array_equal(bands_of(tmp_path / "none.tif")["class"] == 255, textured("B04", SIZE, 10) == 0)


def test_a_model_of_jpegs_and_its_symmetries(finished, town):
    run_dir = finished[0].run_dir
    scene, model = scenes.open_scene(town), predictors.open_predictor(run_dir)
    # Patches side by side: in their middle there is one prediction, that of the converted pixels.
    window = (64, 64, 64, 64)
    options = {"stride": 64, "probabilities": True}
    found = mapper.map_scene(model, scene, window, **options)
    pixels = np.stack([textured(band, SIZE, 10)[64:128, 64:128] for band in model.card.bands], axis=-1)
    from eo_keras.runs import folder as runs

    network = runs.open_run(run_dir).model
    patch = stretch_like_eurosat_jpeg(pixels)
    expected = network.predict(patch[None], verbose=0)[0]
    np.testing.assert_allclose(found.probabilities[20, 30], expected, atol=2e-3)
    turned = [np.rot90(one, turns) for one in (patch, patch[:, ::-1]) for turns in range(4)]
    expected = network.predict(np.stack(turned), verbose=0).mean(axis=0)
    found = mapper.map_scene(run_dir, scene, window, tta="d4", **options)
    np.testing.assert_allclose(found.probabilities[20, 30], expected, atol=2e-3)


def test_the_temperature_changes_confidences_alone(run_dir, town):
    folder = run_dir
    scene, kept = scenes.open_scene(town), temperature.path(folder)
    fitted = calibration.calibrate(
        np.arange(10) % 4, np.full((10, 4), 0.25), "val", model_sha256=files.sha256_of_file(f"{folder}/model.keras")
    )
    existed = kept.parent.is_dir()
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(calibration.to_bytes(dataclasses.replace(fitted, temperature=3.0)))
    try:
        scaled = mapper.map_scene(folder, scene, (40, 40, 64, 64), overlap=0)
        plain = mapper.map_scene(folder, scene, (40, 40, 64, 64), overlap=0, calibrated=False)
    finally:
        kept.unlink()
        if not existed:
            kept.parent.rmdir()
    # Windows side by side: nothing is blended, which could change classes.
    np.testing.assert_array_equal(scaled.classes, plain.classes)
    assert (scaled.confidence <= plain.confidence).all() and (scaled.confidence < plain.confidence - 0.01).any()


def test_a_model_file_and_an_export_give_the_map_of_their_run(run_dir, segmenter, town, tmp_path):
    scene, window = scenes.open_scene(town), (30, 30, 60, 60)
    expected = mapper.map_scene(segmenter, scene, window, probabilities=True)
    found = mapper.map_scene(f"{run_dir}/model.keras", scene, window)
    np.testing.assert_array_equal(found.classes, expected.classes)
    saved_model.export(runs.open_run(run_dir), tmp_path / "serving")
    found = mapper.map_scene(tmp_path / "serving", scene, window, probabilities=True)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-3)
    assert (found.classes != expected.classes).mean() < 1e-3
    with pytest.raises(OptionError, match="tta: the predictor is open already"):
        mapper.map_scene(segmenter, scene, window, tta="d4")


def test_an_earlier_map_is_no_scene(make, town, tmp_path):
    (tmp_path / "map.tif").write_bytes(b"an earlier map")
    job = mapper.plan_map(make(scenes=(str(town), f"{tmp_path}/*.tif"), overwrite=True))
    assert job.sources == (str(town),)
    with pytest.raises(OptionError, match="scenes: there is nothing but an earlier map"):
        mapper.plan_map(make(scenes=(f"{tmp_path}/*.tif",), overwrite=True))
