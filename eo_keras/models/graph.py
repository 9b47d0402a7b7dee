"""Graph of a functional model: the inbound layers of each layer, its inputs, and sizes."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers

from eo_keras.models.layers.normalization import BandNormalization


def sources(model: keras.Model) -> dict[keras.layers.Layer, list[keras.layers.Layer]]:
    """Returns the layers whose outputs each layer takes, in the order of its arguments.

    Args:
        model: a functional model in which each layer is called once.

    Returns:
        Layers by layer, in an order in which each one follows all whose outputs it takes.
    """
    known = set(model.layers)
    before = {layer: [source for source in _inbound(layer) if source in known] for layer in model.layers}
    done: dict[keras.layers.Layer, list[keras.layers.Layer]] = {}
    waiting = list(before)
    while waiting:
        ready = [layer for layer in waiting if all(source in done for source in before[layer])]
        done |= {layer: before[layer] for layer in ready}
        waiting = [layer for layer in waiting if layer not in done]
    return done


def normalizations(model: keras.Model) -> dict[str, BandNormalization]:
    """Returns the layers that standardize bands, by the name of their input."""
    found = [layer for layer in model.layers if isinstance(layer, BandNormalization)]
    return {_inbound(layer)[0].name: layer for layer in found}


def inputs_of_size(model: keras.Model, height: int | None, width: int | None, batch: int | None = None) -> list[Any]:
    """Returns inputs like those of a model, for another size.

    Args:
        model: a functional model of images.
        height: of the finest input in pixels; None takes any. A coarser input has its part, rounded up.
        width: likewise.
        batch: number of examples; None takes any.

    Returns:
        Symbolic tensors in the order of `model.inputs`.
    """
    ratios = {name: layer.ratio for name, layer in normalizations(model).items()}

    def of_size(image):
        ratio = ratios.get(image.name, 1)
        size = (None if side is None else -(-side // ratio) for side in (height, width))
        return keras.Input((*size, image.shape[-1]), batch, image.dtype, name=image.name)

    return [of_size(image) for image in model.inputs]


def fewest_values(model: keras.Model, size: int) -> tuple[str, int]:
    """Returns the batch normalization with the fewest values of a channel in one image, and their number.

    Args:
        model: a functional model with a batch normalization.
        size: height and width of the image, of several inputs of the finest one, in pixels.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    inputs = keras.Function(model.inputs, [layer.input for layer in norms])
    shapes = inputs.compute_output_spec(inputs_of_size(model, size, size, batch=1))
    values = [math.prod(one.shape[1:-1]) for one in keras.tree.flatten(shapes)]
    fewest = min(values)
    return norms[values.index(fewest)].name, fewest


def _inbound(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    # Keras has no public access to a functional model's graph; its own `get_config` uses this history of tensors, too.
    tensors = keras.tree.flatten(layer.input) if not isinstance(layer, layers.InputLayer) else []
    return [tensor._keras_history.operation for tensor in tensors]
