import csv
import io
import re
import zipfile

import numpy as np
import pytest
import rasterio
import rasterio.warp
from PIL import Image
from rasterio.io import MemoryFile
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eo_keras.errors import OptionError, SourceError
from eo_keras.legends.catalogue import EUROSAT
from eo_keras.sensors import radiometry
from eo_keras.sensors.sentinel2 import EUROSAT_ORDER
from tfrecords_builder.synthetic import archives, baselines

PER_CLASS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    archives.write_eurosat_archive(folder / "rgb.zip", kind="rgb", patches_per_class=PER_CLASS)
    archives.write_eurosat_archive(folder / "ms.zip", kind="ms", patches_per_class=PER_CLASS)
    return folder


def geotiff(data):
    with MemoryFile(data) as memory, memory.open() as dataset:
        return dataset.read(), dataset.profile, dataset.descriptions, dataset.tags()


def test_members_are_named_as_the_published_ones(folder):
    names = [f"{c}/{c}_{n}" for c in EUROSAT.class_names for n in range(1, PER_CLASS + 1)]
    assert zipfile.ZipFile(folder / "rgb.zip").namelist() == [f"EuroSAT_RGB/{name}.jpg" for name in names]
    assert zipfile.ZipFile(folder / "ms.zip").namelist() == [f"EuroSAT_MS/{name}.tif" for name in names]


def test_geotiffs_are_as_the_published_ones(folder):
    archive = zipfile.ZipFile(folder / "ms.zip")
    image, profile, descriptions, tags = geotiff(archive.read("EuroSAT_MS/River/River_2.tif"))
    assert image.shape == (13, 64, 64) and image.dtype == np.uint16 and image.min() >= 1
    assert descriptions == (None,) * 13 and not [tag for tag in tags if "B0" in tags[tag]]
    assert profile["crs"] == "EPSG:32633" and profile["transform"].a == 10 and profile["nodata"] is None
    # The tenth stored band is cirrus, and the last one B8A.
    means = image.mean((1, 2))
    assert means.argmin() == EUROSAT_ORDER.index("B10") == 9
    assert np.corrcoef(image[12].ravel(), image[6].ravel())[0, 1] > 0.9


def test_jpegs_are_the_recipe_applied_to_the_same_place(folder):
    rgb, ms = zipfile.ZipFile(folder / "rgb.zip"), zipfile.ZipFile(folder / "ms.zip")
    for class_name in EUROSAT.class_names:
        jpeg = Image.open(io.BytesIO(rgb.read(f"EuroSAT_RGB/{class_name}/{class_name}_3.jpg")))
        assert jpeg.size == (64, 64) and jpeg.mode == "RGB"
        image = geotiff(ms.read(f"EuroSAT_MS/{class_name}/{class_name}_3.tif"))[0].astype(np.float64)
        expected = np.clip(1 + image[[3, 2, 1]].transpose(1, 2, 0) * 254 / 2750, 1, 255)
        # Chroma is stored at half the resolution, brightness at all of it.
        difference = np.asarray(jpeg, np.float64) - expected
        assert np.abs(difference).mean() < 4, class_name
        assert np.abs(difference @ (0.299, 0.587, 0.114)).mean() < 0.8, class_name
        assert np.abs(difference.mean((0, 1))).max() < 0.5, class_name


def test_recipe_at_its_ends():
    found = radiometry.stretch_like_eurosat_jpeg(np.array([0, 1, 6, 1375, 2750, 2751, 65535], np.uint16))
    assert found.tolist() == [1, 1, 2, 128, 255, 255, 255]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for kind in ("rgb", "ms"):
        written = [
            archives.write_eurosat_archive(tmp_path / f"{kind}{i}.zip", kind=kind, patches_per_class=1, seed=seed)
            for i, seed in enumerate((1, 1, 2))
        ]
        first, again, other = (path.read_bytes() for path in written)
        assert first == again
        assert first != other
    assert not list(tmp_path.glob(".partial-*"))


def test_a_smaller_archive_and_a_folder_hold_the_same_patches(folder, tmp_path):
    path = archives.write_eurosat_archive(tmp_path / "ms", kind="ms", patches_per_class=2)
    files = sorted(path.rglob("*.tif"))
    assert len(files) == 20
    archive = zipfile.ZipFile(folder / "ms.zip")
    for file in files:
        assert file.read_bytes() == archive.read(file.relative_to(path).as_posix())


def test_patches_are_distinct_places(folder):
    archive = zipfile.ZipFile(folder / "ms.zip")
    places = set()
    for name in archive.namelist()[::5]:
        with MemoryFile(archive.read(name)) as memory, memory.open() as dataset:
            places.add(dataset.bounds)
    assert len(places) == len(archive.namelist()[::5])
    rgb = zipfile.ZipFile(folder / "rgb.zip")
    assert len({info.CRC for info in rgb.infolist()}) == 10 * PER_CLASS


def test_first_release_layouts(tmp_path):
    old = archives.write_eurosat_archive(tmp_path / "a.zip", kind="rgb", patches_per_class=1, layout="2750")
    assert zipfile.ZipFile(old).namelist()[0] == "2750/AnnualCrop/AnnualCrop_1.jpg"
    old = archives.write_eurosat_archive(tmp_path / "b.zip", kind="ms", patches_per_class=1, layout="allbands")
    prefix = "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
    assert zipfile.ZipFile(old).namelist()[-1] == f"{prefix}/SeaLake/SeaLake_1.tif"


def test_coordinates_are_the_centres_of_the_patches(folder, tmp_path):
    path = archives.write_coordinates(tmp_path / "coordinates.csv", patches_per_class=PER_CLASS)
    text = path.read_text()
    assert text.splitlines()[0] == "patch,latitude,longitude"
    assert re.fullmatch(r"AnnualCrop_1,\d+\.\d{6},\d+\.\d{6}", text.splitlines()[1])
    rows = {row["patch"]: row for row in csv.DictReader(io.StringIO(text))}
    assert len(rows) == 10 * PER_CLASS
    archive = zipfile.ZipFile(folder / "ms.zip")
    with MemoryFile(archive.read("EuroSAT_MS/Forest/Forest_7.tif")) as memory, memory.open() as dataset:
        bounds = dataset.bounds
        x, y = (bounds.left + bounds.right) / 2, (bounds.bottom + bounds.top) / 2
        lon, lat = rasterio.warp.transform(dataset.crs, "EPSG:4326", [x], [y])
    assert float(rows["Forest_7"]["latitude"]) == pytest.approx(lat[0], abs=1e-6)
    assert float(rows["Forest_7"]["longitude"]) == pytest.approx(lon[0], abs=1e-6)


def test_progress_is_told(tmp_path):
    told = []
    archives.write_eurosat_archive(
        tmp_path / "a.zip", kind="rgb", patches_per_class=1, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(n, 10) for n in range(1, 11)]


def test_an_interrupted_archive_leaves_nothing(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    for name in ("a.zip", "a"):
        with pytest.raises(KeyboardInterrupt):
            archives.write_eurosat_archive(tmp_path / name, kind="rgb", patches_per_class=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_refused(tmp_path):
    write = archives.write_eurosat_archive
    with pytest.raises(OptionError, match="kind"):
        write(tmp_path / "a.zip", kind="sar", patches_per_class=1)
    with pytest.raises(OptionError, match="layout"):
        write(tmp_path / "a.zip", kind="rgb", patches_per_class=1, layout="allbands")
    for number in (0, -3, 1.5, 10**6):
        with pytest.raises(OptionError, match="patches_per_class"):
            write(tmp_path / "a.zip", kind="rgb", patches_per_class=number)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("mine")
    with pytest.raises(OptionError, match="not an empty folder"):
        write(tmp_path / "full", kind="rgb", patches_per_class=1)
    assert (tmp_path / "full" / "precious.txt").read_text() == "mine"


def test_mean_colour_does_not_give_the_classes_away(folder):
    features, labels = baselines.archive_band_means(folder / "ms.zip")
    assert features.shape == (10 * PER_CLASS, 13)
    # Many splits, since one of a few patches says little.
    scores, peers = [], []
    for seed in range(5):
        train = np.random.default_rng(seed).random(len(labels)) < 0.8
        scores.append(baselines.band_mean_baseline(features, labels, train))
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(features[train], labels[train])
        peers.append(model.score(features[~train], labels[~train]))
    assert np.mean(scores) <= 0.70
    np.testing.assert_allclose(scores, peers, atol=0.02)
    assert 0.2 < baselines.mean_colour_baseline(folder / "rgb.zip") <= 0.70


def test_baseline_of_what_is_easy_and_of_what_is_noise():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 800)
    train = np.arange(800) < 600
    assert baselines.band_mean_baseline(np.eye(4)[labels], labels, train) == 1.0
    assert baselines.band_mean_baseline(rng.normal(size=(800, 5)), labels, train) < 0.4


def test_baseline_refuses_what_it_cannot_score(tmp_path):
    features, labels = np.zeros((4, 2)), np.arange(4)
    with pytest.raises(OptionError, match="shapes"):
        baselines.band_mean_baseline(features, labels[:3], np.ones(4, bool))
    with pytest.raises(OptionError, match="none to test"):
        baselines.band_mean_baseline(features, labels, np.ones(4, bool))
    with pytest.raises(SourceError, match="no .jpg"):
        baselines.mean_colour_baseline(tmp_path)
    (tmp_path / "Forest").mkdir()
    (tmp_path / "Forest" / "Forest_1.jpg").write_bytes(b"no image")
    with pytest.raises(SourceError, match="cannot be read"):
        baselines.mean_colour_baseline(tmp_path)
