import csv
import dataclasses
import pathlib
import zipfile

import numpy as np
import pytest
import rasterio
from absl import flags
from PIL import Image
from rasterio.transform import from_origin

from eo_keras.core import files
from eo_keras.legends.catalogue import EUROSAT
from eo_keras.metrics import calibration
from eo_keras.runs import temperature
from eo_keras.sensors.radiometry import stretch_like_eurosat_jpeg
from eo_keras.sensors.sentinel2 import COMPOSITES, EUROSAT_ORDER, NOMINAL_ORDER
from launch import app, predict
from tests.launch.commands import launch as run_command

SIZE = 64
MEANS = dict(
    zip(EUROSAT_ORDER, (1354, 1118, 1043, 948, 1199, 2000, 2369, 2297, 732, 12, 1819, 1119, 2594), strict=True)
)


@pytest.fixture(scope="module")
def rgb_run(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "rgb", "uint8", COMPOSITES["RGB"])


@pytest.fixture(scope="module")
def swir_run(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "swir", "uint16", COMPOSITES["SWIR"], seed=2)


def write_geotiff(path, number, order=EUROSAT_ORDER, size=SIZE):
    """Writes a patch without band names; the same number gives the same pixels in any order."""
    rng = np.random.default_rng(number)
    bands = {name: rng.poisson(MEANS[name] * (0.5 + number % 7 / 4), (size, size)) for name in EUROSAT_ORDER}
    profile = {"driver": "GTiff", "height": size, "width": size, "count": len(order), "dtype": "uint16"}
    transform = from_origin(500000, 4877286, 10, 10)
    with rasterio.open(path, "w", crs="EPSG:32633", transform=transform, **profile) as dataset:
        dataset.write(np.stack([bands[name] for name in order]).astype(np.uint16))
    return np.stack([bands[name] for name in EUROSAT_ORDER], axis=-1).astype(np.uint16)


@pytest.fixture
def images(tmp_path):
    """A folder of three 13-band patches, and their pixels."""
    (tmp_path / "images").mkdir()
    return tmp_path / "images", np.stack([write_geotiff(tmp_path / "images" / f"{n}.tif", n) for n in range(3)])


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Runs the command in this process; returns its exit code, its output and its errors."""

    def run(run, *arguments, output=tmp_path / "predictions.csv"):
        # Flags of its own, so that other tests find the program's as they were.
        values = flags.FlagValues()
        app.define_flags(values)
        predict.define_flags(values)
        monkeypatch.setattr(predict, "FLAGS", values)
        words = ["predict", f"--run_dir={run.folder}", f"--output={output}", *arguments]
        return app.exit_code(predict.main, words, values), *capsys.readouterr()

    return run


def read_predictions(path):
    """Returns the columns before the probabilities, and the probabilities, of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "class_id", "class_name", "probability", *(f"p_{name}" for name in EUROSAT.class_names)]
    return [row[:4] for row in rows], np.array([row[4:] for row in rows], np.float64)


def test_a_13_band_geotiff_through_a_model_of_jpegs(command, rgb_run, images, tmp_path):
    folder, pixels = images
    code, out, err = command(rgb_run, f"--images={folder}/*.tif", "--batch_size=2")
    assert code == 0 and err == "", err
    expected = rgb_run.model.predict(stretch_like_eurosat_jpeg(pixels[..., [3, 2, 1]]), verbose=0)
    assert np.ptp(expected, axis=0).max() > 0.05, "the model gives all images the same probabilities"
    rows, probabilities = read_predictions(tmp_path / "predictions.csv")
    np.testing.assert_allclose(probabilities, expected, atol=2e-6)
    assert [row[0] for row in rows] == [f"{folder}/{n}.tif" for n in range(3)]
    for row, output in zip(rows, expected, strict=True):
        assert row[1:3] == [str(output.argmax()), EUROSAT.class_names[output.argmax()]]
        assert float(row[3]) == pytest.approx(output.max(), abs=2e-6)
    counts = dict(line.split() for line in out.splitlines() if line.startswith("  "))
    assert list(counts) == list(EUROSAT.class_names) and sum(map(int, counts.values())) == 3
    assert counts[rows[0][2]] == str([row[2] for row in rows].count(rows[0][2]))
    assert f"{tmp_path / 'predictions.csv'}: 3 images" in out.splitlines()[-1] and "warning" not in out


def test_digital_numbers_in_any_order_through_a_model_of_uint16(command, swir_run, images, tmp_path):
    folder, pixels = images
    write_geotiff(tmp_path / "nominal.tif", 1, NOMINAL_ORDER)
    expected = swir_run.model.predict(pixels[..., [11, 12, 3]], verbose=0)
    output = tmp_path / "new" / "predictions.csv"
    code, _, err = command(swir_run, f"--images={folder}", output=output)
    assert code == 0 and err == "", err
    np.testing.assert_allclose(read_predictions(output)[1], expected, atol=2e-6)
    code, out, _ = command(swir_run, f"--images={tmp_path}/nominal.tif", "--image_bands=all", "--overwrite")
    assert code == 0 and "warning" not in out
    np.testing.assert_allclose(read_predictions(tmp_path / "predictions.csv")[1], expected[1:2], atol=2e-6)


def test_pictures_in_several_places(command, rgb_run, tmp_path):
    rng, pixels = np.random.default_rng(1), []
    for name in ("b/1.jpg", "a.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(40, 200, (SIZE, SIZE, 3), np.uint8)).save(path)
        pixels.insert(0, np.asarray(Image.open(path)))
    code, _, err = command(rgb_run, f"--images={tmp_path}/b", f"--images={tmp_path}/*.png", "--image_bands=RGB")
    assert code == 0 and err == "", err
    rows, probabilities = read_predictions(tmp_path / "predictions.csv")
    assert [pathlib.Path(row[0]).name for row in rows] == ["a.png", "1.jpg"]
    np.testing.assert_allclose(probabilities, rgb_run.model.predict(np.stack(pixels), verbose=0), atol=2e-6)


def assert_refused(result, output, *words):
    code, _, err = result
    assert code == 2 and err.count("\n") == 1 and ": error: " in err, result
    for word in words:
        assert word in err
    assert not output.exists()


def test_images_that_do_not_fit(command, rgb_run, swir_run, images, tmp_path):
    folder, output = images[0], tmp_path / "predictions.csv"

    def refused(run, *arguments, words):
        assert_refused(command(run, *arguments), output, *words)

    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.jpg")
    Image.fromarray(picture[:32]).save(tmp_path / "small.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-200])
    (tmp_path / "text.jpg").write_text("no image")
    refused(rgb_run, f"--images={tmp_path}/small.jpg", words=["small.jpg: an image of 64x32", "expected 64x64"])
    refused(rgb_run, f"--images={tmp_path}/cut.jpg", words=["cut.jpg: it cannot be decoded"])
    refused(rgb_run, f"--images={tmp_path}/text.jpg", words=["text.jpg: this is no image"])
    refused(rgb_run, f"--images={tmp_path}/*.jp2", words=["/*.jp2': there is no such image"])
    refused(swir_run, f"--images={tmp_path}/a.jpg", words=["without B12,B8A"])
    refused(
        swir_run, f"--images={tmp_path}/a.jpg", "--image_bands=SWIR", words=["uint8 gray values", "expected uint16"]
    )
    refused(rgb_run, f"--images={folder}", "--image_bands=B04,B03", words=["0.tif: 13 bands; expected 2"])
    refused(rgb_run, f"--images={folder}", "--image_bands=B04,X", words=["'X' is no Sentinel-2 band"])
    # Nothing of the images before a damaged one is written.
    (folder / "1.tif").write_bytes((folder / "1.tif").read_bytes()[:20_000])
    refused(rgb_run, f"--images={folder}", "--batch_size=1", words=["1.tif: it cannot be decoded"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "cut.jpg", "images", "small.jpg", "text.jpg"]


def test_b8a_in_ninth_place_is_noticed(command, swir_run, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(20):
        write_geotiff(tmp_path / "images" / f"{number:02}.tif", number, NOMINAL_ORDER)
    output, everything = tmp_path / "predictions.csv", f"--images={tmp_path}/images"
    words = ["20 images whose 13 bands have no names", "nominal order, with B8A in ninth place", "--image_bands"]
    assert_refused(command(swir_run, everything), output, *words)
    code, out, err = command(swir_run, f"--images={tmp_path}/images/0*.tif")
    assert code == 0 and err == "" and output.exists()
    assert "warning: too few images (10) to judge the band order, but the darkest band is number 11" in out
    code, out, _ = command(swir_run, everything, "--image_bands=all", "--overwrite")
    assert code == 0 and "warning" not in out and len(read_predictions(output)[0]) == 20


def test_an_earlier_file_is_kept_and_a_dry_run_writes_nothing(command, rgb_run, images, tmp_path):
    output, everything = tmp_path / "predictions.csv", f"--images={images[0]}"
    code, out, err = command(rgb_run, everything, "--dry_run")
    assert code == 0 and err == "" and not output.exists()
    assert "images: 3 of 64x64 pixels" in out and f"would write the predictions to {output}" in out
    output.write_text("mine")
    code, _, err = command(rgb_run, everything)
    assert code == 2 and err.count("\n") == 1 and "is already there. Replace it by --overwrite" in err
    assert output.read_text() == "mine"
    assert command(rgb_run, everything, "--overwrite")[0] == 0
    assert len(read_predictions(output)[0]) == 3
    code, _, err = command(rgb_run, everything, output=tmp_path)
    assert code == 2 and "is a folder" in err


def test_a_folder_without_a_run(command, images, tmp_path):
    class Nothing:
        folder = tmp_path

    assert_refused(command(Nothing, f"--images={images[0]}"), tmp_path / "predictions.csv", "holds no model_card.json")


def test_the_command_itself(rgb_run, images, tmp_path):
    words = {"run_dir": rgb_run.folder, "images": f"{images[0]}/*.tif", "output": tmp_path / "predictions.csv"}
    result = run_command("predict", **words)
    assert result.returncode == 0 and result.stderr == "", result
    expected = rgb_run.model.predict(stretch_like_eurosat_jpeg(images[1][..., [3, 2, 1]]), verbose=0)
    np.testing.assert_allclose(read_predictions(tmp_path / "predictions.csv")[1], expected, atol=1e-5)
    result = run_command("predict", "--help")
    assert result.returncode == 0 and result.stderr == ""
    assert (
        "--image_bands: " in result.stdout and "--run_dir: Run folder made by launch.train; of a seg" in result.stdout
    )


def test_an_output_of_the_other_task_is_refused(command, rgb_run, images):
    code, _, errors = command(rgb_run, f"--images={images[0]}", "--output_dir=masks")
    assert code == 2 and "--output: --output_dir is given; expected --output: tiny" in errors, errors
    code, _, errors = command(rgb_run, f"--images={images[0]}", "--tta=d4")
    assert code == 2 and "--tta: it does not apply to" in errors, errors


@pytest.mark.real_data
def test_real_patches(command, rgb_run, real_data, tmp_path):
    names = ("Forest_1", "SeaLake_5", "AnnualCrop_1", "River_10")
    pixels = {}
    with zipfile.ZipFile(real_data / "eurosat" / "EuroSAT_MS_sample.zip") as archive:
        for name in names:
            data = archive.read(f"EuroSAT_MS/{name.split('_')[0]}/{name}.tif")
            (tmp_path / f"{name}.tif").write_bytes(data)
            with rasterio.open(tmp_path / f"{name}.tif") as dataset:
                pixels[name] = dataset.read([4, 3, 2]).transpose(1, 2, 0)
    code, out, err = command(rgb_run, f"--images={tmp_path}/*.tif")
    assert code == 0 and err == "" and "warning" not in out
    stretched = stretch_like_eurosat_jpeg(np.stack([pixels[name] for name in sorted(names)]))
    rows, probabilities = read_predictions(tmp_path / "predictions.csv")
    assert [pathlib.Path(row[0]).stem for row in rows] == sorted(names)
    np.testing.assert_allclose(probabilities, rgb_run.model.predict(stretched, verbose=0), atol=2e-6)


def test_the_temperature_of_the_run_is_used(command, rgb_run, images, tmp_path):
    folder, _ = images
    kept = temperature.path(rgb_run.folder)
    fitted = calibration.calibrate(np.arange(10) % 3, np.full((10, 10), 0.1), "the split val", model_sha256="other")
    fitted = dataclasses.replace(fitted, temperature=4.0)
    kept.parent.mkdir()
    try:
        kept.write_bytes(calibration.to_bytes(fitted))
        code, out, err = command(rgb_run, f"--images={folder}")
        assert code == 0 and "temperature: none: temperature.json was fitted for another model" in out, err
        _, raw = read_predictions(tmp_path / "predictions.csv")
        assert command(rgb_run, f"--images={folder}", "--calibrated", "--overwrite")[0] == 2
        checksum = files.sha256_of_file(rgb_run.folder / "model.keras")
        kept.write_bytes(calibration.to_bytes(dataclasses.replace(fitted, model_sha256=checksum)))
        code, out, _ = command(rgb_run, f"--images={folder}", "--overwrite")
        assert code == 0 and "temperature: 4.000, fitted on 10 examples (the split val); 10 examples are few" in out
        _, scaled = read_predictions(tmp_path / "predictions.csv")
        # The file has six decimals: of the model's probabilities, the fourth roots of the largest can be compared.
        large = raw > 1e-3
        odds = scaled / scaled.max(axis=1, keepdims=True)
        expected = (raw / raw.max(axis=1, keepdims=True)) ** 0.25
        np.testing.assert_allclose(odds[large], expected[large], rtol=1e-3)
        assert abs(scaled - raw).max() > 0.05
        code, out, _ = command(rgb_run, f"--images={folder}", "--nocalibrated", "--overwrite")
        assert code == 0 and "temperature: none, as requested" in out
        np.testing.assert_array_equal(read_predictions(tmp_path / "predictions.csv")[1], raw)
    finally:
        kept.unlink()
        kept.parent.rmdir()
