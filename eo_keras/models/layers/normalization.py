"""First layer of every model: standardizes digital numbers by band.

Because the normalization is a layer, training, evaluation, serving and mapping cannot disagree about it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from eo_keras.errors import BandError


# Saved models know the layer by this name.
@keras.saving.register_keras_serializable(package="eo_keras", name="BandNormalisation")
class BandNormalization(keras.layers.Layer):
    """Standardizes each band: `(x - mean) / std * scale`; pixels of no data become exactly 0.

    A pixel of no data holds 0 in all bands of an integer input, and a number that is not finite (NaN, as records have
    it) in any band of a float one, where 0 is a value like any other: 0 dB, 0 m. Mean, standard deviation and scale are
    constants of the configuration, not weights, so that neither an optimizer nor a weights file can change them. The
    layer always computes in float32 (float64 when that is its policy): bfloat16 has 8 significant bits and would merge
    the digital numbers 1118 and 1121.

    Args:
        mean: mean of each band in digital numbers.
        std: standard deviation of each band in digital numbers, above 0.
        scale: what a deviation of one `std` becomes, per band; 1 for each band when not given. Pretrained stems want
            the scale that they were trained with.
        bands: names of the bands in channel order; kept so that a saved model names its input.
        ratio: pixels of the model's finest input, along a side, per pixel of this one; kept so that a saved model tells
            the sizes of its inputs.
        **kwargs: arguments of `keras.layers.Layer`. A `dtype` other than float64 is turned into float32.

    Input shape: `(..., len(mean))`, any integer or float dtype, in the unit of `mean`.
    Output shape: the same, float32 or float64, without unit.

    Raises:
        BandError: if the lengths differ, a `std` is not above 0, or the channel axis has another length than `mean`.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        scale: Sequence[float] | None = None,
        bands: Sequence[str] | None = None,
        ratio: int = 1,
        **kwargs,
    ):
        """Checks the constants."""
        policy = keras.dtype_policies.get(kwargs.pop("dtype", None) or keras.config.dtype_policy())
        super().__init__(dtype="float64" if policy.compute_dtype == "float64" else "float32", **kwargs)
        # Integer inputs must arrive as they are: the cast is this layer's own.
        self.autocast = False
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self.scale = tuple(float(value) for value in scale) if scale is not None else (1.0,) * len(self.mean)
        self.bands = tuple(bands) if bands is not None else None
        self.ratio = ratio
        self._check_constants()

    def _check_constants(self) -> None:
        where = f"normalization layer '{self.name}'"
        for title, values in (("std", self.std), ("scale", self.scale), ("bands", self.bands)):
            if values is not None and len(values) != len(self.mean):
                raise BandError(where, f"{len(self.mean)} values of mean but {len(values)} of {title}", "one per band")
        for place, (mean, std, scale) in enumerate(zip(self.mean, self.std, self.scale, strict=True)):
            band = self.bands[place] if self.bands else f"band number {place}"
            if not (math.isfinite(mean) and math.isfinite(scale)):
                raise BandError(where, f"{band} has mean {mean} and scale {scale}", "finite numbers")
            if not (math.isfinite(std) and std > 0):
                raise BandError(
                    where,
                    f"{band} has a standard deviation of {std:g}",
                    "a finite number above 0",
                    "a band of one value carries no information: leave it out, or compute the statistics again",
                )

    def build(self, input_shape):
        """Checks the channel axis against the constants."""
        if input_shape[-1] != len(self.mean):
            raise BandError(
                f"normalization layer '{self.name}'",
                f"an input of {input_shape[-1]} bands",
                f"{len(self.mean)} bands" + (f": {','.join(self.bands)}" if self.bands else ""),
            )

    def call(self, inputs):
        """Returns the standardized bands."""
        values = ops.cast(inputs, self.compute_dtype)
        mean, gain = (
            ops.convert_to_tensor(np.asarray(constant, dtype="float64"), dtype=self.compute_dtype)
            for constant in (self.mean, np.divide(self.scale, self.std))
        )
        has_data = has_data_at(inputs)
        # Multiplying by a mask would let an infinity through as NaN; a choice does not.
        return ops.where(has_data, (values - mean) * gain, ops.zeros_like(values))

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constants as lists of numbers, so that the layer can be read back."""
        config = super().get_config()
        config.update(
            mean=list(self.mean),
            std=list(self.std),
            scale=list(self.scale),
            bands=list(self.bands) if self.bands is not None else None,
        )
        return config if self.ratio == 1 else config | {"ratio": self.ratio}


@keras.saving.register_keras_serializable(package="eo_keras")
class Presence(keras.layers.Layer):
    """Presence of a modality in each example: 1 where any pixel of its image has data, 0 where none has.

    Input shape: `(batch, height, width, bands)`, of any dtype, as `BandNormalization` takes it.
    Output shape: `(batch, 1, 1, 1)`, of the layer's dtype.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Half precision would round float inputs to infinity, and integers must arrive as they are.
        self.autocast = False

    def call(self, inputs):
        """Returns 1 or 0 for each example."""
        return ops.cast(ops.any(has_data_at(inputs), axis=(1, 2, 3), keepdims=True), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """Returns the shape of one number for each example."""
        return (input_shape[0], 1, 1, 1)

    def get_config(self):
        """Returns the arguments; Keras reads a dtype policy back only where a layer has this method."""
        return super().get_config()


def has_data_at(image: Any) -> Any:
    """Tells for each pixel whether it has data.

    Args:
        image: `(..., bands)`; of an integer dtype, where 0 in all bands is no data, or of a float one, where a number
            that is not finite in any band is.

    Returns:
        Booleans `(..., 1)`.
    """
    if "float" in keras.backend.standardize_dtype(image.dtype):
        return ops.all(ops.isfinite(image), axis=-1, keepdims=True)
    # Not every kernel compares uint16.
    return ops.any(ops.not_equal(ops.cast(image, "float32"), 0), axis=-1, keepdims=True)
