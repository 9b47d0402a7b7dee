"""Groups of layers by depth, trainable layers, and kernels that optimizers treat differently."""

from __future__ import annotations

import bisect

import keras
from keras import layers

from eo_keras.models.graph import sources
from eo_keras.models.layers.factory import is_head, is_segmentation_head
from eo_keras.models.layers.unpooling import MaxPoolingWithIndices

MERGES = (layers.Add, layers.Concatenate, MaxPoolingWithIndices)
"""Layers that end a block: they merge its branches, or pool what VGG-16's blocks without branches return."""


def depth_groups(model: keras.Model) -> dict[str, int]:
    """Groups the layers by depth, for learning rates that decay towards the input.

    ELECTRA (Clark et al. 2020, arXiv 2003.10555) and BEiT (Bao et al. 2021, arXiv 2106.08254) sort by transformer
    block; here it is by block of a convolutional network: a group ends where branches are added or concatenated, and
    where SegNet pools. The layers after the last such place, the classifiers, are the last group. The graph is
    followed, not names, except for the head of a segmentation network: it is one more group, as all of it starts from
    random weights.

    Args:
        model: a functional model.

    Returns:
        Depth by name of layer, 0 nearest to the input. Each number up to the largest has a layer with weights, and on
        no path from input to output does it ever fall.
    """
    before = sources(model)
    dense: set[keras.layers.Layer] = set()
    for layer, taken in before.items():
        if is_segmentation_head(layer.name) or dense.intersection(taken):
            dense.add(layer)
    body = [layer for layer in before if layer not in dense]
    after: dict[keras.layers.Layer, list[keras.layers.Layer]] = {layer: [] for layer in body}
    for layer in body:
        for source in before[layer]:
            after[source].append(layer)
    level: dict[keras.layers.Layer, int] = {}
    merged: dict[keras.layers.Layer, bool] = {}
    ends: set[keras.layers.Layer] = set()
    learning: set[keras.layers.Layer] = set()
    for layer in body:
        level[layer] = max((level[source] + (source in ends) for source in before[layer]), default=0)
        if layer.weights or learning.intersection(before[layer]):
            learning.add(layer)
            # What is merged before any layer with weights, such as the bands of two dates, is no block.
            if isinstance(layer, MERGES):
                ends.add(layer)
    for layer in reversed(body):
        merged[layer] = any(isinstance(one, MERGES) or merged[one] for one in after[layer])
    last = max(level.values()) + 1
    for layer in body:
        if not merged[layer] and not isinstance(layer, MERGES):
            level[layer] = last
    level |= dict.fromkeys(dense, last + 1)
    # A block may merge several times without weights between: numbers that hold no weights are left out.
    used = sorted({level[layer] for layer in before if layer.weights})
    return {layer.name: min(bisect.bisect_left(used, level[layer]), max(len(used) - 1, 0)) for layer in model.layers}


def depthwise_kernels(model: keras.Model) -> frozenset[str]:
    """Returns the paths of the depthwise kernels.

    Weight decay leaves them out in DeepLabv3+ (the code published with Chen et al. 2018, arXiv 1802.02611), as in
    MobileNet (Howard et al. 2017, arXiv 1704.04861, section 3.2): so few weights need no restraint.
    """
    return frozenset(layer.kernel.path for layer in model.layers if isinstance(layer, layers.DepthwiseConv2D))


def normalized_kernels(model: keras.Model) -> frozenset[str]:
    """Returns the paths of the kernels over all channels that are followed by batch normalization.

    Their norm has no effect, as it is divided out again. That of the last convolution of a segmentation network, which
    no batch normalization follows, scales the logits.
    """
    return frozenset(
        before[0].kernel.path
        for layer, before in sources(model).items()
        if isinstance(layer, layers.BatchNormalization) and isinstance(before[0], layers.Conv2D)
    )


def set_trainable(model: keras.Model, *, only_head: bool, frozen_batch_norm: bool) -> None:
    """Sets which layers are trainable; called before the optimizer is built and the step is traced.

    Args:
        model: a model of this package, or its model of logits; they share their layers.
        only_head: only the layers `logits` and the auxiliary classifiers' `..._logits` are trainable, of a segmentation
            network all after its backbone; the rest is a fixed feature extractor, its batch normalization included.
        frozen_batch_norm: batch normalization keeps gamma, beta and its moving moments, and uses the latter in training
            too. With both arguments False all layers are trainable.
    """
    for layer in model.layers:
        frozen = (only_head and not is_head(layer.name)) or (
            frozen_batch_norm and isinstance(layer, layers.BatchNormalization)
        )
        layer.trainable = not frozen
