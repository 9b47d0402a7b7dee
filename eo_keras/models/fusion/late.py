"""Late fusion: a whole network for each modality, joined at its predictions.

Networks of different resolution are joined on the grid of the finest one. Layers that take or return scores of classes
have other names where the network reconstructs bands: a network of classes never starts from their weights.

The loss of the joined scores teaches a network less, the more the others know: with an optical and a radar image, the
radar network learns what the optical one leaves over, and is short of a network of radar alone where the optical image
is missing. So the scores of each can be returned too, for a loss of its own (gradient blending, Wang et al. 2020, CVPR,
arXiv 1905.12681, section 3, has one for each modality and one for all).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import keras
from keras import layers

from eo_keras.models.fusion.streams import Stream
from eo_keras.models.layers.factory import LOGITS, STREAM_LOGITS, LayerFactory
from eo_keras.models.layers.merging import MeanOfPresent, OwnOrJoined
from eo_keras.models.layers.resize import ResizeLike


class Network(Protocol):
    """Parts of a segmentation network, of which a fused one has one for each modality.

    Attributes:
        stride: pixels of its bands per pixel of its last features.
        depth: channels of these features.
    """

    stride: int
    depth: int

    def features(self, stream: Stream) -> Any:
        """Adds encoder and decoder of a modality without scores; returns the last features."""
        ...

    def scores(self, factory: LayerFactory, features: Any) -> Mapping[str, Any]:
        """Adds the heads' convolutions, see `eo_keras.models.segmentation.heads.add_scores`."""
        ...


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the network of one modality predicts: its last features and its scores, on the grid of the finest."""

    stream: Stream
    features: Any
    scores: Mapping[str, Any]


def late(network: Network, factory: LayerFactory, predictions: Sequence[Prediction]) -> Mapping[str, Any]:
    """Adds the mean of the scores of the modalities that are present.

    Scores and not probabilities are averaged, which is the geometric mean of the probabilities: so a loss of logits
    and a temperature apply as to any network, and a modality that is sure outweighs one that is not.

    Args:
        network: the parts of a network.
        factory: makes the layers after the streams.
        predictions: one for each modality.

    Returns:
        Scores of each head, as `Network.scores` returns them.
    """
    presences = [one.stream.present for one in predictions]
    return {
        name: MeanOfPresent(dtype=factory.exact, name=f"{factory.prefix}mean_{name}")(
            [one.scores[name] for one in predictions], presences
        )
        for name in predictions[0].scores
    }


def late_learned(network: Network, factory: LayerFactory, predictions: Sequence[Prediction]) -> Mapping[str, Any]:
    """Adds a convolution of the last features and scores of all modalities.

    As Multi3Net fuses its streams (Rudner et al. 2019, AAAI, arXiv 1812.01756): joined, a 3x3 convolution, and 1x1
    scores.

    Args:
        network: as in `late`.
        factory: likewise.
        predictions: likewise.

    Returns:
        Scores of each head, as `Network.scores` returns them.
    """
    x = _joined(factory, predictions, with_scores=True)
    name = "joined_bands" if factory.spec.reconstruction else "joined"
    return network.scores(factory, factory.conv_bn_relu(x, network.depth, 3, name, padding="same"))


def residual(network: Network, factory: LayerFactory, predictions: Sequence[Prediction]) -> Mapping[str, Any]:
    """Adds the mean of the scores of all modalities, and a correction by their last features.

    Residual correction by three 3x3 convolutions (Audebert, Le Saux & Lefèvre 2018, ISPRS J. 140, arXiv 1711.08681). It
    starts near 0.

    Args:
        network: as in `late`.
        factory: likewise.
        predictions: likewise.

    Returns:
        Scores of each head, as `Network.scores` returns them; those of the mask, or a reconstruction, are corrected.
    """
    name = "correction3_bands" if factory.spec.reconstruction else "correction3"
    x = _joined(factory, predictions, with_scores=False)
    for prefix in ("correction1", "correction2"):
        x = factory.conv_bn_relu(x, network.depth, 3, prefix, padding="same")
    correction = layers.Conv2D(
        factory.spec.channels,
        3,
        padding="same",
        data_format="channels_last",
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.01, seed=factory.layer_seed(name)),
        dtype=factory.exact,
        name=factory.prefix + name,
    )(x)
    scores = dict(late(network, factory, predictions))
    first = next(iter(scores))
    scores[first] = layers.Add(dtype=factory.exact, name=f"{factory.prefix}corrected")([scores[first], correction])
    return scores


_JOINTS = {"late": late, "late_learned": late_learned, "residual": residual}
"""Functions that join the predictions of several modalities, by name of the fusion."""


def joined_scores(network: Network, factory: LayerFactory, streams: Sequence[Stream]) -> Mapping[str, Any]:
    """Adds a network for each modality, and their joint as the specification's fusion says.

    Args:
        network: the parts of a network.
        factory: makes the layers after the streams.
        streams: one for each modality.

    Returns:
        Scores of each head, as `Network.scores` returns them, and where the specification has them those of each
        modality's own network, `<modality>_stream_logits`: see `OwnOrJoined`.
    """
    fused = dataclasses.replace(factory, prefix="fusion_")
    predictions = _predictions(network, streams)
    scores = dict(_JOINTS[factory.spec.fusion](network, fused, predictions))
    if factory.spec.stream_logits:
        for one in predictions:
            own = one.stream.factory
            scores[f"{own.prefix}{STREAM_LOGITS}"] = OwnOrJoined(
                dtype=own.exact, name=f"{own.prefix}fusion_own_or_joined"
            )(one.scores[LOGITS], scores[LOGITS], one.stream.present)
    if network.stride > 1:
        return scores  # Layers of these names interpolate them.
    return {name: layers.Identity(dtype=factory.exact, name=name)(x) for name, x in scores.items()}


def _predictions(network: Network, streams: Sequence[Stream]) -> list[Prediction]:
    """Adds the network of each modality."""
    found = []
    for stream in streams:
        features = network.features(stream)
        found.append(Prediction(stream, features, network.scores(stream.factory, features)))
    finest = next(one.features for one in found if one.stream.ratio == 1)

    def resized(one, x, name):
        ratio, own = one.stream.ratio, one.stream.factory
        if ratio == 1:
            return x
        # Half a pixel of each image, less half a pixel of the output, in pixels of the features.
        offset = (ratio - 1) / (2 * network.stride)
        dtype = own.policy if name == "features" else own.exact
        return ResizeLike(ratio, offset, dtype=dtype, name=f"{own.prefix}fusion_resized_{name}")(x, finest)

    return [
        Prediction(
            one.stream,
            resized(one, one.features, "features"),
            {name: resized(one, scores, name) for name, scores in one.scores.items()},
        )
        for one in found
    ]


def _joined(factory: LayerFactory, predictions: Sequence[Prediction], with_scores: bool) -> Any:
    """Adds the stack of the last features of all modalities, of a missing one 0."""
    tensors = []
    for one in predictions:
        own = [one.features, *(one.scores.values() if with_scores else ())]
        stack = one.stream.factory.concatenate(own, "fusion_stack") if len(own) > 1 else own[0]
        tensors.append(one.stream.if_present(stack, "fusion_present"))
    return factory.concatenate(tensors, "join")
