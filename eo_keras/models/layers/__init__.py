"""Layers shared by the networks; importing this package registers them with Keras."""

from eo_keras.models.layers.batch_norm import BatchNormalization
from eo_keras.models.layers.merging import ChangeOfDates, Gate, MeanOfPresent
from eo_keras.models.layers.normalization import BandNormalization, Presence
from eo_keras.models.layers.resize import BroadcastLike, RepeatLike, ResizeLike
from eo_keras.models.layers.unpooling import MaxPoolingWithIndices, MaxUnpooling

__all__ = [
    "BandNormalization",
    "BatchNormalization",
    "BroadcastLike",
    "ChangeOfDates",
    "Gate",
    "MaxPoolingWithIndices",
    "MaxUnpooling",
    "MeanOfPresent",
    "Presence",
    "RepeatLike",
    "ResizeLike",
]
