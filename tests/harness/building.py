"""Builds as the tests ask for them, and what came of them."""

import hashlib

from eo_keras.records import example as records
from tfrecords_builder import build
from tfrecords_builder.splits.split import SplitOptions


def built(dataset, source, output_dir, **kwargs):
    split = {key: kwargs.pop(key) for key in list(kwargs) if key in SplitOptions.__dataclass_fields__}
    options = build.BuildOptions(dataset, str(source), str(output_dir), SplitOptions(**split), **kwargs)
    return build.build(options).card


def all_examples(card, folder, split=None):
    return [
        example
        for name, part in card.splits.items()
        if split in (None, name)
        for shard in part.shards
        for example in records.read_examples(folder / shard.name)
    ]


def bytes_of(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
