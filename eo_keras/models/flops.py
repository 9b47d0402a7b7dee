"""Count of a model's multiply-accumulate operations."""

from __future__ import annotations

import math

import keras
from keras import layers

from eo_keras.models.graph import inputs_of_size


def count_macs(model: keras.Model, height: int, width: int) -> int:
    """Counts the multiply-accumulate operations of a model for one image.

    Those of kernels are counted, at each pixel of the output as if there were no padding, as papers do it; biases,
    normalization, activations, pooling and interpolation are not.

    Args:
        model: a functional model of images.
        height: of the image, of several inputs the finest one, in pixels.
        width: likewise.

    Returns:
        Number of multiply-accumulate operations, each a multiplication and an addition.

    Raises:
        ValueError: if a layer with a kernel is of an unknown kind.
    """
    kernels = [layer for layer in model.layers if hasattr(layer, "kernel") or hasattr(layer, "depthwise_kernel")]
    if not kernels:
        return 0
    outputs = keras.Function(model.inputs, [layer.output for layer in kernels])
    specs = outputs.compute_output_spec(inputs_of_size(model, height, width, batch=1))
    return sum(_of_layer(layer, spec.shape) for layer, spec in zip(kernels, specs, strict=True))


def _of_layer(layer: keras.layers.Layer, shape: tuple[int, ...]) -> int:
    *pixels, channels = shape
    if isinstance(layer, layers.DepthwiseConv2D):
        each = math.prod(layer.kernel_size) * channels
    elif isinstance(layer, layers.SeparableConv2D):
        # Depthwise and pointwise convolution have the same number of pixels.
        each = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    elif isinstance(layer, layers.Conv2DTranspose) or not isinstance(layer, (layers.Conv2D, layers.Dense)):
        raise ValueError(f"layer '{layer.name}' is a {type(layer).__name__}, whose work is not known")
    else:
        each = math.prod(layer.kernel.shape)
    return math.prod(pixels) * each
