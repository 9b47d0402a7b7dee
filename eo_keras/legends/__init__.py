"""Legends: classes with colors, and crosswalks from codes to classes."""

from eo_keras.legends.catalogue import (
    EUROSAT,
    FLOOD,
    FOOTPRINTS,
    HSL4,
    HSL8,
    IGNORE,
    LEGENDS,
    URBAN_ATLAS,
    Legend,
    LegendClass,
)

__all__ = [
    "EUROSAT",
    "FLOOD",
    "FOOTPRINTS",
    "HSL4",
    "HSL8",
    "IGNORE",
    "LEGENDS",
    "URBAN_ATLAS",
    "Legend",
    "LegendClass",
]
