import csv
import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from eo_keras.core import files
from eo_keras.errors import RecordsError, SourceError
from eo_keras.inspection import leakage, page, scan_records
from eo_keras.plots import html
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from eo_keras.records import statistics, tfrecord
from eo_keras.sensors.radiometry import Reflectance
from tests.harness import modalities
from tfrecords_builder import build
from tfrecords_builder.splits import split as splits


@pytest.fixture(scope="module")
def rgb(rgb_zip, tmp_path_factory):
    """Records of 30 RGB patches in three splits, several shards."""
    folder = tmp_path_factory.mktemp("records") / "rgb"
    split = splits.SplitOptions(test_fraction=0.3, val_fraction=0.2, seed=1)
    build.build(build.BuildOptions("eurosat_rgb", str(rgb_zip), str(folder), split))
    return folder


@pytest.fixture(scope="module")
def ms(ms_zip, tmp_path_factory):
    """Records of 30 georeferenced patches of 13 bands."""
    folder = tmp_path_factory.mktemp("records") / "ms"
    split = splits.SplitOptions(test_fraction=0.3, seed=1)
    build.build(build.BuildOptions("eurosat_ms", str(ms_zip), str(folder), split))
    return folder


@pytest.fixture
def copied(rgb, tmp_path):
    """A copy of the RGB records to damage: folder, card, and the first shard with two records at least."""
    folder = tmp_path / "copied"
    shutil.copytree(rgb, folder)
    card = cards.read_data_card(folder)
    shard = next(shard for split in card.splits.values() for shard in split.shards if shard.examples > 1)
    return folder, card, folder / shard.name


def rewrite(folder, card, path, change):
    """Rewrites a shard's examples, and the card so that lengths and checksums of the file fit."""
    examples = change(list(records.read_examples(path)))
    buffer = io.BytesIO()
    for example in examples:
        tfrecord.write_record(buffer, records.encode(example))
    path.write_bytes(buffer.getvalue())

    def fitting(shard):
        if shard.name != path.name:
            return shard
        return dataclasses.replace(shard, bytes=path.stat().st_size, sha256=files.sha256_of_file(path))

    parts = {
        name: dataclasses.replace(split, shards=tuple(map(fitting, split.shards)))
        for name, split in card.splits.items()
    }
    return dataclasses.replace(card, splits=parts)


def coordinates_file(path, keys):
    """Writes centres on a line from west to east, 0.1 degrees apart."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patch", "latitude", "longitude"])
        writer.writerows([f"{key}.jpg", 50.0, 5 + 0.1 * number] for number, key in enumerate(sorted(keys)))
    return str(path)


@pytest.mark.parametrize("name", ["rgb", "ms"])
def test_a_survey_holds_every_record(request, name):
    folder = request.getfixturevalue(name)
    card = cards.read_data_card(folder)
    seen = []
    survey = scan_records.survey(
        card, folder, samples=2, checksums=True, progress=lambda stage, done, total: seen.append((stage, done, total))
    )
    assert seen[-1] == ("reading", 30, 30)
    assert len(set(survey.keys)) == len(survey.splits) == len(survey.labels) == len(survey.fingerprints.hashes) == 30
    assert {key.rpartition("_")[0] for key in survey.keys} == {"Forest", "River", "SeaLake"}
    for key, label in zip(survey.keys, survey.labels, strict=True):
        assert card.legend.class_names[label] == key.rpartition("_")[0]
    for split in card.splits:
        assert survey.splits.count(split) == card.splits[split].examples
        images = survey.samples[split]
        assert tuple(images) == card.legend.class_names and len(images["Forest"]) == 2 and images["Highway"] == []
        assert images["Forest"][0].shape == (64, 64, 3) and images["Forest"][0].dtype == np.uint8
    # The card's statistics are of the same pixels.
    histograms = statistics.Histograms(len(card.bands), card.dtype)
    histograms.counts, histograms.nodata = survey.histograms["train"], card.statistics[0].nodata
    assert histograms.statistics(card.bands) == card.statistics
    for split, counts in survey.histograms.items():
        assert (counts.sum(axis=1) == 64 * 64 * card.splits[split].examples).all()
    assert scan_records.verify(card, folder) == 30


REGIONS = {"length": 3, "checksum of the length": 9, "data": 12 + 700, "checksum of the data": -2}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("region", REGIONS)
def test_a_flipped_bit_is_named_by_shard_and_record(copied, region, number):
    folder, card, path = copied
    data = bytearray(path.read_bytes())
    start = 0
    for _ in range(number):
        start += tfrecord.FRAMING_BYTES + int.from_bytes(data[start : start + 8], "little")
    end = start + tfrecord.FRAMING_BYTES + int.from_bytes(data[start : start + 8], "little")
    data[(start if REGIONS[region] >= 0 else end) + REGIONS[region]] ^= 0b00100000
    path.write_bytes(data)
    for check in (scan_records.verify, scan_records.survey):
        with pytest.raises(RecordsError, match=rf"{path.name}: record {number} is cut off or damaged"):
            check(card, folder)


def test_a_shard_cut_or_missing(copied):
    folder, card, path = copied
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecordsError, match=f"{path.name}: it has"):
        scan_records.check_shards(card, folder)
    path.unlink()
    with pytest.raises(RecordsError, match=f"{path.name}: there is no such file"):
        scan_records.verify(card, folder)


def other_label(examples):
    return [dataclasses.replace(examples[0], label=(examples[0].label + 1) % 10), *examples[1:]]


def no_label(examples):
    return [dataclasses.replace(examples[0], label=10), *examples[1:]]


def same_key(examples):
    return [examples[0], dataclasses.replace(examples[1], key=examples[0].key), *examples[2:]]


def no_image(examples):
    return [examples[0], dataclasses.replace(examples[1], image=b"\xff\xd8 no JPEG"), *examples[2:]]


def small_image(examples):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 64)).save(buffer, "JPEG")
    return [examples[0], dataclasses.replace(examples[1], image=buffer.getvalue()), *examples[2:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_label, "split '.+' holds . examples of .+; expected .+ as the card says"),
        (no_label, "record 0 has label 10"),
        (same_key, "record 1 has the key .+, as has record 0 of"),
        (no_image, "the image of record 1 cannot be decoded"),
        (small_image, r"the image of record 1 has the shape \(64, 32, 3\)"),
        (lambda examples: examples[:-1], "it holds . records; expected ., as the card says"),
    ],
)
def test_records_that_do_not_fit_the_card(copied, change, message):
    folder, card, path = copied
    card = rewrite(folder, card, path, change)
    with pytest.raises(RecordsError, match=message):
        scan_records.verify(card, folder)


def test_whole_records_in_another_order_are_found_by_the_shards_checksum(copied):
    folder, card, path = copied
    rewrite(folder, card, path, lambda examples: examples[::-1])
    scan_records.survey(card, folder)
    with pytest.raises(RecordsError, match=f"{path.name}: its records can be read, but its SHA-256"):
        scan_records.verify(card, folder)
    with pytest.raises(RecordsError, match="SHA-256"):
        scan_records.survey(card, folder, checksums=True)


@pytest.mark.parametrize(
    ("reflectance", "said"),
    [
        (Reflectance(1e-4), "0.0001 * number; no data is 0"),
        (Reflectance(1e-4, 0.1), "0.0001 * number + 0.1; no data is 0"),
        (Reflectance(0.00108268, -0.00108268), "0.00108268 * number - 0.00108268; no data is 0"),
        (None, "not known; no data is 0"),
    ],
)
def test_how_reflectance_is_told(rgb, reflectance, said):
    card = dataclasses.replace(cards.read_data_card(rgb), reflectance=reflectance)
    assert dict(scan_records.facts(card))["reflectance"] == said


def test_places_come_from_the_records(ms):
    card = cards.read_data_card(ms)
    survey = scan_records.survey(card, ms)
    places = scan_records.locate(card, survey)
    # The n-th patch begins 640 n metres east of zone 33's central meridian, at 15 degrees.
    numbers = {"Forest": 0, "River": 100, "SeaLake": 200}
    for key, (longitude, latitude) in zip(survey.keys, places.degrees, strict=True):
        name, _, n = key.rpartition("_")
        east = 640 * (numbers[name] + int(n)) + 320
        assert longitude == pytest.approx(15 + east / 80_000, rel=0.01) and latitude == pytest.approx(44.04, abs=0.1)
    report = scan_records.find_leaks(card, survey, places, leakage.LeakOptions())
    (pair,) = report.pairs
    assert pair.patches == 9 and pair.neighbours["0"] > 0 and pair.neighbours["5"] == 9 and pair.overlapping == 0


def test_places_come_from_a_file(rgb, tmp_path):
    card = cards.read_data_card(rgb)
    survey = scan_records.survey(card, rgb)
    assert scan_records.locate(card, survey) is None
    path = coordinates_file(tmp_path / "places.csv", survey.keys)
    places = scan_records.locate(card, survey, path)
    assert places.source == "places.csv"
    expected = {key: 5 + 0.1 * number for number, key in enumerate(sorted(survey.keys))}
    assert places.degrees == pytest.approx(np.array([(expected[key], 50.0) for key in survey.keys]))
    pairs = scan_records.find_leaks(card, survey, places, leakage.LeakOptions(neighbour_km=7.0)).pairs
    # Patches 0.1 degrees apart are 7.16 km apart in their centres, 6.5 km at their edges.
    assert all(pair.neighbours["5"] == 0 for pair in pairs) and pairs[0].neighbours["7"] > 0
    (tmp_path / "few.csv").write_text("patch,latitude,longitude\nForest_1,50,5\n")
    with pytest.raises(SourceError, match="29 patches have no coordinates"):
        scan_records.locate(card, survey, str(tmp_path / "few.csv"))


def subject(folder, coordinates=None, name="first"):
    card = cards.read_data_card(folder)
    survey = scan_records.survey(card, folder, samples=2)
    places = scan_records.locate(card, survey, coordinates)
    report = scan_records.find_leaks(card, survey, places, leakage.LeakOptions())
    keys = {key for copy in page.drawn_copies(report) for key in (copy.key, copy.other_key)}
    return page.Subject(name, card, survey, places, report, scan_records.pictures(card, folder, keys))


def test_the_page_of_records_without_places_says_so(rgb):
    first = subject(rgb)
    text = html.render(page.make_page(first))
    assert "`coordinates=FILE" in text and "a neighbor" not in text
    for words in ("Patches of test with … in train", "Patches of val with", "Patches of test with … in val"):
        assert words in text
    # Balance, histograms, and a sheet for each split; no map.
    assert text.count("<img ") == 5
    json.dumps(page.numbers(first))
    assert len(page.summary(first.report)) == 3


def test_the_page_compares_two_folders(ms, rgb, tmp_path):
    first = subject(ms)
    coordinates = coordinates_file(tmp_path / "places.csv", scan_records.survey(cards.read_data_card(rgb), rgb).keys)
    second = subject(rgb, coordinates, "second")
    text = html.render(page.make_page(first, second, verified=True))
    assert "a neighbor within 1 km" in text and "the SHA-256 of every shard too" in text
    assert text.count("<img ") == 2 + 1 + 1 + 2, "Two maps, balance, histograms, two sheets."
    value = page.numbers(first, second)
    assert value["leaks"]["pairs"][0]["patches"] == 9
    assert value["against"]["name"] == "second" and len(value["against"]["leaks"]["pairs"]) == 3
    assert json.loads(json.dumps(value)) == value


def test_duplicates_are_drawn_side_by_side(copied):
    folder, card, path = copied
    everything = [
        example
        for split in ("test", "val")
        for shard in card.splits[split].shards
        for example in records.read_examples(folder / shard.name)
    ]

    def with_a_copy(examples):
        return [dataclasses.replace(examples[0], image=everything[0].image), *examples[1:]]

    cards.write_card(rewrite(folder, card, path, with_a_copy), folder)
    first = subject(folder)
    (copy,) = first.report.copies
    assert copy.kind == "exact" and copy.key == everything[0].key and set(first.copies) == {copy.key, copy.other_key}
    np.testing.assert_array_equal(first.copies[copy.key], first.copies[copy.other_key])
    text = html.render(page.make_page(first))
    assert f"{copy.key} | {copy.other_key}" in text and text.count("<img ") == 6


@pytest.mark.real_data
@pytest.mark.slow
def test_what_a_random_split_of_eurosat_gives_away_and_a_spatial_one_does_not(real_data, tmp_path):
    folder = real_data / "eurosat"
    coordinates = str(folder / "coordinates.csv")
    methods = {
        "random": splits.SplitOptions(),
        "longitude": splits.SplitOptions(split="spatial", coordinates=coordinates),
        "blocks": splits.SplitOptions(split="spatial", coordinates=coordinates, block_km=10.0, buffer_km=1.0),
    }
    found = {}
    for name, split in methods.items():
        build.build(build.BuildOptions("eurosat_rgb", str(folder / "EuroSAT_RGB.zip"), str(tmp_path / name), split))
        (found[name],) = subject(tmp_path / name, coordinates).report.pairs
        assert found[name].exact == 0
    assert found["random"].near == 3 and found["longitude"].near == found["blocks"].near == 0
    assert found["random"].neighbours["1"] == 3850 and found["random"].overlapping == 197
    assert found["longitude"].neighbours["1"] == 14
    assert found["blocks"].neighbours["1"] == found["blocks"].overlapping == 0


def test_every_modality_is_described_and_checked(tmp_path):
    card = modalities.write(tmp_path / "r", {"train": 3, "test": 2}, lacking={1: ("s1",), 4: ("s2", "s2_before")})
    scan_records.survey(card, tmp_path / "r", samples=1)
    text = scan_records.describe(card)
    assert "s1           Sentinel-1, VV,VH in dB, float32, 64x64 pixels of 10 m; missing in 1 of 3 in train" in text
    assert "s2           Sentinel-2 L2A, B04,B03,B02 in digital numbers" in text
    assert "height:HEIGHT" in text and "s2_before:B04" in text
    (radar,) = (one for one in card.others if one.name == "s1")
    others = tuple(one for one in card.others if one is not radar)
    for changed, told in (
        (dataclasses.replace(radar, missing={}), "1 records of the split 'train' lack the modality 's1'; expected 0"),
        (dataclasses.replace(radar, bands=("VV",)), "'s1' of record 0 cannot be decoded.*1 bands in float32"),
        (None, "record 0 has a modality 's1'; expected s2, s2_before, height"),
    ):
        edited = dataclasses.replace(card, others=others + ((changed,) if changed else ()))
        with pytest.raises(RecordsError, match=told):
            scan_records.survey(edited, tmp_path / "r", samples=1)
