"""Examples are encoded and decoded, with and without distance classes."""

import dataclasses

import numpy as np

from eo_keras.core.serialization import from_json, to_json
from eo_keras.legends.catalogue import FOOTPRINTS
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from eo_keras.records.targets import DistanceClasses


def tile(distance=None):
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8) % 2
    return records.PixelLabels(mask, np.ones((8, 8), np.uint8), "A", "2018-07-01", "p", distance)


def card(distance=None):
    bands = ("R", "G", "B")
    return cards.DataCard(
        "footprints", "1.0.0", "segmentation", bands, "uint8", "raw", "", True, None, 0, 0.3, 8, False, FOOTPRINTS,
        {}, {}, (), (), (), "", sensor="aerial", distance=distance,
    )  # fmt: skip


def test_distances_are_a_feature_of_records_that_have_them():
    distance = np.random.default_rng(1).integers(0, 11, (8, 8), dtype=np.uint8)
    without = records.Example(b"image", None, "a", tile=tile())
    found = records.decode(records.encode(dataclasses.replace(without, tile=tile(distance))))
    np.testing.assert_array_equal(found.tile.distance, distance)
    np.testing.assert_array_equal(found.tile.mask, tile().mask)
    assert records.decode(records.encode(without)).tile.distance is None
    assert records.DISTANCE.encode() not in records.encode(without)


def test_a_card_names_its_distances_and_one_without_does_not():
    kind = DistanceClasses(20.0, 11, "Building")
    stored = to_json(card(kind))
    assert stored["distance"] == {"truncation": 20.0, "classes": 11, "objects": "Building"}
    assert from_json(cards.DataCard, stored) == card(kind)
    assert "distance" not in to_json(card())
    features = [records.tfds_features(one)["featuresDict"]["features"] for one in (card(kind), card())]
    assert features[0].keys() - features[1].keys() == {"distance"}
    assert features[0]["distance"] == features[0]["mask"]
