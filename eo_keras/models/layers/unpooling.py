"""Max pooling that keeps where each maximum was, and unpooling that puts values back there.

The decoder of SegNet (Badrinarayanan et al. 2017, IEEE TPAMI 39(12), section 3) upsamples so: boundaries stay where the
encoder saw them, and no weights are needed. Keras has no such pooling; this one is made of keras.ops alone.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="eo_keras")
class MaxPoolingWithIndices(keras.layers.Layer):
    """Maximum of each window of 2x2 pixels, and its place in the window.

    Of equal values the first counts, row by row, in the gradient too. Where height or width is odd, the last row or
    column is repeated: a repeated pixel is never the first maximum.

    Input shape: `(batch, height, width, channels)`, real numbers.
    Output shape: two of `(batch, ceil(height / 2), ceil(width / 2), channels)`: the maxima, of the layer's dtype, and
    their places, uint8: 0 and 1 in the window's upper row, 2 and 3 in its lower one.
    """

    strides = (2, 2)

    def call(self, inputs):
        """Returns maxima and places."""
        left, right = _pairs(_even(inputs), 2)
        is_right = ops.greater(right, left)
        upper, lower = _pairs(ops.where(is_right, right, left), 1)
        upper_place, lower_place = _pairs(ops.cast(is_right, "uint8"), 1)
        is_lower = ops.greater(lower, upper)
        return ops.where(is_lower, lower, upper), ops.where(is_lower, lower_place + 2, upper_place)

    def compute_output_spec(self, inputs):
        """Returns shapes and dtypes of maxima and places."""
        batch, height, width, channels = inputs.shape
        shape = (batch, _half(height), _half(width), channels)
        return keras.KerasTensor(shape, self.compute_dtype), keras.KerasTensor(shape, "uint8")

    def get_config(self):
        """Returns the arguments; Keras reads a dtype policy back only where a layer has this method."""
        return super().get_config()


@keras.saving.register_keras_serializable(package="eo_keras")
class MaxUnpooling(keras.layers.Layer):
    """Feature map of twice the height and width: each value at its maximum's place, 0 elsewhere.

    Call arguments: the map `(batch, height, width, channels)`; the places of a `MaxPoolingWithIndices`, of the same
    shape; and what that layer pooled, to whose height and width the result is cut.
    Output shape: the map's batch and channels, height and width of what was pooled, of the layer's dtype.
    """

    def call(self, inputs, indices, reference):
        """Returns the map in the size of the reference."""
        batch, height, width, channels = ops.shape(inputs)
        zeros = ops.zeros_like(inputs)
        parts = [ops.where(ops.equal(indices, place), inputs, zeros) for place in range(4)]
        row_shape = (batch, height, 2 * width, channels)
        rows = [ops.reshape(ops.stack(pair, axis=3), row_shape) for pair in (parts[:2], parts[2:])]
        result = ops.reshape(ops.stack(rows, axis=2), (batch, 2 * height, 2 * width, channels))
        if _is_even(reference):
            return result
        new_height, new_width = ops.shape(reference)[1:3]
        return result[:, :new_height, :new_width]

    def compute_output_spec(self, inputs, indices, reference):
        """Returns the shape of the reference with the channels of the map, and the layer's dtype."""
        return keras.KerasTensor((*reference.shape[:3], inputs.shape[-1]), self.compute_dtype)

    def get_config(self):
        """Returns the arguments; Keras reads a dtype policy back only where a layer has this method."""
        return super().get_config()


def _pairs(values: Any, axis: int) -> list[Any]:
    """Splits an axis of even length into its even and odd places."""
    shape = list(ops.shape(values))
    return ops.unstack(ops.reshape(values, (*shape[:axis], shape[axis] // 2, 2, *shape[axis + 1 :])), 2, axis=axis + 1)


def _is_even(values: Any) -> bool:
    """Tells whether height and width are known to be even."""
    return all(size is not None and size % 2 == 0 for size in values.shape[1:3])


def _even(values: Any) -> Any:
    """Repeats the last row or column where height or width is odd."""
    if _is_even(values):
        return values
    height, width = ops.shape(values)[1:3]
    return ops.pad(values, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="symmetric")


def _half(size: int | None) -> int | None:
    return None if size is None else -(-size // 2)
