"""Data sets that TensorFlow Datasets has prepared become records."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from eo_keras.errors import OptionError, SourceError
from eo_keras.inspection import scan_records
from eo_keras.legends.catalogue import IGNORE
from eo_keras.records import example as records
from tests.harness.building import all_examples, built
from tests.launch.commands import start
from tests.tfrecords_builder.sources import prepare_tfds
from tests.tfrecords_builder.sources.prepare_tfds import mask_of, pixels_of
from tfrecords_builder import build

RGB = {"band_order": "B04,B03,B02"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder of data sets, prepared by TensorFlow Datasets itself in a process of its own."""
    folder = tmp_path_factory.mktemp("tfds")
    result = start(prepare_tfds.__name__, folder).wait()
    assert result.returncode == 0, result.stderr
    return folder


def test_images_classes_keys_and_splits_are_the_data_sets(prepared, tmp_path):
    chosen = {"tfds_name": "coloured", "split": "published", "resolution_m": 0.3, **RGB}
    card = built("tfds", prepared, tmp_path / "r", **chosen)
    assert (card.dataset, card.task, card.dtype, card.encoding) == ("coloured", "classification", "uint8", "raw")
    assert card.legend.class_names == ("water", "forest", "town") and card.bands == ("B04", "B03", "B02")
    assert (card.patch_size, card.resolution_m, card.attribution) == (32, 0.3, "Nobody")
    assert {name: split.examples for name, split in card.splits.items()} == prepare_tfds.COUNTS
    found = {example.key: example for example in all_examples(card, tmp_path / "r")}
    assert set(found) == {f"image_{number}" for number in range(15)}
    for number in range(15):
        example = found[f"image_{number}"]
        np.testing.assert_array_equal(records.decode_image(example, card), pixels_of(number))
        assert example.label == number % 3
    assert scan_records.verify(card, tmp_path / "r") == 15
    again = built(
        "tfds", prepared / "coloured" / "1.2.0", tmp_path / "s", num_workers=2, **(chosen | {"tfds_name": None})
    )
    assert again.fingerprint != "" and [s.shards for s in again.splits.values()] == [
        s.shards for s in card.splits.values()
    ]
    drawn = built("tfds", prepared, tmp_path / "t", **(chosen | {"split": None}))
    assert {name: split.examples for name, split in drawn.splits.items()} == {"train": 12, "test": 3}


@pytest.mark.parametrize("encoding", ["none", "bytes", "zlib"])
def test_tensors_of_many_bands_become_whole_numbers(prepared, tmp_path, encoding):
    chosen = {"tfds_name": f"bands_{encoding}", "band_order": "B02,B03,B04,B08", "scene_level": "L1C"}
    card = built("tfds", prepared, tmp_path / "r", **chosen)
    assert (card.dtype, card.level, card.bands[-1]) == ("uint16", "L1C", "B08")
    found = {example.key: example for example in all_examples(card, tmp_path / "r")}
    # TensorFlow Datasets shuffles what it prepares; the examples are numbered as they lie there.
    assert sorted(found) == sorted([f"train_{n:06d}" for n in range(9)] + [f"test_{n:06d}" for n in range(6)])
    expected = {(pixels_of(n, 4).astype(np.uint16) * 40).tobytes(): n % 3 for n in range(15)}
    assert {example.image: example.label for example in found.values()} == expected
    minimum = min(image[image > 0].min() for image in (np.frombuffer(one, np.uint16) for one in expected))
    assert min(band.minimum for band in card.statistics) >= minimum


def test_masks_become_pixel_labels(prepared, tmp_path):
    card = built("tfds", prepared, tmp_path / "r", tfds_name="masked", split="published", **RGB)
    assert card.task == "segmentation" and card.legend.class_names == ("dry", "wet")
    found = {example.image: example for example in all_examples(card, tmp_path / "r")}
    for number in range(15):
        example = found[pixels_of(number).tobytes()]
        np.testing.assert_array_equal(example.tile.mask, mask_of(number)[..., 0])
        assert (example.tile.validity[-4:] == records.NO_DATA).all() and (
            example.tile.validity[:-4] == records.VALID
        ).all()
        assert (example.tile.labels[-4:] == IGNORE).all()
    wet = sum(int((one.tile.labels == 1).sum()) for one in found.values())
    assert wet == sum(split.classes["wet"] for split in card.splits.values())


@pytest.mark.parametrize("kind", ["rgb", "ms"])
def test_records_of_this_program_are_read_back_to_the_byte(rgb_zip, ms_zip, tmp_path, kind):
    source, bands = {"rgb": (rgb_zip, "B04,B03,B02"), "ms": (ms_zip, "EUROSAT")}[kind]
    first = built(f"eurosat_{kind}", source, tmp_path / "first", seed=3)
    chosen = {"split": "published", "seed": 3, "band_order": bands, "scene_level": "L1C"}
    second = built("tfds", tmp_path / "first", tmp_path / "second", **chosen)
    assert second.splits == first.splits and second.statistics == first.statistics
    shards = [path.name for path in (tmp_path / "first").glob("*.tfrecord-*")]
    assert len(shards) == 9
    for name in shards:
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes(), name
    assert second.georeferenced == first.georeferenced and second.legend.class_names == first.legend.class_names


def copied(prepared, tmp_path, name="coloured"):
    return shutil.copytree(prepared / name / "1.2.0", tmp_path / name)


def change(folder, **values):
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_cannot_be_read_is_refused(prepared, tmp_path):
    def refused(error, match, folder, **chosen):
        with pytest.raises(error, match=match):
            built("tfds", folder, tmp_path / "r", **(RGB | chosen))
        assert not (tmp_path / "r").exists()

    folder = copied(prepared, tmp_path)
    change(folder, fileFormat="array_record")
    refused(SourceError, "files are of the format array_record; expected TFRecord.*file_format='tfrecord'", folder)
    change(folder, fileFormat="tfrecord")
    refused(SourceError, "it holds no features.json.*such as eurosat/all", prepared, tfds_name="absent")
    refused(OptionError, "tfds_data_dir: it is missing", "")
    refused(OptionError, "band_order: TensorFlow Datasets does not say which bands", folder, band_order=None)
    refused(OptionError, "band_order: 2 names; expected 3", folder, band_order="B04,B03")
    refused(OptionError, "no feature 'mask'; expected one of filename, image, label", folder, tfds_label="mask")
    shard = folder / "coloured-test.tfrecord-00001-of-00002"
    whole = shard.read_bytes()
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    refused(SourceError, f"{shard.name}: record . is cut off or damaged.*Prepare the data set again", folder)
    shard.unlink()
    refused(SourceError, f"{shard.name}: there is no such file", folder)
    shard.write_bytes((folder / "coloured-test.tfrecord-00000-of-00002").read_bytes())
    refused(SourceError, "hold examples of one key, image_", folder)
    odd = copied(prepared, tmp_path, "bands_none")
    (odd / "label.labels.txt").write_text("water\nforest\n")
    refused(SourceError, "record .: its class is 2; expected 0 to 1", odd, band_order="B02,B03,B04,B08")


def test_a_file_that_changes_while_records_are_built_is_noticed(prepared, tmp_path, monkeypatch):
    folder, scan = copied(prepared, tmp_path), build.scan.scan

    def replace_after(*arguments):
        scan(*arguments)
        for path in pathlib.Path(folder).glob("*-train.tfrecord-*"):
            path.write_bytes((folder / "coloured-test.tfrecord-00000-of-00002").read_bytes())

    monkeypatch.setattr(build.scan, "scan", replace_after)
    with pytest.raises(SourceError, match="it has changed while records were built"):
        built("tfds", folder, tmp_path / "t", **RGB)
