"""A run on several modalities: its card, the sensors taken away, resuming, its export, and what is refused."""

import dataclasses

import keras
import numpy as np
import pytest
import rasterio
import rasterio.transform
import tensorflow as tf

import eo_keras
from eo_keras.data.pipeline import RecordDataset, evaluation
from eo_keras.errors import BandError, OptionError, RecordsError, RunError, SourceError, StorageError
from eo_keras.evaluation import evaluate as evaluate
from eo_keras.evaluation import tta
from eo_keras.evaluation.options import EvaluationOptions
from eo_keras.geo.class_map import open_class_map
from eo_keras.mapping import image_masks, predictors
from eo_keras.records import data_card as cards
from eo_keras.records.inputs import parse_inputs
from eo_keras.runs import folder as runs
from eo_keras.runs.export_folder import open_export
from eo_keras.serving import images as serving_images
from eo_keras.serving import saved_model
from eo_keras.training import train as training
from eo_keras.training.options import SegmentationOptions, TrainingOptions
from eo_keras.training.validate import validate
from tests.harness import modalities, tiny

BANDS = "s2:RGB;s1:VH,VV;height:all"


@pytest.fixture(scope="module")
def records_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("modal") / "records"
    modalities.write(path, {"train": 8, "val": 4, "test": 4}, lacking={1: ("s1",), 13: ("height",)})
    return path


def options(records_dir, run_dir, **others):
    from eo_keras.data.augment.crops import CropAugmentation

    tiny.register()
    segmentation = SegmentationOptions(augmentation=CropAugmentation(crop=32))
    chosen = {"model": tiny.SEGMENTER, "epochs": 2, "steps_per_epoch": 3, "batch_size": 4, "bands": BANDS} | others
    return TrainingOptions(str(records_dir), str(run_dir), segmentation=segmentation, **chosen)


@pytest.fixture(scope="module")
def trained(records_dir, tmp_path_factory):
    folder, lines = tmp_path_factory.mktemp("runs") / "a", []
    training.train(options(records_dir, folder, modality_dropout=0.3), report=lines.append)
    return runs.open_run(folder), lines


def test_the_card_describes_every_input(trained, records_dir):
    run, lines = trained
    card, data = run.card, RecordDataset(records_dir).card
    assert [(one.name, one.sensor, one.bands, one.units) for one in card.inputs] == [
        ("s2", "sentinel2", ("B04", "B03", "B02"), "digital numbers"),
        ("s1", "sentinel1", ("VH", "VV"), "dB"),
        ("height", "height", ("HEIGHT",), "m"),
    ]
    means = {entry.band: entry.mean for entry in data.modalities["s1"].statistics}
    assert card.inputs[1].normalisation["mean"] == (means["VH"], means["VV"])
    assert {one.name: one.shape[1:] for one in run.model.inputs} == {
        "s2": (64, 64, 3),
        "s1": (64, 64, 2),
        "height": (32, 32, 1),
    }
    assert "bands:  s1: VH,VV, float32 in dB, 64x64 pixels; 1 training examples lack it" in lines
    assert card.title_of_bands == "s2:B04,B03,B02;s1:VH,VV;height:HEIGHT"


def test_a_sensor_taken_away_is_an_example_without_it(trained, records_dir):
    run, records = trained[0], RecordDataset(records_dir)
    found = {}
    for without in ((), ("s1",), ("s2", "height")):
        chosen = EvaluationOptions(without=without, calibrate=False, resamples=10)
        found[without] = evaluate.evaluate(run, records, chosen).predictions
    (whole,) = evaluation(records, evaluate.pipelines.PipelineOptions(4, inputs=run.card.taken), "test")
    image, label = {name: values.numpy() for name, values in whole[0].items()}, whole[1].numpy()
    image["s1"] = np.full_like(image["s1"], np.nan)
    predicted = run.model.predict(image, verbose=0).argmax(-1)
    expected = np.zeros((3, 3), np.int64)
    known = label != 255
    np.add.at(expected, (label[known], predicted[known]), 1)
    np.testing.assert_array_equal(found["s1",].scorer.confusion, expected)
    assert len({one.cross_entropy for one in found.values()}) == 3
    assert EvaluationOptions(without=("s1",)).name == "test-without-s1"
    for without, told in ((("s3",), "'s3', which is no sensor"), (("s2", "s1", "height"), "all that the model has")):
        with pytest.raises(OptionError, match=told):
            evaluate.evaluate(run, records, EvaluationOptions(without=without))


def test_each_sensors_own_mask_has_a_loss(records_dir, tmp_path):
    chosen = options(records_dir, tmp_path / "streams", model=tiny.UNET, fusion="late", modality_dropout=0.3, epochs=1)
    chosen = dataclasses.replace(chosen, segmentation=dataclasses.replace(chosen.segmentation, stream_weight=0.5))
    report = training.train(chosen)
    (row,) = report.history
    names = ["mask_loss", "s2_loss", "s1_loss", "height_loss"]
    assert [name for name in row if name.endswith("_loss") and name != "val_loss"] == names
    mask, *own = (row[name] for name in names)
    assert row["loss"] == pytest.approx(mask + 0.5 * sum(own), rel=1e-6)
    assert len({mask, *own}) == 4
    run = runs.open_run(chosen.run_dir)
    assert run.model.output_names == ["probabilities"]
    early = dataclasses.replace(chosen, fusion="early", run_dir=str(tmp_path / "early"))
    told = (
        "stream_weight: 0.5 with `fusion=early`, which has no network for each sensor; expected a `fusion` out of late"
    )
    with pytest.raises(OptionError, match=told):
        training.train(early, dry_run=True)


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(trained, records_dir, tmp_path):
    steps, chosen = iter(range(9)), options(records_dir, tmp_path / "b", modality_dropout=0.3)
    report = training.train(chosen, stop=lambda: next(steps) == 3)
    assert report.stopped
    training.train(dataclasses.replace(chosen, resume=True))
    for one, other in zip(trained[0].model.weights, runs.open_run(tmp_path / "b").model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_the_export_takes_inputs_by_name_and_records(trained, records_dir, tmp_path):
    run = trained[0]
    report = saved_model.export(run, tmp_path / "export")
    assert [str(one) for one in report.inputs["serving_default"]] == [
        "height: float32 (None, None, None, 1)",
        "s1: float32 (None, None, None, 2)",
        "s2: uint16 (None, None, None, 3)",
    ]
    ((image, *_),) = evaluation(
        RecordDataset(records_dir), evaluate.pipelines.PipelineOptions(4, inputs=run.card.taken), "test"
    )
    expected = run.model(image, training=False).numpy()
    _, model = open_export(report.path)
    np.testing.assert_allclose(model(image), expected, atol=1e-5)
    shard = RecordDataset(records_dir).files("test")[0]
    serialized = tf.constant([one.numpy() for one in tf.data.TFRecordDataset(shard)])
    served = tf.saved_model.load(str(report.path)).signatures["examples"](examples=serialized)
    # One of them lacks its height.
    np.testing.assert_allclose(served["probabilities"], expected, atol=1e-5)


def test_scales_and_mirrored_versions_of_all_inputs(trained, records_dir):
    run = trained[0]
    model = tta.wrap(
        saved_model.models.inference_model(run.model, None), EvaluationOptions(scales=(0.5, 1.0), flip=True)
    )
    ((image, *_),) = evaluation(
        RecordDataset(records_dir), evaluate.pipelines.PipelineOptions(4, inputs=run.card.taken), "test"
    )
    found = model(image).numpy()
    mirrored = model({name: values[:, :, ::-1] for name, values in image.items()}).numpy()
    np.testing.assert_allclose(found, mirrored[:, :, ::-1], atol=1e-5)


@pytest.fixture(scope="module")
def image_files(tmp_path_factory):
    """GeoTIFFs of the test examples, of which one lacks its heights; patterns by modality."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(12, 16):
        for name, numbers in modalities.images_of(number)[1].items():
            if (number, name) != (13, "height"):
                write_image(folder / f"{name}-{number}.tif", numbers, modalities.MODALITIES[name].resolution_m)
    return {name: folder / f"{name}-*.tif" for name in ("s2", "s1", "height")}


def write_image(path, numbers, pixel_size):
    height, width, count = numbers.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": numbers.dtype}
    transform = rasterio.transform.from_origin(600000, 5400000, pixel_size, pixel_size)
    with rasterio.open(path, "w", crs="EPSG:32632", transform=transform, **profile) as dataset:
        dataset.write(numbers.transpose(2, 0, 1))


def test_masks_of_image_files_are_those_of_the_records(trained, records_dir, image_files, tmp_path):
    run = trained[0]
    ((image, *_),) = evaluation(
        RecordDataset(records_dir), evaluate.pipelines.PipelineOptions(4, inputs=run.card.taken), "test"
    )
    probabilities = run.model(image, training=False).numpy()
    found = list(eo_keras.predict_masks(run, image_files))
    assert [one.name for one in found] == ["12", "13", "14", "15"]
    assert {(one.grid.crs, one.grid.pixel_size) for one in found} == {("EPSG:32632", 10.0)}
    for one, expected in zip(found, probabilities, strict=True):
        np.testing.assert_array_equal(one.classes, expected.argmax(axis=-1))
        np.testing.assert_allclose(one.confidence, expected.max(axis=-1), atol=1e-5)
    # The same as files; a second call keeps them, and another augmentation may not replace them.
    job = image_masks.plan_masks(run.card, image_files)
    model, origin = predictors.open_predictor(run), image_masks.origin_of(run.folder)
    for kept in (0, 4):
        report = image_masks.write_masks(model, job, tmp_path / "masks", origin=origin)
        assert report.kept == kept
        assert report.pixels[:, :3].tolist() == [
            np.bincount(one.classes.ravel(), minlength=3).tolist() for one in found
        ]
    with rasterio.open(report.paths[1]) as dataset:
        np.testing.assert_array_equal(dataset.read(1), found[1].classes)
        assert dataset.crs == "EPSG:32632" and dataset.nodata == 255 and dataset.colormap(1)[0] == (32, 32, 255, 255)
    with open_class_map(report.paths[1]) as written:
        assert written.legend.class_names == ("a", "b", "c")
    rows = (tmp_path / "masks/predictions.csv").read_text().splitlines()
    assert rows[0] == "image,pixels_a,pixels_b,pixels_c,pixels_nodata"
    other = image_masks.origin_of(run.folder, "d4")
    with pytest.raises(StorageError, match="mask of other images of that name, or by another model.*`overwrite`"):
        image_masks.write_masks(model, job, tmp_path / "masks", origin=other)
    assert image_masks.write_masks(model, job, tmp_path / "masks", origin=other, overwrite=True).kept == 0


def test_windows_of_large_images_show_the_same_ground_in_all_inputs(trained, tmp_path):
    random, card = np.random.default_rng(1), trained[0].card
    high = random.integers(0, 2, (105, 90, 1)).astype(np.float32)
    bright = random.integers(0, 2, (210, 180, 1))
    write_image(tmp_path / "height.tif", 9 * high, 20.0)
    write_image(tmp_path / "s2.tif", np.repeat(1000 + 1000 * bright, 3, axis=-1).astype(np.uint16), 10.0)
    write_image(tmp_path / "s1.tif", np.full((210, 180, 2), -15, np.float32), 10.0)

    def model(images, training):
        """Class 1 where it is bright, 2 where it is also high; of every pixel alone."""
        fine = tf.cast(images["s2"][..., 0] > 1500, tf.int32)
        coarse = tf.repeat(tf.repeat(tf.cast(images["height"][..., 0] > 5, tf.int32), 2, 1), 2, 2)
        return tf.one_hot(fine * (1 + coarse), 3)

    job = image_masks.plan_masks(card, {name: tmp_path / f"{name}.tif" for name in ("s2", "s1", "height")})
    for tta_name in predictors.TTA:
        (found,) = image_masks.predict_masks(predictors.Predictor(model, card, "", tta_name), job)
        expected = bright[..., 0] * (1 + high[..., 0].repeat(2, axis=0).repeat(2, axis=1))
        np.testing.assert_array_equal(found.classes, expected)


def test_black_pixels_of_aerial_images_have_a_class(trained, tmp_path):
    pixels = np.full((40, 64, 3), 90, np.uint8)
    pixels[5, 6] = 0
    write_image(tmp_path / "roof.tif", pixels, 0.5)
    card = dataclasses.replace(
        trained[0].card,
        inputs=(),
        bands=("R", "G", "B"),
        dtype="uint8",
        reflectance=None,
        resolution_m=0.5,
        records=cards.StoredImages(("R", "G", "B"), "uint8", "raw", modalities.SIZE),
    )
    job = image_masks.plan_masks(card, tmp_path / "roof.tif")
    model = predictors.Predictor(
        lambda images, training: tf.one_hot(tf.cast(images[..., 0] > 50, tf.int32), 3), card, ""
    )
    (found,) = image_masks.predict_masks(model, job)
    np.testing.assert_array_equal(found.classes, pixels[..., 0] > 50)


def test_images_that_do_not_fit_are_refused(trained, image_files, tmp_path):
    card = trained[0].card
    rigid = dataclasses.replace(card, flags={**card.flags, "modality_dropout": 0.0})
    rigid = dataclasses.replace(rigid, inputs=tuple(dataclasses.replace(one, missing=0) for one in card.inputs))
    with pytest.raises(SourceError, match=r"no image height of its name \('13'\); 1 of 4 places lack theirs"):
        image_masks.plan_masks(rigid, image_files)
    with pytest.raises(OptionError, match="there are none of height"):
        image_masks.plan_masks(rigid, {name: image_files[name] for name in ("s2", "s1")})
    assert len(image_masks.plan_masks(card, {"s2": image_files["s2"]}).places) == 4
    numbers = modalities.images_of(12)[1]
    for name, change, pixel_size, told in (
        ("s1", lambda image: image[:-2], 10.0, "its grid, 64x62 pixels in EPSG:32632.* is not that of"),
        ("s1", lambda image: image, 20.0, "is not that of .*s2-12.tif"),
        ("s1", lambda image: image[..., :1], 10.0, "1 bands without names"),
        ("height", lambda image: image.repeat(2, 0).repeat(2, 1), 10.0, "2 x 2 of its pixels in one of"),
        ("s2", lambda image: image, 15.0, "s2.tif: its pixels are 15 x 15 m; expected 10 m"),
        ("s2", lambda image: image[..., :2], 10.0, "2 bands without names"),
    ):
        path = tmp_path / f"{name}.tif"
        write_image(path, change(numbers[name]), pixel_size)
        single = {one: image_files[one].with_name(f"{one}-12.tif") for one in ("s2", "s1", "height")}
        if pixel_size == 15.0:
            single = {}
        with pytest.raises((SourceError, BandError), match=told):
            image_masks.plan_masks(card, single | {name: path})


def test_what_does_not_fit_is_refused(trained, records_dir, tmp_path):
    run, card = trained[0], RecordDataset(records_dir).card
    with pytest.raises(RunError, match=r"takes several images of each place \(s2, s1, height\).*launch.evaluate"):
        run.card.check_one_image(run.folder)
    with pytest.raises(RunError):
        serving_images.predict_images(run, [tmp_path / "a.tif"])
    without = dataclasses.replace(card, others=card.others[:1])
    with pytest.raises(RecordsError, match="they have no modality 's1', but s2, s2_before"):
        evaluate.check_records(without, run.card, records_dir)
    radar = dataclasses.replace(card.modalities["s1"], units="digital numbers")
    with pytest.raises(RecordsError, match="units of 's1' is digital numbers; expected dB"):
        evaluate.check_records(dataclasses.replace(card, others=(radar, *card.others[2:])), run.card, records_dir)
    for chosen, told in (
        ({"bands": "s1:all", "modality_dropout": 0.2}, "modality_dropout.*one sensor"),
        ({"bands": "height:all"}, "none of 1 among the inputs|size"),
        ({"bands": "s1:all", "fusion": "late"}, "'late' for the inputs image"),
    ):
        with pytest.raises(OptionError, match=told):
            training.train(options(records_dir, tmp_path / "c", **chosen), dry_run=True)
    assert validate(options(records_dir, ""), card).bands == BANDS
    assert parse_inputs(BANDS, card) == run.card.taken
    assert keras.backend.backend() == "tensorflow"


def test_images_that_a_model_was_never_trained_without_are_missed(trained, records_dir):
    run, records = trained[0], RecordDataset(records_dir)
    options = EvaluationOptions()
    # Trained with modality dropout, or on examples that lacked it.
    evaluate.check_missing(options, run.card, records.card, records_dir)
    flags = {**run.card.flags, "modality_dropout": 0.0}
    rigid = dataclasses.replace(run.card, flags=flags)
    told = r"1 examples of the split test lack 'height'; expected all images.*`modality_dropout`.*`without=height`"
    with pytest.raises(RecordsError, match=told):
        evaluate.check_missing(options, rigid, records.card, records_dir)
    evaluate.check_missing(EvaluationOptions(without=("height",)), rigid, records.card, records_dir)
    evaluate.check_missing(EvaluationOptions(split="val"), rigid, records.card, records_dir)
    *others, heights = rigid.inputs
    used_to_it = dataclasses.replace(rigid, inputs=(*others, dataclasses.replace(heights, missing=1)))
    evaluate.check_missing(options, used_to_it, records.card, records_dir)
    assert [one.missing for one in run.card.inputs] == [0, 1, 0]
