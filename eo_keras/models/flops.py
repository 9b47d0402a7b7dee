"""How much a model computes."""

from __future__ import annotations

import math

import keras
from keras import layers


def count_macs(model: keras.Model, height: int, width: int) -> int:
    """Counts what a model multiplies and adds for one image.

    What a kernel does is counted, at each place of its output as if no padding were there, as papers do it; biases,
    normalisation, rectifiers, pooling and interpolation are not.

    Args:
        model: a functional model of one image input.
        height: of the image, in pixels.
        width: likewise.

    Returns:
        Pairs of a multiplication and an addition.

    Raises:
        ValueError: if a layer has a kernel and is of an unknown kind.
    """
    kernels = [layer for layer in model.layers if hasattr(layer, "kernel") or hasattr(layer, "depthwise_kernel")]
    if not kernels:
        return 0
    outputs = keras.Function(model.inputs, [layer.output for layer in kernels])
    image = model.inputs[0]
    given = keras.KerasTensor((1, height, width, image.shape[-1]), image.dtype)
    specs = outputs.compute_output_spec([given])
    return sum(_of_layer(layer, spec.shape) for layer, spec in zip(kernels, specs, strict=True))


def _of_layer(layer: keras.layers.Layer, shape: tuple[int, ...]) -> int:
    *places, channels = shape
    if isinstance(layer, layers.DepthwiseConv2D):
        each = math.prod(layer.kernel_size) * channels
    elif isinstance(layer, layers.SeparableConv2D):
        # Its depthwise part has as many places as its pointwise one.
        each = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    elif isinstance(layer, layers.Conv2DTranspose) or not isinstance(layer, (layers.Conv2D, layers.Dense)):
        raise ValueError(f"layer '{layer.name}' is a {type(layer).__name__}, whose work is not known")
    else:
        each = math.prod(layer.kernel.shape)
    return math.prod(places) * each
