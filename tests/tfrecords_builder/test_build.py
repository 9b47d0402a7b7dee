import io
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.io import MemoryFile

from eo_keras.errors import EOKerasError, OptionError, RecordsError, SourceError
from eo_keras.inspection import scan_records
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from eo_keras.records import tfrecord
from eo_keras.sensors import sentinel2
from tests.harness.building import all_examples, built, bytes_of
from tfrecords_builder import build
from tfrecords_builder.splits.split import SplitOptions


def test_jpegs_are_stored_untouched(make, rgb_zip, tmp_path):
    card = built("eurosat_rgb", rgb_zip, tmp_path / "r")
    assert {name: part.examples for name, part in card.splits.items()} == {"train": 24, "test": 6}
    assert card.splits["test"].classes["River"] == 2 and card.splits["test"].classes["Pasture"] == 0
    assert len(card.splits["train"].shards) == 8
    members = make.rgb()
    stored = {example.key: example for example in all_examples(card, tmp_path / "r")}
    assert len(stored) == 30
    for name, data in members.items():
        example = stored[os.path.basename(name)[:-4]]
        assert example.image == data
        assert card.legend.class_names[example.label] == name.split("/")[1]


def test_geotiffs_are_stored_as_raw_numbers_with_their_place(make, ms_zip, tmp_path):
    card = built("eurosat_ms", ms_zip, tmp_path / "m")
    stored = {example.key: example for example in all_examples(card, tmp_path / "m")}
    for name, data in make.ms().items():
        example = stored[os.path.basename(name)[:-4]]
        with MemoryFile(data) as memory, memory.open() as dataset:
            expected = dataset.read().transpose(1, 2, 0)
            np.testing.assert_array_equal(records.decode_image(example, card), expected)
            assert example.image == expected.astype("<u2").tobytes()
            assert example.crs == "EPSG:32633"
            # 4877286.03 does not survive a float32.
            assert example.transform == tuple(dataset.transform)[:6] and example.transform[5] == 4877286.03


def test_a_13_band_record_is_at_most_0_51_of_tfds(ms_zip, tmp_path):
    card = built("eurosat_ms", ms_zip, tmp_path / "m")
    largest = max(len(records.encode(example)) for example in all_examples(card, tmp_path / "m"))
    assert largest + tfrecord.FRAMING_BYTES <= 0.51 * (64 * 64 * 13 * 4)


def test_statistics_are_exact_and_of_training_alone(make, tmp_path):
    members = make.ms(per_class=8)
    with MemoryFile(members["EuroSAT_MS/River/River_1.tif"]) as memory, memory.open() as dataset:
        profile, image = dataset.profile, dataset.read()
    image[:, :10] = 0  # ten rows without data
    image[1, 20:30] = 0  # and ten in which B02 is 0
    with MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(image)
        members["EuroSAT_MS/River/River_1.tif"] = memory.read()
    card = built("eurosat_ms", make.zip(tmp_path / "a.zip", members), tmp_path / "m", val_fraction=0.2)
    training = np.stack([records.decode_image(e, card) for e in all_examples(card, tmp_path / "m", "train")])
    assert len(training) < 24 and set(card.splits) == {"train", "val", "test"}
    has_data = training.any(axis=-1)
    assert not has_data.all()
    for index, band in enumerate(card.statistics):
        values = training[has_data][:, index].astype(np.float64)
        assert band.band == sentinel2.EUROSAT_ORDER[index]
        assert band.valid == values.size and band.valid + band.nodata == has_data.size
        assert band.mean == pytest.approx(values.mean(), rel=1e-12)
        assert band.std == pytest.approx(values.std(), rel=1e-9)
        assert (band.minimum, band.maximum) == (values.min(), values.max())


def test_same_bytes_for_any_number_of_workers_and_any_layout(make, rgb_zip, tmp_path):
    one = built("eurosat_rgb", rgb_zip, tmp_path / "1")
    built("eurosat_rgb", rgb_zip, tmp_path / "2", num_workers=2)
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2")
    for number, (kind, root) in enumerate([("zip", "2750/"), ("folder", "EuroSAT_RGB/"), ("folder", "")]):
        source = getattr(make, kind)(tmp_path / f"source{number}", make.rgb(root=root))
        card = built("eurosat_rgb", source, tmp_path / f"out{number}")
        assert card.splits == one.splits
    other = built("eurosat_rgb", rgb_zip, tmp_path / "seed2", seed=2)
    assert [s.sha256 for s in other.splits["train"].shards] != [s.sha256 for s in one.splits["train"].shards]


def test_the_old_deep_path_of_the_13_band_archive(make, tmp_path):
    members = make.ms(per_class=7, root="ds/images/remote_sensing/otherDatasets/sentinel_2/tif/")
    assert built("eurosat_ms", make.folder(tmp_path / "s", members), tmp_path / "m").splits["train"].examples == 18


def test_tfds_reads_the_same_images_and_labels(rgb_zip, ms_zip, tmp_path):
    import tensorflow_datasets as tfds

    for dataset, source in (("eurosat_rgb", rgb_zip), ("eurosat_ms", ms_zip)):
        folder = tmp_path / dataset
        card = built(dataset, source, folder)
        builder = tfds.builder_from_directory(str(folder))
        assert builder.info.features["label"].names == list(card.legend.class_names)
        for split in card.splits:
            expected = {example.key: example for example in all_examples(card, folder, split)}
            assert builder.info.splits[split].num_examples == len(expected)
            seen = 0
            # TFDS decodes JPEGs with TensorFlow's fast transform, so the bytes are compared and the pixels nearly.
            jpeg = card.encoding == "jpeg"
            undecoded = {"image": tfds.decode.SkipDecoding()} if jpeg else None
            if jpeg:
                for row in tfds.as_numpy(builder.as_dataset(split=split).take(3)):
                    image = records.decode_image(expected[row["key"].decode()], card)
                    assert np.abs(row["image"].astype(int) - image).mean() < 2
            for row in tfds.as_numpy(builder.as_dataset(split=split, decoders=undecoded)):
                example = expected[row["key"].decode()]
                if jpeg:
                    assert row["image"] == example.image
                else:
                    np.testing.assert_array_equal(row["image"], records.decode_image(example, card))
                assert row["label"] == example.label
                if card.georeferenced:
                    assert tuple(row["transform"]) == example.transform and row["crs"].decode() == example.crs
                seen += 1
            assert seen == len(expected)


def test_the_card_comes_back_as_it_was_and_its_fingerprint_follows_the_content(rgb_zip, tmp_path):
    card = built("eurosat_rgb", rgb_zip, tmp_path / "r")
    again = cards.read_data_card(tmp_path / "r")
    assert cards.to_json(again) == cards.to_json(card)
    assert card.fingerprint == card.with_fingerprint().fingerprint
    assert built("eurosat_rgb", rgb_zip, tmp_path / "s", seed=3).fingerprint != card.fingerprint
    # (DN - 1) * 2750 / 254 / 10000, the authors' stretch: the brightest JPEG value is reflectance 0.275.
    assert 255 * card.reflectance.scale + card.reflectance.offset == pytest.approx(0.275)
    assert card.statistics[0].band == "B04"


def test_identical_images_stay_together_and_are_counted(make, tmp_path):
    members = make.rgb(per_class=20)
    for n in range(2, 8):
        members[f"EuroSAT_RGB/Forest/Forest_{n}.jpg"] = members["EuroSAT_RGB/Forest/Forest_1.jpg"]
    source = make.zip(tmp_path / "a.zip", members)
    for seed in range(1, 6):
        card = built("eurosat_rgb", source, tmp_path / str(seed), seed=seed)
        copies = {f"Forest_{n}" for n in range(1, 8)}
        inside = [
            len(copies & {e.key for e in all_examples(card, tmp_path / str(seed), split)}) for split in card.splits
        ]
        assert sorted(inside) == [0, 7]
        assert card.split_method["identical_images"] == 7


def test_band_order_guard(make, tmp_path):
    nominal = make.zip(tmp_path / "nominal.zip", make.ms(order=sentinel2.NOMINAL_ORDER))
    with pytest.raises(SourceError, match="darkest band is number 11 .* B8A in ninth place"):
        built("eurosat_ms", nominal, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    no_cirrus = tuple("B09" if band == "B10" else band for band in sentinel2.EUROSAT_ORDER)
    with pytest.raises(SourceError, match="no band looks like B10"):
        built("eurosat_ms", make.zip(tmp_path / "l2a.zip", make.ms(order=no_cirrus)), tmp_path / "m")
    few = make.zip(tmp_path / "few.zip", make.ms(per_class=5, order=sentinel2.NOMINAL_ORDER))
    options = build.BuildOptions("eurosat_ms", str(few), str(tmp_path / "few"))
    assert "too few patches (15)" in build.build(options).warnings[0]


def with_member(name, data):
    return lambda make: make.rgb() | {name: data(make)}


def cut(data):
    return data[: len(data) // 2]


def kaggles(make, ms_root="EuroSATallBands/"):
    """The archive of Kaggle's: both forms side by side, lists beside the class folders."""
    rgb = make.rgb(per_class=4, root="EuroSAT/")
    lists = {f"EuroSAT/{name}": b"{}" for name in ("train.csv", "test.csv", "label_map.json")}
    litter = {"__MACOSX/EuroSAT/Forest/._Forest_1.jpg": b"x", "EuroSAT/Forest/Thumbs.db": b"x"}
    return rgb | lists | litter | make.ms(per_class=4, root=ms_root)


def test_both_forms_of_eurosat_in_one_archive_of_any_name(make, tmp_path):
    other = {"ds/sentinel_2/label/Forest/Forest_1.geojson": b"{}", "ds/sentinel_2/png/Forest/Forest_1.png": b"x"}
    plain = {}
    for number, (members, prefix) in enumerate(
        [(kaggles(make), ""), (kaggles(make, "ds/sentinel_2/tif/") | other, "any name/archive/")]
    ):
        source = make.zip(tmp_path / f"{number}.zip", {prefix + name: data for name, data in members.items()})
        for dataset in ("eurosat_rgb", "eurosat_ms"):
            card = built(dataset, source, tmp_path / f"{dataset}{number}")
            assert sum(part.examples for part in card.splits.values()) == 12
            shards = [shard.sha256 for part in card.splits.values() for shard in part.shards]
            assert plain.setdefault(dataset, shards) == shards


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (
            lambda m: m.rgb(per_class=1) | m.rgb(per_class=1, root="2750/"),
            "lie in 2750/ and in EuroSAT_RGB/; .*Give one of them as `source",
        ),
        (
            lambda m: m.rgb(per_class=1) | {"EuroSAT_RGB/Forest/Forest_1 (1).jpg": m.jpeg(9)},
            r"Forest_1.jpg and .*Forest_1 \(1\).jpg are called as an image and its copy are",
        ),
        (
            lambda m: m.rgb(per_class=1) | {"EuroSAT_RGB/Forest/FOREST_1.JPG": m.jpeg(9)},
            "FOREST_1.JPG and .*Forest_1.jpg differ in upper and lower case alone",
        ),
        (lambda m: m.rgb(per_class=1) | {"x/Forest_1.jpg": m.jpeg(9)}, "an image outside the class folders"),
    ],
)
def test_no_image_of_eurosat_is_read_twice_or_passed_over(make, tmp_path, members, words):
    with pytest.raises(SourceError, match=words) as caught:
        built("eurosat_rgb", make.zip(tmp_path / "a.zip", members(make)), tmp_path / "r")
    assert "remove the folder" not in str(caught.value)


def png(make):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (
            with_member("EuroSAT_RGB/Forest/Forest_3.jpg", lambda m: cut(m.jpeg(3))),
            "Forest_3.jpg: it cannot be decoded",
        ),
        (with_member("EuroSAT_RGB/Forest/Forest_3.jpg", lambda m: m.jpeg(3, size=32)), "32x32 pixels"),
        (with_member("EuroSAT_RGB/Forest/Forest_3.jpg", png), "Forest_3.jpg: it cannot be decoded"),
        (with_member("EuroSAT_RGB/Glacier/Glacier_1.jpg", lambda m: m.jpeg(3)), "'Glacier' is not a class folder"),
        (with_member("EuroSAT_RGB/Forest/notes.txt", lambda m: b"hello"), "not an image of the data set"),
        (with_member("EuroSAT_RGB/Forest/deep/Forest_99.jpg", lambda m: m.jpeg(3)), "directly in the class folder"),
        (with_member("EuroSAT_RGB/River/Forest_99.jpg", lambda m: m.jpeg(3)), "lies in class folder River"),
        (with_member("EuroSAT_RGB/Forest/Forest_3.jpeg", lambda m: m.jpeg(3)), "have one key, Forest_3"),
        (with_member("EuroSAT_RGB/../../evil.jpg", lambda m: m.jpeg(3)), "leaves its folder"),
        (lambda make: {}, "it holds no patches"),
        (lambda make: {"data/EuroSAT.zip": b"PK"}, r"other zips \(data/EuroSAT.zip\); .*Unpack it, and give one"),
        (lambda make: make.ms(), "an archive of eurosat_ms.* Say `dataset=eurosat_ms"),
    ],
)
def test_bad_rgb_archives_are_refused_by_name(make, tmp_path, members, words):
    source = make.zip(tmp_path / "a.zip", members(make))
    with pytest.raises(SourceError, match=words):
        built("eurosat_rgb", source, tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"order": sentinel2.EUROSAT_ORDER[:12]}, "12 bands; expected 13 bands"),
        ({"size": 32}, "32x32 pixels"),
        ({"dtype": "float32"}, "type float32; expected uint16"),
        ({"crs": None}, "no coordinate reference system"),
        ({"names": sentinel2.NOMINAL_ORDER}, "bands named B01,.*B8A,B09,"),
    ],
)
def test_bad_geotiffs_are_refused_by_name(make, tmp_path, kwargs, words):
    members = make.ms() | {"EuroSAT_MS/River/River_4.tif": make.geotiff(4, **kwargs)}
    with pytest.raises(SourceError, match=f"River_4.tif: .*{words}"):
        built("eurosat_ms", make.zip(tmp_path / "a.zip", members), tmp_path / "m")


def test_a_cut_geotiff_and_a_text_file_named_tif(make, tmp_path):
    for data in (cut(make.geotiff(4)), b"not a tiff at all", b""):
        members = make.ms() | {"EuroSAT_MS/River/River_4.tif": data}
        with pytest.raises(SourceError, match="River_4.tif: it cannot be read"):
            built("eurosat_ms", make.zip(tmp_path / "a.zip", members), tmp_path / "m")


def test_a_truncated_zip_and_a_missing_source(make, rgb_zip, tmp_path):
    source = tmp_path / "cut.zip"
    source.write_bytes(cut(rgb_zip.read_bytes()))
    with pytest.raises(SourceError, match="it is cut off.* Download it again"):
        built("eurosat_rgb", source, tmp_path / "r")
    with pytest.raises(SourceError, match="no such file or folder"):
        built("eurosat_rgb", tmp_path / "none.zip", tmp_path / "r")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="it holds no patches"):
        built("eurosat_rgb", tmp_path / "empty", tmp_path / "r")


def test_a_damaged_zip_member_is_found_by_the_zips_own_checksum(make, tmp_path):
    data = bytearray(make.zip(tmp_path / "a.zip", make.rgb()).read_bytes())
    data[len(data) // 3] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.zip: EuroSAT_RGB/.*cannot be read"):
        built("eurosat_rgb", tmp_path / "a.zip", tmp_path / "r")


def test_another_build_is_not_overwritten_unless_asked(rgb_zip, tmp_path):
    first = built("eurosat_rgb", rgb_zip, tmp_path / "r")
    before = bytes_of(tmp_path / "r")
    with pytest.raises(RecordsError, match="holds another build.*`overwrite"):
        built("eurosat_rgb", rgb_zip, tmp_path / "r", seed=2)
    assert bytes_of(tmp_path / "r") == before
    second = built("eurosat_rgb", rgb_zip, tmp_path / "r", seed=2, overwrite=True)
    assert second.fingerprint != first.fingerprint
    names = {shard.name for part in second.splits.values() for shard in part.shards}
    assert {name for name in os.listdir(tmp_path / "r") if "tfrecord" in name} == names
    (tmp_path / "r" / "thesis.doc").write_bytes(b"mine")
    options = build.BuildOptions("eurosat_rgb", str(rgb_zip), str(tmp_path / "r"), overwrite=True)
    (warning,) = (line for line in build.build(options).warnings if "thesis.doc" in line)
    assert "left alone" in warning and (tmp_path / "r" / "thesis.doc").read_bytes() == b"mine"


def test_a_dry_run_writes_nothing(rgb_zip, tmp_path):
    options = build.BuildOptions("eurosat_rgb", str(rgb_zip), str(tmp_path / "r"))
    report = build.build(options, dry_run=True)
    assert report.planned_shards == {"train": 8, "test": 1}
    assert report.card.splits["train"].examples == 24
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("split", "match"),
    [
        ({"test_fraction": 0.05}, "none falls into test; .*Change `test_fraction"),
        ({"val_fraction": 0.05}, "none falls into val"),
        ({"fold": "1/50"}, "fold: 1/50, and the number of patches is 30"),
        ({"split": "published"}, "the archive has no splits of its own"),
        ({"split": "lists", "lists": "no/such"}, "the list cannot be read"),
        ({"split": "spatial", "coordinates": "places.csv", "block_km": 500}, "so that there are 2 blocks at least"),
        (
            {"split": "spatial", "coordinates": "places.csv", "block_km": 500, "fold": "1/2"},
            "the number of blocks is 1",
        ),
    ],
)
def test_what_cannot_be_split_is_refused_before_a_patch_is_read(split, match, rgb_zip, tmp_path, monkeypatch):
    def scanned(*_):
        raise AssertionError("a patch is read")

    monkeypatch.setattr(build.scan, "scan", scanned)
    if "coordinates" in split:
        keys = [pathlib.PurePosixPath(name).stem for name in zipfile.ZipFile(rgb_zip).namelist() if name[-4:] == ".jpg"]
        rows = [f"{key},50.0,{7 + number / 1000}" for number, key in enumerate(keys)]
        (tmp_path / "places.csv").write_text("\n".join(["patch,latitude,longitude", *rows]))
        split = split | {"coordinates": str(tmp_path / "places.csv")}
    options = build.BuildOptions("eurosat_rgb", str(rgb_zip), str(tmp_path / "r"), SplitOptions(**split))
    for dry_run in (True, False):
        with pytest.raises((SourceError, OptionError), match=match):
            build.build(options, dry_run=dry_run)
    assert not (tmp_path / "r").exists()


def test_a_full_disk_leaves_no_card(ms_zip, tmp_path):
    code = (
        "import sys, resource, signal; from tfrecords_builder import build; from eo_keras import errors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        "try: build.build(build.BuildOptions('eurosat_ms', sys.argv[1], sys.argv[2]))\n"
        "except errors.StorageError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(ms_zip), str(tmp_path / "m")], capture_output=True, text=True
    )
    assert "no room is left" in result.stdout, result.stderr
    assert not (tmp_path / "m" / "card.json").exists()


@pytest.mark.parametrize("options", [{"shard_mb": 0}, {"num_workers": 0}, {"test_fraction": 1.5}])
def test_impossible_options(rgb_zip, tmp_path, options):
    with pytest.raises(OptionError):
        built("eurosat_rgb", rgb_zip, tmp_path / "r", **options)


def test_a_card_of_another_kind_is_refused(rgb_zip, tmp_path):
    built("eurosat_rgb", rgb_zip, tmp_path / "r")
    path = tmp_path / "r" / "card.json"
    whole = json.loads(path.read_text())
    del whole["checksum"]  # Or any change would be noticed by it.
    for change, words in [
        ({"schema": 99}, "version 99"),
        ({"bands": "B04"}, "no list"),
        ({"surprise": 1}, "no DataCard"),
        ({"patch_size": "64"}, "is no int"),
    ]:
        path.write_text(json.dumps(whole | change))
        with pytest.raises(EOKerasError, match=words):
            cards.read_data_card(tmp_path / "r")
    path.write_text(path.read_text()[:100])
    with pytest.raises(RecordsError, match="cannot be read"):
        cards.read_data_card(tmp_path / "r")
    path.unlink()
    with pytest.raises(RecordsError, match="it holds no card.json"):
        cards.read_data_card(tmp_path / "r")
    with pytest.raises(RecordsError, match="no such folder"):
        cards.read_data_card(tmp_path / "none")


@pytest.mark.real_data
def test_real_13_band_patches(real_data, tmp_path):
    card = built("eurosat_ms", real_data / "eurosat" / "EuroSAT_MS_sample.zip", tmp_path / "m", num_workers=2)
    means = {band.band: band.mean for band in card.statistics}
    # facts of the whole data set: B10 about 12.1, B8A 2594, B09 732; the sample has 466 of 27,000 patches.
    assert 11 < means["B10"] < 14
    assert means["B8A"] == pytest.approx(2594, rel=0.1) and means["B09"] == pytest.approx(732, rel=0.1)
    examples = all_examples(card, tmp_path / "m")
    assert len(examples) == 466
    for example in examples[::40]:
        member = f"EuroSAT_MS/{example.key.split('_')[0]}/{example.key}.tif"
        path = f"/vsizip/{real_data}/eurosat/EuroSAT_MS_sample.zip/{member}"
        with rasterio.open(path) as dataset:
            np.testing.assert_array_equal(records.decode_image(example, card), dataset.read().transpose(1, 2, 0))
            assert tuple(dataset.transform)[:6] == example.transform and dataset.crs.to_string() == example.crs


@pytest.mark.real_data
@pytest.mark.slow
def test_all_27000_real_jpegs(real_data, tmp_path):
    import zipfile

    source = real_data / "eurosat" / "EuroSAT_RGB.zip"
    card = built("eurosat_rgb", source, tmp_path / "1", num_workers=1)
    built("eurosat_rgb", source, tmp_path / "2", num_workers=2)
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2")
    assert {name: part.examples for name, part in card.splits.items()} == {"train": 21_600, "test": 5_400}
    assert card.splits["test"].classes["Pasture"] == 400 and card.splits["test"].classes["Forest"] == 600
    with zipfile.ZipFile(source) as archive:
        for example in all_examples(card, tmp_path / "1"):
            class_name = card.legend.class_names[example.label]
            assert archive.read(f"EuroSAT_RGB/{class_name}/{example.key}.jpg") == example.image


def test_classes_that_a_part_lacks_are_warned_of(rgb_zip, tmp_path):
    report = build.build(build.BuildOptions("eurosat_rgb", str(rgb_zip), str(tmp_path / "r")))
    train, test = report.warnings
    assert (
        test
        == "the split 'test' has no example of "
        + ", ".join(name for name, count in report.card.splits["test"].classes.items() if not count)
        + ", which cannot be scored there"
    )
    assert train.startswith("the split 'train' has no example of ") and train.endswith(", which cannot be learned")
    lines = scan_records.describe(report.card).splitlines()
    (line,) = (line for line in lines if line.startswith("Pasture"))
    assert line.split()[-1] == "-" and report.card.splits["test"].classes["Pasture"] == 0
