"""Training of segmentation models, and their predictions: what is counted, chosen, kept, and refused."""

import dataclasses
import hashlib
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from eo_keras import models, tasks
from eo_keras.data import pipeline as pipelines
from eo_keras.data.augment.crops import CropAugmentation
from eo_keras.errors import LegendError, OptionError, RunError
from eo_keras.evaluation import evaluate as evaluation
from eo_keras.evaluation import tta
from eo_keras.evaluation.options import EvaluationOptions
from eo_keras.legends.catalogue import IGNORE
from eo_keras.records import data_card as cards
from eo_keras.records import example as codec
from eo_keras.records import tfrecord
from eo_keras.runs import folder as runs
from eo_keras.runs import model_card as model_cards
from eo_keras.runs.export_folder import open_export
from eo_keras.tasks import segmentation
from eo_keras.tasks.predictor import Predictor
from eo_keras.training import train as training
from eo_keras.training.options import SegmentationOptions
from tests.harness import tiny
from tests.harness.trainings import TILE


@pytest.fixture(scope="module")
def records_dir(tile_records):
    return tile_records


@pytest.fixture
def options(short_tile_training, tmp_path):
    return dataclasses.replace(short_tile_training, run_dir=str(tmp_path / "run"))


@pytest.fixture(scope="module")
def trained(finished_on_tiles):
    options, report, _ = finished_on_tiles
    return pathlib.Path(options.run_dir), report


def test_validation_is_what_scikit_learn_makes_of_the_answers(trained, records_dir):
    from sklearn.metrics import accuracy_score, jaccard_score

    run_dir, report = trained
    run = runs.open_run(run_dir)
    records = pipelines.RecordDataset(records_dir)
    dataset = pipelines.evaluation(
        records, pipelines.PipelineOptions(batch_size=3, bands=run.card.bands), "val", with_keys=True
    )
    images, labels = [], []
    for image, label, weight, _ in dataset:
        images.append(image.numpy()[weight.numpy() > 0])
        labels.append(label.numpy()[weight.numpy() > 0])
    labels = np.concatenate(labels)
    probabilities = run.model.predict(np.concatenate(images), verbose=0)
    predictions = probabilities.argmax(-1)
    row = report.history[report.card.selection["epoch"] - 1]
    found = np.unique(np.concatenate([labels.ravel(), predictions.ravel()]))
    expected = jaccard_score(labels.ravel(), predictions.ravel(), average="macro", labels=found)
    assert row["val_miou"] == pytest.approx(expected, rel=1e-4)
    assert row["val_accuracy"] == pytest.approx(accuracy_score(labels.ravel(), predictions.ravel()), rel=1e-4)
    entropy = -np.log(np.take_along_axis(probabilities, labels[..., None].astype(int), -1)).mean()
    assert row["val_loss"] == pytest.approx(entropy, rel=1e-4)


def test_the_loss_of_a_step_is_a_mean_over_its_labelled_pixels(options, records_dir):
    card = pipelines.RecordDataset(records_dir).card
    loss = tasks.of(card).loss(options, card)
    logits = tf.random.stateless_normal((2, 8, 8, 4), (1, 2), dtype=tf.float64)
    label = tf.cast(tf.random.stateless_uniform((2, 8, 8), (3, 4), 0, 4, tf.int32), tf.uint8)
    label = tf.where(tf.range(8) < 3, tf.constant(IGNORE, tf.uint8), label)
    result = loss([logits], label, None)
    known = label.numpy() != IGNORE
    entropy = keras.ops.sparse_categorical_crossentropy(np.where(known, label, 0), logits, from_logits=True).numpy()
    assert float(result.value) == pytest.approx(entropy[known].mean(), rel=1e-12)
    assert int(result.counted) == known.sum() == 2 * 8 * 5
    assert int(result.correct) == (logits.numpy().argmax(-1) == label.numpy())[known].sum()
    # An example of weight 0 is only there to fill the batch.
    first = loss([logits], label, tf.constant([1.0, 0.0]))
    assert float(first.value) == pytest.approx(entropy[0][known[0]].mean(), rel=1e-12)


def test_class_weights_follow_from_the_training_splits_pixels(options, records_dir):
    card = pipelines.RecordDataset(records_dir).card
    counts = {"Other": 100, "Residential": 200, "Industrial": 400, "Forest": 400}
    train = dataclasses.replace(card.splits["train"], classes=counts)
    card = dataclasses.replace(card, splits={**card.splits, "train": train})
    weights = segmentation.class_weights(SegmentationOptions(class_weights="median_frequency"), card)
    assert weights == pytest.approx((3.0, 1.5, 0.75, 0.75))
    assert segmentation.class_weights(SegmentationOptions(), card) is None
    effective = segmentation.class_weights(SegmentationOptions(class_weights="effective_number"), card)
    assert effective[0] / effective[1] == pytest.approx(2, rel=1e-3)


def test_models_and_records_of_two_kinds_are_refused(options, records_dir):
    for name in ("resnet14", "compact"):
        with pytest.raises(OptionError, match="is for classification, the records are for segmentation.*deeplab"):
            training.train(dataclasses.replace(options, model=name), dry_run=True)
    with pytest.raises(OptionError, match="crop: 512 pixels from tiles of 64"):
        changed = SegmentationOptions(augmentation=CropAugmentation(crop=512))
        training.train(dataclasses.replace(options, segmentation=changed), dry_run=True)
    for name, value in (("loss", "hinge"), ("class_weights", "some"), ("output_stride", 4)):
        with pytest.raises(OptionError, match=name):
            SegmentationOptions(**{name: value})


def test_a_classifier_is_a_backbone_unless_it_has_seen_the_test_tiles(options, records_dir, tmp_path, make_run):
    run = make_run(tmp_path / "classifier", "uint16", ("B04", "B03", "B02"), model="resnet14")
    with pytest.raises(RunError, match="what it has seen is unknown"):
        training.train(with_backbone(options, run.folder), dry_run=True)
    records = pipelines.RecordDataset(records_dir)
    card = dataclasses.replace(
        run.card, flags={"records_dir": str(records_dir)}, data_fingerprint=records.card.fingerprint
    )
    model_cards.write_model_card(card, run.folder)
    lines = []
    # It was trained on the very same folder's training split, which shares no key with its test split.
    training.train(with_backbone(options, run.folder), dry_run=True, report=lines.append)
    (told,) = (line for line in lines if line.startswith("model:"))
    assert "All" not in told and "classifier" in told
    (compared,) = (line for line in lines if line.startswith("backbone:"))
    assert compared == "backbone: has seen none of the 4 test examples, compared by places"
    # Patches, of keys and a size of their own, on the ground of one of the test tiles.
    (tile, *_) = records_of(records_dir, records.card, "test")
    patch = dataclasses.replace(tile, key="Forest_1", tile=None, label=0, image=bytes(32 * 32 * 3 * 2))
    patches = write_patches(tmp_path / "patches", records.card, patch)
    model_cards.write_model_card(
        dataclasses.replace(
            card, flags={"records_dir": str(patches.folder)}, data_fingerprint=patches.card.fingerprint
        ),
        run.folder,
    )
    with pytest.raises(RunError, match=f"on the ground of 1 examples that .* tests on, such as {tile.key}"):
        training.train(with_backbone(options, run.folder), dry_run=True)
    model_cards.write_model_card(card, run.folder)
    # Now a folder whose test split is what the classifier was trained on.
    swapped = dataclasses.replace(
        records.card, splits={"train": records.card.splits["test"], "test": records.card.splits["train"]}
    ).with_fingerprint()
    other = tmp_path / "swapped"
    other.mkdir()
    for split in records.card.splits.values():
        for shard in split.shards:
            (other / shard.name).write_bytes((records_dir / shard.name).read_bytes())
    cards.write_card(swapped, other)
    with pytest.raises(RunError, match="it was trained on 4 examples that .* tests on"):
        changed = {"records_dir": str(other), "validation_from_train": 0.0}
        training.train(dataclasses.replace(with_backbone(options, run.folder), **changed), dry_run=True)
    with pytest.raises(OptionError, match="given together with `weights`"):
        dataclasses.replace(with_backbone(options, run.folder), weights="imagenet")


def records_of(folder, card, split):
    return [example for shard in card.splits[split].shards for example in codec.read_examples(folder / shard.name)]


def write_patches(folder, card, *examples):
    """Writes a folder of patches of 32 pixels."""
    folder.mkdir()
    path = folder / "p-train.tfrecord-00000-of-00001"
    with open(path, "wb") as file:
        for example in examples:
            tfrecord.write_record(file, codec.encode(example))
    shard = cards.Shard(path.name, len(examples), path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    split = cards.Split(len(examples), dict.fromkeys(card.legend.class_names, 0), (shard,))
    changed = {"task": "classification", "patch_size": 32, "splits": {"train": split}}
    cards.write_card(dataclasses.replace(card, **changed).with_fingerprint(), folder)
    return pipelines.RecordDataset(folder)


def with_backbone(options, folder):
    segmentation = dataclasses.replace(options.segmentation, backbone_run=str(folder))
    return dataclasses.replace(options, model="deeplab_resnet14", segmentation=segmentation)


def test_a_segnet_has_no_output_stride(options, records_dir):
    options = dataclasses.replace(options, model=tiny.SEGNET, epochs=1)
    run, records = runs.open_run(training.train(options) and options.run_dir), pipelines.RecordDataset(records_dir)
    found = evaluation.evaluate(run, records, EvaluationOptions(resamples=10))
    assert tasks.of(run.card).evaluated_as(found.options, run.card)["output_stride"] is None
    assert evaluation.evaluate(run, records, EvaluationOptions(resamples=10, flip=True)).scores.value("miou") > 0
    with pytest.raises(OptionError, match="output_stride: 8 for model 'segnet_tiny'; expected a DeepLabv3"):
        evaluation.evaluate(run, records, EvaluationOptions(output_stride=8))
    segmentation = dataclasses.replace(options.segmentation, output_stride=8)
    with pytest.raises(OptionError, match="output_stride: 8 for `model=segnet_tiny`, which has none. Leave it out"):
        training.train(dataclasses.replace(options, segmentation=segmentation, overwrite=True), dry_run=True)


def test_other_strides_scales_and_mirrored_tiles_change_the_predictions_a_little(trained, records_dir):
    run, records = runs.open_run(trained[0]), pipelines.RecordDataset(records_dir)

    def entropy(**changes):
        found = evaluation.evaluate(run, records, EvaluationOptions(resamples=10, **changes))
        return found.scores.value("negative_log_likelihood")

    plain = entropy()
    others = [entropy(output_stride=8), entropy(flip=True), entropy(scales=(0.75, 1.0, 1.5))]
    assert all(other != plain for other in others)
    assert np.allclose(others, plain, rtol=0.5)


def test_an_export_answers_about_images_of_any_size(trained, tmp_path):
    import openvino

    from eo_keras.serving import saved_model as serving

    run = runs.open_run(trained[0])
    report = serving.export(run, tmp_path / "serving")
    assert report.largest_difference < 1e-5
    loaded = tf.saved_model.load(str(report.path))
    images = np.random.default_rng(2).integers(1, 3000, (2, 48, 80, 3)).astype(np.uint16)
    answers = loaded.serve(images)
    expected = np.asarray(models.inference_model(run.model, None)(images))
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    assert answers["class_id"].dtype == tf.uint8 and answers["class_id"].shape == (2, 48, 80)
    np.testing.assert_array_equal(answers["class_id"], expected.argmax(-1))
    card, model = open_export(report.path)
    assert (card.patch_size, model.image_size) == (TILE, None)
    # Some processors compute in bfloat16 by default.
    compiled = openvino.Core().compile_model(str(report.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    # Sizes that are no multiple of the output stride too.
    for part in (images, images[:, :47, :33], images[:1, :1, :1]):
        probabilities = model(part)
        assert probabilities.shape == (*part.shape[:3], 4)
        np.testing.assert_allclose(compiled(part)["probabilities"], probabilities, rtol=0, atol=1e-5)


def test_a_model_of_maps_names_no_class_of_a_patch(trained, tmp_path):
    from eo_keras.serving import images as prediction

    with pytest.raises(RunError, match="predicts a class for every pixel.*launch.predict with `output_dir`"):
        prediction.predict_images(runs.open_run(trained[0]), [tmp_path / "a.tif"])


def test_the_mean_of_mirrored_answers_is_the_same_for_the_mirrored_tile(trained):
    run = runs.open_run(trained[0])
    model = models.inference_model(run.model, None)
    averaged = tta.wrap(model, EvaluationOptions(scales=(0.5, 1.0), flip=True))
    images = np.random.default_rng(1).integers(1, 3000, (1, TILE, TILE, 3)).astype(np.uint16)
    one, other = averaged(tf.constant(images)), averaged(tf.constant(images[:, :, ::-1]))
    np.testing.assert_allclose(one, np.asarray(other)[:, :, ::-1], atol=1e-5)
    np.testing.assert_allclose(np.asarray(one).sum(-1), 1, atol=1e-5)


def test_no_data_stays_no_data_at_another_size():
    images = np.full((1, 8, 8, 2), 1000, np.uint16)
    images[0, :4] = 0
    small = tta.rescaled(tf.constant(images), tf.constant((4, 4))).numpy()[0]
    large = tta.rescaled(tf.constant(images), tf.constant((16, 16))).numpy()[0]
    assert not small[:2].any() and (small[2:] > 0).all()
    assert not large[:8].any() and (large[8:] > 0).all()


def test_a_mask_outside_the_legend_stops_an_evaluation(records_dir):
    image = keras.Input((TILE, TILE, 3), dtype="uint16")
    scaled = keras.layers.Rescaling(1 / 10_000)(image)
    two = keras.layers.Conv2D(2, 1, activation="softmax")(scaled)
    records = pipelines.RecordDataset(records_dir)
    dataset = pipelines.evaluation(records, pipelines.PipelineOptions(batch_size=4), "test", with_keys=True)
    with pytest.raises(LegendError, match="outside the legend"):
        task = tasks.get("segmentation")
        Predictor(keras.Model(image, two), task, ("Other", "Residential"))(records, dataset)
