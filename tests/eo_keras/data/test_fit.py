import keras
import numpy as np
import pytest

import eo_keras as eo
from eo_keras.data.augment.options import Augmentation
from eo_keras.errors import OptionError, RecordsError
from tests.harness import towns
from tfrecords_builder import build
from tfrecords_builder.sources.urban_atlas.options import UrbanAtlasOptions

TILE = 48


@pytest.fixture(scope="module")
def patches(rgb_records):
    return eo.open_records(rgb_records)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towns")
    lines = [
        towns.write_town(folder, name, place=place, size=84, bands=("B02", "B03", "B04"))[:-1] + f"{split},"
        for place, (name, split) in enumerate((("A", "train"), ("B", "test")))
    ]
    cut = UrbanAtlasOptions(str(towns.write_list(folder, *lines)), bands="RGB", tile_size=TILE)
    build.build(build.BuildOptions("urban_atlas", cut, str(folder / "records")))
    return eo.open_records(folder / "records")


def _images(dataset):
    return np.concatenate([batch[0].numpy() for batch in dataset])


def test_ordered_batches_hold_every_example_once_and_the_last_is_smaller(patches):
    dataset = patches.dataset("test", batch_size=16)
    assert [len(label) for _, label in dataset] == [16, 16, 8]
    assert dataset.cardinality() == 3 and patches.count("test") == 40
    np.testing.assert_array_equal(_images(dataset), _images(dataset))
    image, label = next(iter(dataset))
    assert image.dtype == "uint8" and image.shape == (16, 64, 64, 3) and label.dtype == "int32"
    _, vectors = next(iter(patches.dataset("test", batch_size=16, one_hot=True)))
    np.testing.assert_array_equal(vectors.numpy(), np.eye(10, dtype=np.float32)[label.numpy()])


def test_bands_are_selected_by_name(patches):
    assert patches.card.bands == ("B04", "B03", "B02")
    blue = _images(patches.dataset("test", bands=("B02",)))
    np.testing.assert_array_equal(blue, _images(patches.dataset("test"))[..., 2:])


def test_each_pass_over_shuffled_batches_is_another_epoch_and_the_same_again_from_the_same_seed(patches):
    def passes(**options):
        dataset = patches.dataset("train", batch_size=32, **options)
        assert dataset.cardinality() == 5
        return [_images(dataset) for _ in range(2)]

    first, second = passes()
    assert first.shape == (160, 64, 64, 3) and not np.array_equal(first, second)
    # The same 160 images in another order.
    np.testing.assert_array_equal(np.sort(first.reshape(160, -1).sum(1)), np.sort(second.reshape(160, -1).sum(1)))
    np.testing.assert_array_equal(passes(), [first, second])
    changed = passes(augment=Augmentation(max_shift=0, brightness=0.0))
    assert not np.array_equal(changed[0], first)
    # Turned and mirrored only: the sums of the images stay.
    np.testing.assert_array_equal(changed[0].reshape(160, -1).sum(1), first.reshape(160, -1).sum(1))


def test_pixels_without_a_class_have_weight_0(tiles):
    image, label, weight = next(iter(tiles.dataset("test", batch_size=2)))
    assert image.shape == (2, TILE, TILE, 3) and label.shape == weight.shape == (2, TILE, TILE)
    assert 0 < weight.numpy().mean() < 1 and label.numpy().max() < len(tiles.card.legend)
    assert not label.numpy()[weight.numpy() == 0].any()
    for *_, label, weight in tiles.dataset("train", batch_size=2, augment=True, one_hot=True):
        assert label.shape == (2, TILE, TILE, len(tiles.card.legend)) and weight.shape == (2, TILE, TILE)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_keras_fits_and_evaluates_a_model(patches, tiles, task):
    records = patches if task == "classification" else tiles
    classes = len(records.card.legend)
    pool = [keras.layers.GlobalAveragePooling2D()] if task == "classification" else []
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(classes, 1), *pool, keras.layers.Softmax()]
    model = keras.Sequential(layers)
    model.compile("sgd", "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
    test = records.dataset("test", batch_size=3)
    history = model.fit(records.dataset("train", batch_size=2, augment=True), validation_data=test, verbose=0)
    assert np.isfinite(history.history["val_loss"]).all()
    # Weights and the smaller last batch count as they must: the accuracy is that of the examples one by one.
    correct, weights = [], []
    for image, label, *weight in records.dataset("test", batch_size=1):
        correct.append(np.argmax(model(image), axis=-1) == label.numpy())
        weights.append(weight[0].numpy() if weight else np.ones(label.shape))
    accuracy = np.average(np.concatenate(correct), weights=np.concatenate(weights))
    assert history.history["val_accuracy"][-1] == pytest.approx(accuracy, abs=1e-6)


def test_refusals(patches):
    with pytest.raises(RecordsError, match="no split 'bogus'"):
        patches.count("bogus")
    with pytest.raises(OptionError, match="augment"):
        patches.dataset("test", augment=True)
