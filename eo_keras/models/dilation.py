"""Atrous (dilated) convolution (Chen et al. 2018, arXiv 1802.02611, section 3.1): strides that become dilation rates.

Where a stride is left out and the dilation rates of all convolutions after it are multiplied by it, the feature map is
finer and, at the pixels that it had before, unchanged: so weights trained at one output stride work at another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from eo_keras.errors import OptionError
from eo_keras.models.graph import sources
from eo_keras.models.layers.resize import BroadcastLike, ResizeLike
from eo_keras.models.layers.unpooling import MaxPoolingWithIndices, MaxUnpooling
from eo_keras.models.spec import check_output_stride

_POOLS = (layers.MaxPooling2D, layers.AveragePooling2D, MaxPoolingWithIndices)
_GLOBAL_POOLS = (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)


@dataclasses.dataclass(frozen=True)
class Stage:
    """Stride and dilation rates of one stage of a network.

    Attributes:
        stride: its stride, 1 where the output stride is reached.
        rate: dilation rate of the convolutions before its stride.
        next_rate: dilation rate of those after it.
    """

    stride: int
    rate: int
    next_rate: int


def plan_stages(strides: Sequence[int], before: int, output_stride: int | None) -> list[Stage]:
    """Turns the strides of a network's stages into dilation rates once the output stride is reached.

    Args:
        strides: the stride of each stage.
        before: stride of the first stage's input.
        output_stride: stride of the last stage's feature map; None leaves all strides as they are.
    """
    stages: list[Stage] = []
    stride, rate = before, 1
    for own in strides:
        if output_stride is None or stride * own <= output_stride:
            stages.append(Stage(own, rate, rate))
            stride *= own
        else:
            stages.append(Stage(1, rate, rate * own))
            rate *= own
    return stages


def output_stride_of(model: keras.Model) -> int:
    """Returns the output stride of a model: pixels of the image per pixel of its deepest feature map."""
    return _Walk(model, None).deepest


def dilated_layers(model: keras.Model, output_stride: int) -> dict[str, dict[str, Any]]:
    """Returns the changes in a segmentation network's layers for another output stride with the same weights.

    The graph is followed, not names: from where a stride is left out, dilation rates and explicit padding grow, and the
    ratio of a layer that resizes a feature map shrinks.

    Args:
        model: a segmentation network of this package.
        output_stride: one of `OUTPUT_STRIDES`, no larger than the model's own.

    Returns:
        By name of layer, the entries of its configuration that change.

    Raises:
        OptionError: if the output stride is none of `OUTPUT_STRIDES`, or larger than the model's, as nothing tells
            where its strides were; or the model is no segmentation network with dilated convolutions.
    """
    check_output_stride(output_stride)
    if not any(isinstance(layer, ResizeLike) for layer in model.layers):
        raise OptionError(
            "output_stride", f"{output_stride} for model '{model.name}'", "a DeepLabv3+ network", "leave it out"
        )
    own = output_stride_of(model)
    if output_stride > own:
        raise OptionError(
            "output_stride",
            f"{output_stride} for a model of output stride {own}",
            f"{own} or less",
            "build the model at the larger one and copy the weights",
        )
    return _Walk(model, output_stride).changes


class _Walk:
    """Walk through a model's graph from the image on.

    For each layer's feature map: its stride, and how many times finer it becomes than in the model.
    """

    def __init__(self, model: keras.Model, output_stride: int | None):
        self.changes: dict[str, dict[str, Any]] = {}
        self.deepest = 1
        strides: dict[keras.layers.Layer, int] = {}
        finer: dict[keras.layers.Layer, int] = {}
        for layer, before in sources(model).items():
            if isinstance(layer, (ResizeLike, BroadcastLike)):
                resized, reference = before
                strides[layer], finer[layer] = strides[reference], finer[reference]
                if finer[resized] > 1:
                    self.changes[layer.name] = {"ratio": layer.ratio * finer[reference] // finer[resized]}
                continue
            if isinstance(layer, MaxUnpooling):
                strides[layer], finer[layer] = strides[before[-1]], finer[before[-1]]
                continue
            stride, times = (max((of[one] for one in before), default=1) for of in (strides, finer))
            if isinstance(layer, _GLOBAL_POOLS):
                stride, times = 1, 1
            elif isinstance(layer, layers.ZeroPadding2D) and times > 1:
                self.changes[layer.name] = {"padding": [[times * one for one in pair] for pair in layer.padding]}
            elif isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, *_POOLS)):
                stride, times = self._stride(layer, stride, times, output_stride)
            strides[layer], finer[layer] = stride, times
            self.deepest = max(self.deepest, stride)

    def _stride(self, layer: keras.layers.Layer, stride: int, times: int, limit: int | None) -> tuple[int, int]:
        """Records the changes of a convolution or pooling; returns stride and fineness of its feature map."""
        own = max(layer.strides)
        kept = limit is None or stride * own <= limit
        if isinstance(layer, _POOLS):
            if times > 1 or not kept:
                raise OptionError("output_stride", f"{limit}, where layer '{layer.name}' pools", "a larger one")
            return stride * own, times
        change = {} if kept else {"strides": [1, 1]}
        if times > 1 and max(layer.kernel_size) > 1:
            change["dilation_rate"] = [times * rate for rate in layer.dilation_rate]
        if change:
            self.changes[layer.name] = change
        return (stride * own, times) if kept else (stride, times * own)
