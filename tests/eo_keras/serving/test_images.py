import dataclasses

import keras
import numpy as np
import pytest
from PIL import Image

from eo_keras.errors import BandError, SourceError
from eo_keras.geo import images as rasters
from eo_keras.legends import catalogue as legends
from eo_keras.runs.input_images import fit_to_model
from eo_keras.sensors import radiometry
from eo_keras.sensors.radiometry import Reflectance
from eo_keras.sensors.sentinel2 import COMPOSITES, EUROSAT_ORDER
from eo_keras.serving import images as prediction

RGB = COMPOSITES["RGB"]
SIZE = 32
LEGEND = legends.Legend("three", tuple(legends.LegendClass(name, "#000000") for name in ("Forest", "River", "SeaLake")))


@pytest.fixture(scope="module")
def uint8_run(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("uint8"), "uint8", RGB, legend=LEGEND, patch_size=SIZE, sharpness=0.1)


@pytest.fixture(scope="module")
def uint16_run(make_run, tmp_path_factory):
    return make_run(
        tmp_path_factory.mktemp("uint16"), "uint16", COMPOSITES["CI"], legend=LEGEND, patch_size=SIZE, sharpness=0.1
    )


def image_of(bands, dtype="uint16", size=SIZE, brightest=3000, **fields):
    pixels = np.random.default_rng(1).integers(1, brightest, (size, size, len(bands))).astype(dtype)
    return rasters.Image(pixels, tuple(bands), rasters.REFLECTANCES[dtype], **fields)


@pytest.fixture
def pictures(tmp_path):
    """Seven JPEGs of uneven brightness, and their pixels as Pillow decodes them."""
    rng, paths = np.random.default_rng(1), []
    for number in range(7):
        pixels = rng.normal(40 + 30 * number, 25, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
        paths.append(tmp_path / f"{number}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=95)
    return paths, np.stack([np.asarray(Image.open(path)) for path in paths])


def test_bands_are_picked_by_name(uint16_run):
    image = image_of(EUROSAT_ORDER)
    fitted = fit_to_model(image, uint16_run.card, "a.tif")
    assert fitted.dtype == np.uint16
    np.testing.assert_array_equal(fitted, image.pixels[..., [7, 3, 2]])  # B08, B04, B03.


def test_numbers_of_unknown_reflectance_are_compared_with_their_like_alone(uint8_run, uint16_run):
    card = dataclasses.replace(uint8_run.card, reflectance=None)
    image = image_of(RGB, "uint8", brightest=255)
    np.testing.assert_array_equal(fit_to_model(image, card, "a.png"), image.pixels)
    with pytest.raises(BandError, match="uint16 digital numbers.*relation to reflectance is not known"):
        fit_to_model(image_of(RGB, "uint16"), card, "a.tif")


def test_digital_numbers_become_grey_values_for_a_model_of_jpegs(uint8_run):
    image = image_of(EUROSAT_ORDER, brightest=9000)
    image.pixels[0, 0] = 0
    image.pixels[0, 1, [3, 2, 1]] = 0  # Dark in red, green and blue, but the other bands hold data.
    fitted = fit_to_model(image, uint8_run.card, "a.tif")
    expected = radiometry.stretch_like_eurosat_jpeg(image.pixels[..., [3, 2, 1]])
    expected[0, 0] = 0
    assert fitted.dtype == np.uint8 and (fitted[0, 1] == 1).all()
    np.testing.assert_array_equal(fitted, expected)


def test_another_scale_of_the_same_type_is_converted(uint16_run):
    baseline_4 = Reflectance(scale=1e-4, offset=-0.1)
    image = dataclasses.replace(image_of(COMPOSITES["CI"], brightest=5000), reflectance=baseline_4)
    fitted = fit_to_model(image, uint16_run.card, "a.tif")
    np.testing.assert_array_equal(fitted, np.maximum(image.pixels.astype(int) - 1000, 1))


def test_images_that_do_not_fit(uint8_run, uint16_run):
    image = image_of(RGB, "uint8", brightest=255)
    with pytest.raises(BandError, match="a.jpg: bands B04,B03,B02, without B08; expected the model's bands B08,B04"):
        fit_to_model(image, uint16_run.card, "a.jpg")
    image = image_of(("B08", *RGB), "uint8", brightest=255)
    with pytest.raises(BandError, match="which end at reflectance 0.275; expected uint16 digital numbers"):
        fit_to_model(image, uint16_run.card, "a.tif")
    image = image_of(RGB, size=SIZE + 1)
    with pytest.raises(SourceError, match="a.tif: an image of 33x33 pixels; expected 32x32 .* Cut .* at 10 m"):
        fit_to_model(image, uint8_run.card, "a.tif")


def test_answers_are_those_of_the_model(uint8_run, pictures):
    paths, pixels = pictures
    expected = uint8_run.model.predict(pixels, verbose=0)
    assert np.ptp(expected, axis=0).min() > 0.01, "the model does not tell the images apart"
    calls = []
    answers = prediction.predict_images(uint8_run, paths, batch_size=3, progress=lambda *call: calls.append(call))
    assert answers.paths == tuple(paths) and answers.assumed is None
    assert answers.probabilities.dtype == np.float32
    np.testing.assert_allclose(answers.probabilities, expected, atol=1e-5)
    np.testing.assert_array_equal(answers.classes, expected.argmax(axis=1))
    assert calls == [("predicting", 3, 7), ("predicting", 6, 7), ("predicting", 7, 7)]


def test_the_batch_size_changes_nothing_and_every_batch_has_one_shape(uint8_run, pictures):
    paths, _ = pictures
    shapes = []

    class Spy(keras.Model):
        def call(self, images, training=False):
            shapes.append(tuple(images.shape))  # Once for each shape that is compiled.
            return uint8_run.model(images, training=training)

    together = prediction.predict_images(uint8_run, paths).probabilities
    for batch_size, rows in ((1, 1), (3, 3), (7, 7), (64, 7)):
        shapes.clear()
        answers = prediction.predict_images(dataclasses.replace(uint8_run, model=Spy()), paths, batch_size=batch_size)
        np.testing.assert_allclose(answers.probabilities, together, atol=1e-5)
        assert set(shapes) == {(rows, SIZE, SIZE, 3)}


def test_means_of_assumed_bands_leave_no_data_out(uint8_run, monkeypatch):
    images = [image_of(EUROSAT_ORDER, bands_assumed=True), image_of(EUROSAT_ORDER), image_of(RGB)]
    images += [dataclasses.replace(images[0], pixels=images[0].pixels * fill) for fill in (np.uint16(0), np.uint16(2))]
    images[0].pixels[:8] = 0
    monkeypatch.setattr(rasters, "read_image", lambda path, bands: images[int(path.name)])
    assumed = prediction.predict_images(uint8_run, ["0", "1", "2", "3", "4"], batch_size=2).assumed
    assert assumed.images == 2
    valid = np.concatenate([images[0].pixels[8:].reshape(-1, 13), images[4].pixels.reshape(-1, 13)])
    np.testing.assert_allclose(assumed.means, valid.mean(axis=0), rtol=1e-12)
    assert prediction.predict_images(uint8_run, ["1", "3"]).assumed is None


def test_a_damaged_image_ends_it(uint8_run, pictures):
    paths, _ = pictures
    paths[4].write_bytes(paths[4].read_bytes()[:400])
    with pytest.raises(SourceError, match="4.jpg: it cannot be decoded"):
        prediction.predict_images(uint8_run, paths, batch_size=2)
