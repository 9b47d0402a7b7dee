"""Graph of a functional model: the inbound layers of each layer."""

from __future__ import annotations

import keras
from keras import layers


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


def _inbound(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    # Keras has no public access to a functional model's graph; its own `get_config` uses this history of tensors, too.
    tensors = keras.tree.flatten(layer.input) if not isinstance(layer, layers.InputLayer) else []
    return [tensor._keras_history.operation for tensor in tensors]
