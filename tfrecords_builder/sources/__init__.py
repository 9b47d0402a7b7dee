"""Registry of the data sets: each is a `tfrecords_builder.sources.source.Source`, in a file or folder of its own."""

from __future__ import annotations

from eo_keras.errors import OptionError
from tfrecords_builder.sources import eurosat, ombria
from tfrecords_builder.sources.footprints.reader import Footprints
from tfrecords_builder.sources.patches import PatchSource
from tfrecords_builder.sources.source import Source
from tfrecords_builder.sources.tfds import TFDS
from tfrecords_builder.sources.urban_atlas.source import UrbanAtlas

SOURCES: dict[str, Source] = {
    source.facts.name: source
    for source in (
        PatchSource(eurosat.RGB),
        PatchSource(eurosat.MULTISPECTRAL),
        PatchSource(ombria.SENTINEL2),
        PatchSource(ombria.BOTH_SENSORS),
        PatchSource(Footprints()),
        UrbanAtlas(),
        TFDS(),
    )
}


def named(dataset: str) -> Source:
    """Returns the source of a name.

    Raises:
        OptionError: if there is none.
    """
    if dataset not in SOURCES:
        raise OptionError("dataset", f"'{dataset}' is unknown", f"one of {', '.join(SOURCES)}")
    return SOURCES[dataset]
