"""Where the data sets come from: one file for each. A source says what its items are and how one becomes an example."""

from __future__ import annotations

from tfrecords_builder.sources import eurosat, ombria

Source = eurosat.EuroSAT | ombria.Ombria
"""Every source has the fields and methods of these."""

SOURCES: dict[str, Source] = {source.name: source for source in (eurosat.RGB, eurosat.MULTISPECTRAL, ombria.SENTINEL2)}

UNNAMED = tuple(name for name, source in SOURCES.items() if not source.bands)
"""Data sets that do not say which bands they show; see their `named`."""
