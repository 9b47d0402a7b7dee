"""Floods: archives in OMBRIA's layout become records of tiles, and what is wrong with them is told."""

import io

import numpy as np
import pytest
from PIL import Image

from eo_keras.errors import BandError, OptionError, SourceError
from eo_keras.inspection import leakage, scan_records
from eo_keras.inspection import page as inspection_page
from eo_keras.legends.catalogue import IGNORE
from eo_keras.plots import html
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from tests.harness.archives import write_zip
from tests.harness.building import all_examples, built, bytes_of, options_of
from tfrecords_builder import build, disk_usage
from tfrecords_builder.sources import ombria
from tfrecords_builder.sources.archive import Archive

NAMED = {"band_order": "B11,B08,B03", "scene_level": "L2A"}


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def flood(number):
    """An image after a flood and its mask: water is dark in its first two bands; the last rows hold no data."""
    random = np.random.default_rng(number)
    mask = np.zeros((256, 256), np.uint8)
    mask[: 20 + 5 * number] = 255
    image = random.integers(40, 120, (256, 256, 3), dtype=np.uint8)
    image[mask == 255, 0] = 0
    image[mask == 255, 1] = random.integers(1, 30)
    image[-16:] = 0
    return image, mask


def members(root="OMBRIA/OmbriaS2/", train=8, test=2):
    found = {}
    for number in range(train + test):
        part = "train" if number < train else "test"
        image, mask = flood(number)
        found[f"{root}{part}/AFTER/S2_after_{number:04d}.png"] = png(image)
        found[f"{root}{part}/BEFORE/S2_before_{number:04d}.png"] = png(image[::-1].copy())
        found[f"{root}{part}/MASK/S2_mask_{number:04d}.png"] = png(mask)
    return found


@pytest.fixture
def archive(tmp_path):
    return write_zip(tmp_path / "ombria.zip", members())


def test_images_masks_and_parts_are_the_archives(archive, tmp_path):
    card = built("ombria_s2", archive, tmp_path / "r", split="published", **NAMED)
    assert (card.task, card.bands, card.level, card.dtype) == ("segmentation", ("B11", "B08", "B03"), "L2A", "uint8")
    assert card.reflectance is None and cards.read_data_card(tmp_path / "r") == card
    assert {name: part.examples for name, part in card.splits.items()} == {"train": 8, "test": 2}
    expected = {"train": 0, "test": 0}
    for name in expected:
        for example in all_examples(card, tmp_path / "r", name):
            number = int(example.key.removeprefix("S2_after_"))
            assert (number < 8) == (name == "train")
            image, mask = flood(number)
            # Dark water stays apart from where there is no data.
            image[:-16] = np.maximum(image[:-16], 1)
            np.testing.assert_array_equal(records.decode_image(example, card), image)
            np.testing.assert_array_equal(example.tile.mask, mask // 255)
            assert (example.tile.labels[-16:] == IGNORE).all() and (example.tile.labels[:-16] <= 1).all()
            expected[name] += np.count_nonzero(example.tile.labels == 1)
    for name, flooded in expected.items():
        whole = card.splits[name].examples * (256 - 16) * 256
        assert card.splits[name].classes == {"Dry": whole - flooded, "Flooded": flooded}
    assert card.statistics[0].nodata_share == pytest.approx(16 / 256)


def both_sensors(without=()):
    """The members of an archive with both sensors; a Sentinel-1 image holds its Sentinel-2 image's first band."""
    found = members()
    for path, data in list(found.items()):
        pixels = np.asarray(Image.open(io.BytesIO(data)))
        name = path.replace("OmbriaS2", "OmbriaS1").replace("S2_", "S1_")
        found[name] = data if pixels.ndim == 2 else png(np.ascontiguousarray(pixels[..., 0]) | 1)
    return {path: data for path, data in found.items() if not path.endswith(tuple(without) or ("\n",))}


def test_both_sensors_and_dates_are_modalities_of_one_record(archive, tmp_path):
    source = write_zip(tmp_path / "both.zip", both_sensors())
    card = built("ombria", source, tmp_path / "r", sar_band="VV", **NAMED)
    assert list(card.modalities) == ["s2", "s2_before", "s1", "s1_before"]
    assert [one.bands for one in card.modalities.values()] == [("B11", "B08", "B03")] * 2 + [("VV",)] * 2
    old = built("ombria_s2", archive, tmp_path / "old", **NAMED)
    of_s2 = {example.key: example for example in all_examples(old, tmp_path / "old")}
    trained = []
    for example in all_examples(card, tmp_path / "r"):
        alone = of_s2[f"S2_after_{example.key}"]
        assert example.image == alone.image
        np.testing.assert_array_equal(example.tile.mask, alone.tile.mask)
        # Sentinel-1 sees the ground where Sentinel-2 has no data.
        assert (example.tile.validity == records.VALID).all()
        s1, before = (records.decode_modality(example, card, name) for name in ("s1", "s1_before"))
        after = flood(int(example.key))[0]
        np.testing.assert_array_equal(s1[..., 0], after[..., 0] | 1)
        np.testing.assert_array_equal(before[..., 0], after[::-1, :, 0] | 1)
        if int(example.key) < 8:
            trained.append(s1)
    (band,) = card.modalities["s1"].statistics
    assert (band.mean, band.nodata) == (pytest.approx(np.mean(trained), rel=1e-12), 0)
    assert card.statistics == old.statistics


def test_a_place_without_a_sensor_is_refused_or_lacks_its_modality(tmp_path):
    gone = ("S1_after_0003.png", "S1_after_0009.png", "S2_after_0004.png")
    source = write_zip(tmp_path / "both.zip", both_sensors(without=gone))
    with pytest.raises(SourceError, match=r"0003.*no image s1 .*Sentinel-1, AFTER.*2 of 10 places.*`allow_missing`"):
        built("ombria", source, tmp_path / "r", **NAMED)
    card = built("ombria", source, tmp_path / "r", allow_missing=True, **NAMED)
    missing = {name: dict(one.missing) for name, one in card.modalities.items()}
    assert missing == {"s2": {"train": 1}, "s2_before": {}, "s1": {"test": 1, "train": 1}, "s1_before": {}}
    found = {example.key: example for example in all_examples(card, tmp_path / "r")}
    assert not records.decode_modality(found["0003"], card, "s1").any()
    assert not records.decode_image(found["0004"], card).any() and (found["0004"].tile.validity == 1).all()
    assert card.statistics[0].nodata == 256 * 256 + 7 * 16 * 256


def test_the_layouts_and_any_number_of_workers_give_the_same_bytes(make, archive, tmp_path):
    built("ombria_s2", archive, tmp_path / "one", split="published", **NAMED)
    built("ombria_s2", archive, tmp_path / "two", split="published", num_workers=2, **NAMED)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    for root in ("OmbriaS2/", ""):
        folder = make.folder(tmp_path / f"source{len(root)}", members(root))
        card = built("ombria_s2", folder, tmp_path / f"r{len(root)}", split="published", **NAMED)
        assert [shard.sha256 for shard in card.splits["test"].shards] == [
            shard.sha256 for shard in cards.read_data_card(tmp_path / "one").splits["test"].shards
        ]


def test_an_image_in_both_parts_is_told_and_kept_together_at_random(tmp_path):
    content = members()
    content["OMBRIA/OmbriaS2/test/AFTER/S2_after_0008.png"] = content["OMBRIA/OmbriaS2/train/AFTER/S2_after_0003.png"]
    source = write_zip(tmp_path / "a.zip", content)
    report = build.build(options_of("ombria_s2", source, tmp_path / "r", **NAMED))
    assert report.card.split_method["identical_across_splits"] == 2 and "2 identical images" in report.warnings[0]
    # The masks differ, and still the images are the same.
    card = built("ombria_s2", source, tmp_path / "s", split="random", test_fraction=0.3, **NAMED)
    parts = {example.key: name for name in ("train", "test") for example in all_examples(card, tmp_path / "s", name)}
    assert parts["S2_after_0003"] == parts["S2_after_0008"]


def events(root, names):
    """Two events in the layout of 2021, numbered alike; all images of one are brighter than the other's."""
    found = {}
    for place, event in enumerate(names):
        for number in (0, 10):
            image, mask = flood(number // 10 + 2 * place)
            folder = f"{root}{event}/Sentinel2"
            found[f"{folder}/AFTER/imafter_{number}.png"] = png(image)
            found[f"{folder}/BEFORE/imbefore_{number}.png"] = png(image)
            found[f"{folder}/MASK/gt_{number}.png"] = png(mask)
            found[f"{folder[:-1]}1/AFTER/imafter_{number}.png"] = png(image[..., 0].copy())
    return found


def check_events(card, folder, stems):
    found = {}
    for name in card.splits:
        found |= {example.key: example for example in all_examples(card, folder, name)}
    assert sorted(found) == sorted(stems)
    for key, number in stems.items():
        image, mask = flood(number)
        np.testing.assert_array_equal(found[key].tile.mask, mask // 255)
        np.testing.assert_array_equal(records.decode_image(found[key], card)[:-16], np.maximum(image[:-16], 1))


def test_the_floods_of_2021_are_told_apart_by_their_events(make, tmp_path):
    content = events("OMBRIA-master/2021/", ("FRANCE", "GUYANA"))
    numbers = {"FRANCE_imafter_0": 0, "FRANCE_imafter_10": 1, "GUYANA_imafter_0": 2, "GUYANA_imafter_10": 3}
    drawn = {"split": "random", "test_fraction": 0.3}
    card = built("ombria_s2", write_zip(tmp_path / "a.zip", content), tmp_path / "r", **drawn, **NAMED)
    check_events(card, tmp_path / "r", numbers)
    with pytest.raises(OptionError, match="no splits of its own; expected random"):
        built("ombria_s2", tmp_path / "a.zip", tmp_path / "s", split="published", **NAMED)
    # One event alone, by its own folder.
    folder = make.folder(tmp_path / "FRANCE", events("", ("FRANCE",)))
    items = ombria.SENTINEL2.items(Archive(folder / "FRANCE"), ombria.OmbriaOptions(**NAMED))
    assert [item.key for item in items] == ["imafter_0", "imafter_10"]
    # Of a whole copy, the published parts are the data set.
    both = write_zip(tmp_path / "both.zip", {**content, **members("OMBRIA-master/OmbriaS2/")})
    assert {item.split for item in ombria.SENTINEL2.items(Archive(both), ombria.OmbriaOptions(**NAMED))} == {
        "train",
        "test",
    }


def test_events_copied_into_the_published_parts_are_told_apart_by_their_whole_names(tmp_path):
    content, numbers = {}, {}
    for place, event in enumerate(("FRANCE", "GUYANA")):
        for number in (0, 10):
            image, mask = flood(number // 10 + 2 * place)
            part = "test" if number else "train"
            content[f"OmbriaS2/{part}/AFTER/imafter_{event}_{number}.png"] = png(image)
            content[f"OmbriaS2/{part}/MASK/gt_{event}_{number}.png"] = png(mask)
            numbers[f"imafter_{event}_{number}"] = number // 10 + 2 * place
    card = built("ombria_s2", write_zip(tmp_path / "a.zip", content), tmp_path / "r", split="published", **NAMED)
    assert {name: part.examples for name, part in card.splits.items()} == {"train": 2, "test": 2}
    check_events(card, tmp_path / "r", numbers)


def broken(tmp_path, change):
    content = members()
    change(content)
    return write_zip(tmp_path / "broken.zip", content)


AFTER, MASK = "OMBRIA/OmbriaS2/train/AFTER/S2_after_0001.png", "OMBRIA/OmbriaS2/train/MASK/S2_mask_0001.png"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda c: c.pop(MASK),
            r"AFTER/S2_after_0001.png: no file of the same name beside it in MASK; 1 in",
        ),
        (
            lambda c: c.pop(AFTER),
            r"MASK/S2_mask_0001.png: no file of the same name beside it in AFTER; 1 in",
        ),
        (lambda c: c.update({MASK: png(np.full((256, 256), 7, np.uint8))}), r"S2_mask_0001.png: the number 7"),
        (lambda c: c.update({AFTER: png(np.zeros((255, 256, 3), np.uint8))}), r"256x255 pixels, mode RGB"),
        (
            lambda c: c.update({AFTER: png(np.zeros((256, 256), np.uint8))}),
            r"mode L; expected 256x256 pixels, mode RGB",
        ),
        (lambda c: c.update({AFTER: c[AFTER][:5000]}), r"S2_after_0001.png: it cannot be decoded"),
        (
            lambda c: c.update({AFTER.replace("0001", "first"): c[AFTER]}),
            r"S2_after_first.png: no file of",
        ),
        (
            lambda c: c.update({AFTER.replace("S2_after", "copy_of_S2_after"): c[AFTER]}),
            r"copy_of.*no image",
        ),
        (
            lambda c: c.update({AFTER.replace(".png", ".PNG"): c[AFTER]}),
            r"0001.PNG and .*0001.png are both number",
        ),
        (lambda c: c.update({AFTER.replace("S2_after", "imafter"): c[AFTER]}), r"S2_after_0001.png and .*imafter_00"),
        (
            lambda c: c.update({k.replace("0001", "0001 (1)"): c[k] for k in (AFTER, MASK)}),
            r"S2_after_0001.png and .*S2_after_0001 \(1\).png are called as",
        ),
        (
            lambda c: c.update({k.replace("OMBRIA/", "copy/"): c[k] for k in (AFTER, MASK)}),
            r"twice, in OMBRIA/OmbriaS2/ and copy/OmbriaS2/",
        ),
        (
            lambda c: c.update({k.replace("train", "test"): c[k] for k in (AFTER, MASK)}),
            r"have one key, S2_after_0001",
        ),
        (lambda c: [c.pop(name) for name in list(c) if "BEFORE" not in name], r"it holds no images after a flood"),
    ],
)
def test_what_is_wrong_with_an_archive_is_told(tmp_path, change, told):
    with pytest.raises(SourceError, match=told):
        built("ombria_s2", broken(tmp_path, change), tmp_path / "r", split="published", **NAMED)


def test_nobody_guesses_the_bands(make, archive, tmp_path):
    with pytest.raises(OptionError, match="does not say which bands.*`band_order=B11,B08,B03"):
        built("ombria_s2", archive, tmp_path / "r", split="published")
    with pytest.raises(OptionError, match="2 names; expected 3"):
        built("ombria_s2", archive, tmp_path / "r", split="published", band_order="B11,B08", scene_level="L2A")
    with pytest.raises(BandError, match="'NDVI' is no Sentinel-2 band"):
        built("ombria_s2", archive, tmp_path / "r", split="published", band_order="B11,B08,NDVI", scene_level="L2A")
    with pytest.raises(OptionError, match="published.*no splits of its own"):
        built("eurosat_rgb", make.zip(tmp_path / "rgb.zip", make.rgb(per_class=2)), tmp_path / "r", split="published")


def test_room_is_told_before_the_build(archive, tmp_path):
    card = built("ombria_s2", archive, tmp_path / "r", split="published", **NAMED)
    size = sum(shard.bytes for part in card.splits.values() for shard in part.shards)
    assert disk_usage.expected("ombria_s2", str(archive)).shard_bytes == pytest.approx(size, rel=0.01)


def test_inspection_tells_what_is_not_known(archive, tmp_path):
    card = built("ombria_s2", archive, tmp_path / "r", split="published", **NAMED)
    assert ("reflectance", "not known; no data is 0") in scan_records.facts(card)
    found = scan_records.survey(card, tmp_path / "r", samples=2)
    places = scan_records.locate(card, found, None)
    report = scan_records.find_leaks(card, found, places, leakage.LeakOptions())
    page = html.render(inspection_page.make_page(inspection_page.Subject("r", card, found, places, report, {})))
    assert "with each stored number, from" in page and "reflectance (above)" not in page


@pytest.mark.real_data
def test_the_published_test_set(real_data, tmp_path):
    card = built("ombria_s2", real_data / "ombria_s2.zip", tmp_path / "r", split="published", **NAMED)
    assert card.splits["test"].examples == 70
    water, land = [], []
    for example in all_examples(card, tmp_path / "r", "test"):
        image = records.decode_image(example, card)
        water.append(image[example.tile.labels == 1])
        land.append(image[example.tile.labels == 0])
    water, land = np.concatenate(water).mean(axis=0), np.concatenate(land).mean(axis=0)
    # Water swallows the shortwave infrared, the first band; in visible light, the last one, muddy water is bright.
    assert water[0] < 0.7 * land[0] and water[2] > land[2]
