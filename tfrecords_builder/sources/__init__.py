"""The data sets that records can be built from, by name."""

from tfrecords_builder.sources import eurosat

SOURCES = {source.name: source for source in (eurosat.RGB, eurosat.MULTISPECTRAL)}
"""Every source has the fields and methods of `eurosat.EuroSAT`."""
