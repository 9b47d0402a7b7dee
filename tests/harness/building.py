"""Builds as the tests ask for them, and what came of them."""

import hashlib
import pathlib

import pytest

from eo_keras.core import engines
from eo_keras.records import data_card as cards
from eo_keras.records import example as records
from tfrecords_builder import build, sources
from tfrecords_builder.splits.types import SplitOptions
from tfrecords_builder.steps import shards


def built(dataset, source, output_dir, *, progress=None, **kwargs):
    return build.build(options_of(dataset, source, output_dir, **kwargs), progress=progress).card


def options_of(dataset, source, output_dir, **kwargs):
    """Options of a build, of which each belongs to the split, to the source or to the build."""
    kind = sources.SOURCES[dataset].Options

    def taken(fields):
        return {key: kwargs.pop(key) for key in list(kwargs) if key in fields}

    split, own = taken(SplitOptions.__dataclass_fields__), taken(kind.__dataclass_fields__)
    return build.BuildOptions(dataset, kind(str(source), **own), str(output_dir), SplitOptions(**split), **kwargs)


def interrupt_build(monkeypatch, chosen, shards_written):
    """Begins a build and interrupts it after some shards."""
    original, written = engines.LocalEngine.run, []

    def run(self, function, context, units):
        for position in original(self, function, context, units):
            yield position
            if function is shards.write_shard:
                written.append(position)
                if len(written) == shards_written:
                    raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(engines.LocalEngine, "run", run)
        build.build(chosen)
    assert not pathlib.Path(chosen.output_dir, cards.DATA_CARD_NAME).exists()


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
