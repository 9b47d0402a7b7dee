"""Metadata files by which TensorFlow Datasets reads a records folder (`tfds.builder_from_directory`).

They are written directly: TFDS's own writer imports TensorFlow and reads the records back, for three seconds.
"""

from __future__ import annotations

import json

from eo_keras.records import example as records
from eo_keras.records import tfrecord
from eo_keras.records.data_card import DataCard

FEATURES_NAME = "features.json"
INFO_NAME = "dataset_info.json"
LABELS_NAME = f"{records.LABEL}.labels.txt"

FILE_NAMES = (FEATURES_NAME, INFO_NAME, LABELS_NAME)


def contents(card: DataCard) -> dict[str, bytes]:
    """Returns TFDS's `features.json`, `dataset_info.json` and the labels' names by name, to lie beside the shards."""
    features = records.tfds_features(card)
    target = records.MASK if records.MASK in features["featuresDict"]["features"] else records.LABEL
    info = {
        "citation": card.attribution,
        "description": f"{card.dataset}: {card.task}, bands {','.join(card.bands)}, {card.level}",
        "fileFormat": "tfrecord",
        "name": card.dataset,
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": name,
                # TFDS counts the examples' own bytes, without the TFRecord framing.
                "numBytes": str(sum(shard.bytes - shard.examples * tfrecord.FRAMING_BYTES for shard in split.shards)),
                "shardLengths": [str(shard.examples) for shard in split.shards],
            }
            for name, split in card.splits.items()
        ],
        "supervisedKeys": {"tuple": {"items": [{"featureKey": records.IMAGE}, {"featureKey": target}]}},
        "version": card.version,
    }
    labels = {LABELS_NAME: "\n".join(card.legend.class_names) + "\n"} if target == records.LABEL else {}
    texts = labels | {
        FEATURES_NAME: json.dumps(features, indent=2) + "\n",
        INFO_NAME: json.dumps(info, indent=2) + "\n",
    }
    return {name: text.encode("utf-8") for name, text in texts.items()}
