"""Fusion by a virtual encoder: V-FuseNet (Audebert, Le Saux & Lefèvre 2018, ISPRS J. 140, arXiv 1711.08681).

FuseNet (Hazirbas et al. 2016, ACCV) adds the features of a second encoder to those of a main one, which has to be
chosen. Here all modalities are alike, and a third encoder takes the sums.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eo_keras.models.fusion.streams import Stream
from eo_keras.models.layers.factory import VIRTUAL, LayerFactory

if TYPE_CHECKING:
    from eo_keras.models.segmentation.deeplab import DeepLab


def vfusenet(network: DeepLab, factory: LayerFactory, streams: Sequence[Stream]) -> tuple[Any, Any]:
    """Adds a backbone for each modality, and the virtual one.

    The virtual backbone begins with a 3x3 convolution of what all stems return, stacked; its stages after the stem are
    those of the others. At each stage its own features and those of the modalities are summed, and the sum is what its
    next stage takes. Where a backbone has the change between two dates beside the later date, a 1x1 convolution of both
    is what it adds.

    Args:
        network: the parts of a network.
        factory: makes the layers of the one decoder.
        streams: one for each modality, of one size.

    Returns:
        Low-level and last features for the decoder.
    """
    virtual = dataclasses.replace(factory, prefix=VIRTUAL)

    def contributions(features: Sequence[Any], place: str) -> list[Any]:
        return [
            stream.if_present(stream.features(x, place, same_width=True).x, f"present_{place}")
            for stream, x in zip(streams, features, strict=True)
        ]

    (*stems,), *stages = zip(*(network.stages(stream.backbone_factory) for stream in streams), strict=True)
    parts = [stem(stream.bands)[0] for stem, stream in zip(stems, streams, strict=True)]
    added = contributions(parts, "stem")
    x = virtual.conv_bn_relu(virtual.concatenate(added, "stems"), parts[0].shape[-1], 3, "join", padding="same")
    x, low = virtual.add([x, *added], "sum_stem"), None
    for number, (own, others) in enumerate(zip(network.stages(virtual)[1:], stages, strict=True), 1):
        x, finest = own(x)
        parts, fine = zip(*(other(part) for other, part in zip(others, parts, strict=True)), strict=True)
        whole = virtual.add([x, *contributions(parts, f"stage{number}")], f"sum_stage{number}")
        if finest is x:
            low = whole
        elif finest is not None:
            low = virtual.add([finest, *contributions(fine, "low")], "sum_low")
        x = whole
    return low, x
