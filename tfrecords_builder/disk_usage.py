"""How much room a build will need, from the source's listing alone: nothing is read of its images."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from eo_keras.errors import OptionError
from eo_keras.records import example as records
from eo_keras.records import tfrecord
from tfrecords_builder.sources import SOURCES
from tfrecords_builder.sources.archive import Archive

_STATE_SHARE = 0.02  # What a build keeps beside the shards until it has ended, and the card.


@dataclasses.dataclass(frozen=True)
class Room:
    """What a build will need.

    Attributes:
        patches: number of records.
        shard_bytes: size of all shards together.
        bytes: the most that lies in the output folder at any time.
    """

    patches: int
    shard_bytes: int
    bytes: int


def expected(dataset: str, source: str) -> Room:
    """Estimates the size of a build; of `eurosat_rgb` and `eurosat_ms` it is right to a tenth of a per cent.

    Args:
        dataset: a name of `tfrecords_builder.sources.SOURCES`.
        source: the archive, as for `tfrecords_builder.build.BuildOptions`.

    Raises:
        OptionError: if the data set is unknown.
        SourceError: if the source cannot be listed.
    """
    if dataset not in SOURCES:
        raise OptionError("dataset", f"'{dataset}' is unknown", f"one of {', '.join(SOURCES)}")
    kind = SOURCES[dataset]
    items = kind.items(Archive(source))
    raw = math.prod(kind.shape) * np.dtype(kind.dtype).itemsize
    images = [item.bytes if kind.encoding == "jpeg" else raw for item in items]
    place = ("EPSG:32633", (0.0,) * 6) if kind.georeferenced else (None, None)
    # What a record holds beside its image differs by a few bytes only, with the length of its key.
    flat, tile = np.zeros(kind.shape[:2], np.uint8), None
    if kind.task == "segmentation":
        # Masks shrink to a hundredth of the image.
        tile = records.PixelLabels(flat, flat, "", "", "")
    whole = records.encode(records.Example(bytes(images[0]), 1, items[len(items) // 2].key, *place, tile))
    beside = len(whole) - images[0] + tfrecord.FRAMING_BYTES
    shards = sum(images) + beside * len(images)
    return Room(len(images), shards, int(shards * (1 + _STATE_SHARE)))
