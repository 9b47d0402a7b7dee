"""A run on several modalities: its card, the sensors taken away, resuming, its export, and what is refused."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from eo_keras.data.pipeline import RecordDataset, evaluation
from eo_keras.errors import OptionError, RecordsError, RunError
from eo_keras.evaluation import evaluate as evaluate
from eo_keras.evaluation import tta
from eo_keras.evaluation.options import EvaluationOptions
from eo_keras.records.inputs import parse_inputs
from eo_keras.runs import folder as runs
from eo_keras.runs.export_folder import open_export
from eo_keras.serving import images as serving_images
from eo_keras.serving import saved_model
from eo_keras.training import train as training
from eo_keras.training.options import SegmentationOptions, TrainingOptions
from eo_keras.training.validate import validate
from tests.harness import figures, modalities, tiny

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
    chosen = {"epochs": 2, "steps_per_epoch": 3, "batch_size": 4, "bands": BANDS} | others
    return TrainingOptions(str(records_dir), str(run_dir), model=tiny.SEGMENTER, segmentation=segmentation, **chosen)


@pytest.fixture(scope="module")
def trained(records_dir, tmp_path_factory):
    folder, lines = tmp_path_factory.mktemp("runs") / "a", []
    with figures.undrawn():
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


def test_a_resumed_run_is_the_uninterrupted_one(trained, records_dir, tmp_path):
    steps, chosen = iter(range(9)), options(records_dir, tmp_path / "b", modality_dropout=0.3)
    with figures.undrawn():
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
