"""Fusion by attention: what each modality sees is weighted by what the others see.

One gate per channel, after the mean over the image (Hu et al. 2018, CVPR, arXiv 1709.01507), and one per
pixel; each is made of the features of the other modalities, as SA-Gate does (Chen et al. 2020, ECCV, arXiv 2007.09183).
With two dates through one backbone the gates are made of the change between them, as in the attention-guided variant of
the code published with Multi3Net (Rudner et al. 2019, AAAI, arXiv 1812.01756).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import layers

from eo_keras.models.fusion.streams import Features, Stream
from eo_keras.models.layers.factory import LayerFactory
from eo_keras.models.layers.merging import Gate, MeanOfPresent

if TYPE_CHECKING:
    from eo_keras.models.segmentation.deeplab import DeepLab

REDUCTION, FEWEST = 16, 8
"""Channels of the evidence divided by those of a gate's hidden layer (Hu et al. 2018), and the fewest that
it has: of a few units all may be 0."""


def attention(network: DeepLab, factory: LayerFactory, streams: Sequence[Stream]) -> tuple[Any, Any]:
    """Adds a backbone for each modality, and gates on the low-level and the last features.

    Args:
        network: the parts of a network.
        factory: makes the layers of the one decoder.
        streams: one for each modality, of one size.

    Returns:
        Low-level and last features for the decoder: means of the weighted features of the modalities that are present.
    """
    pairs = [stream.encode(network.stages(stream.backbone_factory), same_width=True) for stream in streams]
    lows, highs = zip(*pairs, strict=True)
    return _joined(factory, streams, lows, "low"), _joined(factory, streams, highs, "high")


def _joined(factory: LayerFactory, streams: Sequence[Stream], features: Sequence[Features], place: str) -> Any:
    presences = [stream.present for stream in streams]
    weighted = []
    for number, (stream, own) in enumerate(zip(streams, features, strict=True)):
        others = [one.evidence for one in (*features[:number], *features[number + 1 :])]
        present = [*presences[:number], *presences[number + 1 :]]
        weighted.append(_weighted(stream.factory, own.x, others, present, f"fusion_{place}"))
    return MeanOfPresent(dtype=factory.policy, name=f"fusion_{place}_mean")(weighted, presences)


def _weighted(factory: LayerFactory, x: Any, others: Sequence[Any], presences: Sequence[Any], name: str) -> Any:
    """Adds the gates of one modality's features; where no other modality is present they are open."""
    evidence = MeanOfPresent(dtype=factory.policy, name=f"{factory.prefix}{name}_evidence")(others, presences)
    present = presences[0]
    if len(presences) > 1:
        present = layers.Maximum(dtype=factory.exact, name=f"{factory.prefix}{name}_others")(presences)
    hidden = max(FEWEST, evidence.shape[-1] // REDUCTION)

    def last(y, count, part):
        return layers.Conv2D(
            count,
            1,
            activation="sigmoid",
            data_format="channels_last",
            kernel_initializer=keras.initializers.GlorotUniform(seed=factory.layer_seed(f"{name}_{part}")),
            dtype=factory.policy,
            name=f"{factory.prefix}{name}_{part}",
        )(y)

    mean = factory.global_mean(evidence, f"{name}_mean", keepdims=True)
    mean = factory.relu(factory.convolution(mean, hidden, 1, f"{name}_reduced"), f"{name}_reduced_relu")
    channels = last(mean, x.shape[-1], "channels")
    pixels = last(factory.conv_bn_relu(evidence, hidden, 1, f"{name}_pixels"), 1, "pixels")
    return Gate(dtype=factory.policy, name=f"{factory.prefix}{name}_gated")(x, channels, pixels, present)
