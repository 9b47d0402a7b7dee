"""Layers that resize a feature map to the size of another one."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="eo_keras")
class ResizeLike(keras.layers.Layer):
    """Bilinear interpolation of a feature map to the height and width of another one.

    Pixel `i` of the map lies on pixel `ratio * i` of the finer one, as convolutions with a stride and symmetric padding
    place them; past the map's last pixel its value is kept. Where the finer map has a multiple of
    `ratio` pixels and one more, this is the alignment of corners that DeepLabv3+ was published with. Half-pixel centers
    would move the map by an amount that depends on its size: a network trained on one size would fail on others.

    Args:
        ratio: stride of the map divided by that of the finer one.
        offset: pixel of the finer map that pixel 0 lies on. 0 within a network; `(ratio - 1) / 2`, the middle of the
            pixels that it covers, for an image of a coarser resolution.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments: the map `(batch, height, width, channels)`, and the finer one, which is at most `ratio` times as
    high and as wide.
    Output shape: the map's batch and channels, the finer one's height and width, of the layer's dtype.
    """

    def __init__(self, ratio: int, offset: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.ratio, self.offset = ratio, offset

    def call(self, inputs, reference):
        """Returns the feature map in the size of the reference."""
        batch, height, width, channels = ops.shape(inputs)
        new_height, new_width = ops.shape(reference)[1:3]
        # TensorFlow's kernel rounds to float32, whatever it is given, and knows no offset.
        if keras.config.backend() == "tensorflow" and self.compute_dtype != "float64" and not self.offset:
            return self._by_kernel(inputs, height, width)[:, :new_height, :new_width]
        rows = ops.matmul(self._weights_of(height, new_height), ops.reshape(inputs, (batch, height, width * channels)))
        return ops.matmul(self._weights_of(width, new_width), ops.reshape(rows, (batch, new_height, width, channels)))

    def _by_kernel(self, inputs: Any, height: Any, width: Any) -> Any:
        import tensorflow as tf

        # keras.ops.image.resize knows half-pixel centers alone, and no size that is not known before the call. In half
        # precision the kernel's gradient is wrong where XLA compiles it.
        images, size = tf.cast(inputs, "float32"), (height * self.ratio, width * self.ratio)
        resized = tf.raw_ops.ResizeBilinear(images=images, size=size)
        return tf.cast(resized, self.compute_dtype)

    def _weights_of(self, size: Any, new_size: Any) -> Any:
        """Returns the interpolation weights `(new size, old size)`."""
        exact = "float64" if self.compute_dtype == "float64" else "float32"
        old, new = (ops.cast(ops.arange(count, dtype="int32"), exact) for count in (size, new_size))
        places = ops.clip((new - self.offset) / self.ratio, 0, ops.cast(size - 1, exact))
        return ops.cast(ops.maximum(1 - ops.abs(places[:, None] - old[None, :]), 0), self.compute_dtype)

    def compute_output_shape(self, inputs_shape, reference_shape):
        """Returns the shape of the result."""
        return (inputs_shape[0], *reference_shape[1:3], inputs_shape[-1])

    def get_config(self):
        """Returns the arguments, so that the layer can be read back."""
        config = super().get_config() | {"ratio": self.ratio}
        return config | {"offset": self.offset} if self.offset else config


# Saved models know the layer by this name.
@keras.saving.register_keras_serializable(package="eo_keras", name="SpreadLike")
class BroadcastLike(keras.layers.Layer):
    """Broadcast of a feature map of one pixel to the height and width of another one.

    Call arguments: the pixel `(batch, 1, 1, channels)`, and the map `(batch, height, width, any)`.
    Output shape: `(batch, height, width, channels)`.
    """

    def call(self, inputs, reference):
        """Returns the pixel in the size of the reference."""
        shape = ops.shape(reference)
        return ops.broadcast_to(inputs, (shape[0], shape[1], shape[2], inputs.shape[-1]))

    def compute_output_shape(self, inputs_shape, reference_shape):
        """Returns the shape of the result."""
        return (inputs_shape[0], *reference_shape[1:3], inputs_shape[-1])

    def get_config(self):
        """Returns the arguments; Keras reads a dtype policy back only where a layer has this method."""
        return super().get_config()


@keras.saving.register_keras_serializable(package="eo_keras")
class RepeatLike(keras.layers.Layer):
    """Each pixel of a feature map repeated, as pooling by the same ratio covered them, to the size of a finer map.

    Args:
        ratio: pixels of the finer map, along a side, per pixel of the map.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments: the map `(batch, height, width, channels)`, and the finer one, which is at most `ratio` times as
    high and as wide.
    Output shape: the map's batch and channels, the finer one's height and width, of the layer's dtype.
    """

    def __init__(self, ratio: int, **kwargs):
        super().__init__(**kwargs)
        self.ratio = ratio

    def call(self, inputs, reference):
        """Returns the feature map in the size of the reference."""
        height, width = ops.shape(reference)[1:3]
        repeated = ops.repeat(ops.repeat(inputs, self.ratio, axis=1), self.ratio, axis=2)
        return repeated[:, :height, :width]

    def compute_output_shape(self, inputs_shape, reference_shape):
        """Returns the shape of the map in the size of the reference."""
        return (inputs_shape[0], *reference_shape[1:3], inputs_shape[-1])

    def get_config(self):
        """Returns the arguments."""
        return {**super().get_config(), "ratio": self.ratio}
