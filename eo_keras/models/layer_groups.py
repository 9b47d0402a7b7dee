"""Which layers of a model lie how deep, and which of them learn."""

from __future__ import annotations

import bisect

import keras
from keras import layers

from eo_keras.models.blocks import is_head

MERGES = (layers.Add, layers.Concatenate)
"""The layers that bring the branches of a block together."""


def depth_groups(model: keras.Model) -> dict[str, int]:
    """Sorts the layers by their depth, for learning rates that decay towards the input.

    ELECTRA (Clark et al. 2020, arXiv 2003.10555) and BEiT (Bao et al. 2021, arXiv 2106.08254) sort by transformer
    block; here it is by block of a convolutional network: a group ends where branches are added or concatenated. What
    comes behind the last such place on the way to an output, the classifiers, is the last group. The graph is followed,
    not names.

    Args:
        model: a functional model.

    Returns:
        Depth by name of layer, 0 nearest to the input. Each number up to the largest has a layer with weights, and on
        no path from input to output does it ever fall.
    """
    before = {layer: _inbound(layer, set(model.layers)) for layer in model.layers}
    behind: dict[keras.layers.Layer, set[keras.layers.Layer]] = {layer: set() for layer in model.layers}
    for layer, sources in before.items():
        for source in sources:
            behind[source].add(layer)
    level: dict[keras.layers.Layer, int] = {}
    merged: dict[keras.layers.Layer, bool] = {}
    ordered = _topological(before)
    for layer in ordered:
        level[layer] = max((level[source] + isinstance(source, MERGES) for source in before[layer]), default=0)
    for layer in reversed(ordered):
        merged[layer] = any(isinstance(after, MERGES) or merged[after] for after in behind[layer])
    last = max(level.values()) + 1
    for layer in ordered:
        if not merged[layer] and not isinstance(layer, MERGES):
            level[layer] = last
    # A block may merge several times without weights between: numbers that hold no weights are left out.
    used = sorted({level[layer] for layer in ordered if layer.weights})
    return {layer.name: min(bisect.bisect_left(used, level[layer]), max(len(used) - 1, 0)) for layer in model.layers}


def set_trainable(model: keras.Model, *, only_head: bool, frozen_batch_norm: bool) -> None:
    """Chooses which layers learn. To be called before the optimizer is built and the step is traced.

    Args:
        model: a model of this package, or its training model; they share their layers.
        only_head: only the layers `logits` and the auxiliary classifiers' `..._logits` learn; the rest is a fixed
            extractor of features, its batch normalisation included.
        frozen_batch_norm: batch normalisation keeps gamma, beta and its moving moments, and uses the latter in training
            too. With both arguments False everything learns again.
    """
    for layer in model.layers:
        frozen = (only_head and not is_head(layer.name)) or (
            frozen_batch_norm and isinstance(layer, layers.BatchNormalization)
        )
        layer.trainable = not frozen


def _inbound(layer: keras.layers.Layer, known: set[keras.layers.Layer]) -> set[keras.layers.Layer]:
    """Returns the layers whose outputs a layer takes."""
    # Keras has no public way to a functional model's graph; its own `get_config` goes by this history of tensors, too.
    tensors = keras.tree.flatten(layer.input) if not isinstance(layer, layers.InputLayer) else []
    return {tensor._keras_history.operation for tensor in tensors} & known


def _topological(before: dict[keras.layers.Layer, set[keras.layers.Layer]]) -> list[keras.layers.Layer]:
    """Returns the layers so that each one comes behind all that it takes."""
    done: dict[keras.layers.Layer, None] = {}
    waiting = list(before)
    while waiting:
        ready = [layer for layer in waiting if before[layer] <= done.keys()]
        done |= dict.fromkeys(ready)
        waiting = [layer for layer in waiting if layer not in done]
    return list(done)
