"""Streams of a network of several modalities: inputs, two dates, presence, and their encoders."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras import layers

from eo_keras.models.backbones.stages import StageBuilder, run_stages
from eo_keras.models.layers.factory import LayerFactory
from eo_keras.models.layers.merging import ChangeOfDates
from eo_keras.models.layers.normalization import Presence
from eo_keras.models.spec import BEFORE

SIAMESE = "siamese"


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of a stream.

    Attributes:
        x: the features; of two dates through one backbone those of the later date and the change, stacked.
        evidence: what they tell other streams: the change where there is one, else the features themselves.
    """

    x: Any
    evidence: Any


@dataclasses.dataclass(frozen=True)
class Stream:
    """One modality's part of a network; the only part where there is one modality or fusion is early.

    Attributes:
        factory: makes its layers, with its prefix.
        bands: its standardized bands; of two dates through one backbone both along the batch, the later one first.
        ratio: pixels of the output, along a side, per pixel of its bands.
        present: whether its later date has data, `(batch, 1, 1, 1)`; None for the only stream.
        before_present: whether its earlier date has, where both go through one backbone; else None.
        backbone_present: the presences of both dates along the batch, where batch normalization goes by them.
    """

    factory: LayerFactory
    bands: Any
    ratio: int = 1
    present: Any = None
    before_present: Any = None
    backbone_present: Any = None

    @property
    def backbone_factory(self) -> LayerFactory:
        """Factory of the layers that `bands` go through: of two dates along the batch, both."""
        if self.backbone_present is None:
            return self.factory
        return dataclasses.replace(self.factory, present=self.backbone_present)

    def if_present(self, x: Any, layer_name: str) -> Any:
        """Returns features of the stream, of an example in which it is missing 0."""
        return layers.Multiply(dtype=self.factory.policy, name=self.factory.prefix + layer_name)([x, self.present])

    def features(self, x: Any, place: str, same_width: bool = False) -> Features:
        """Returns what its backbone made of `bands` as features of the examples.

        Args:
            x: the features of one date, or of two along the batch.
            place: end of the names of the layers that are added for two dates.
            same_width: whether a 1x1 convolution of the later date and the change brings them to the channels of one
                date, to be added to the features of other streams.
        """
        if self.before_present is None:
            return Features(x, x)
        prefix, policy = self.factory.prefix, self.factory.policy
        after, change = ChangeOfDates(dtype=policy, name=f"{prefix}change_{place}")(x, self.before_present)
        both = self.factory.concatenate([after, change], f"with_change_{place}")
        if same_width:
            both = self.factory.conv_bn_relu(both, x.shape[-1], 1, f"of_dates_{place}")
        return Features(both, change)

    def encode(self, stages: list[StageBuilder], same_width: bool = False) -> tuple[Features, Features]:
        """Adds its backbone; returns the low-level features and the last ones, as `features` does."""
        low, high = run_stages(stages, self.bands)
        return self.features(low, "low", same_width), self.features(high, "high", same_width)


def make_streams(factory: LayerFactory, same_size: bool) -> tuple[Any, Any, list[Stream]]:
    """Adds the inputs of a network and their normalization.

    Args:
        factory: makes the layers.
        same_size: whether the bands of all modalities are brought to the size of the finest input; where fusion is
            early, they always are.

    Returns:
        The model's inputs, a tensor of the height and width of the output, and the streams.
    """
    spec = factory.spec
    if "" in spec.stems and spec.dates != SIAMESE:
        images, bands = factory.image()
        return images, bands if isinstance(images, dict) else images, [Stream(factory, bands)]
    images, bands = factory.images()
    finest = factory.finest(bands)
    presences = {}

    def present(name):
        if name not in presences:
            presences[name] = Presence(dtype=factory.exact, name=f"presence_{name}")(images[name])
        return presences[name]

    def stacked(own, names, layer_name):
        resized = bands
        if same_size or not own.prefix:
            resized = bands | {name: factory.at_finest(bands[name], name, finest) for name in names}
        tensors = [resized[name] for name in names]
        return own.concatenate(tensors, layer_name, factory.exact) if len(tensors) > 1 else tensors[0]

    streams = []
    for prefix, names in spec.stems.items():
        own = dataclasses.replace(factory, prefix=prefix)
        ratio = 1 if same_size or not prefix else spec.inputs[names[0]].ratio
        x, before_present = stacked(own, names, "stacked"), None
        earlier = [name + BEFORE for name in names if name + BEFORE in spec.inputs]
        if spec.dates == SIAMESE and earlier:
            before = stacked(own, earlier, "stacked_before")
            x = layers.Concatenate(axis=0, dtype=factory.exact, name=f"{prefix}dates")([x, before])
            before_present = _any_of([present(name) for name in earlier], factory, prefix)
        stream = Stream(own, x, ratio, present(names[0]) if prefix else None, before_present)
        streams.append(_with_own_moments(stream) if spec.lacking and prefix else stream)
    return images, finest, streams


def _with_own_moments(stream: Stream) -> Stream:
    """Returns a stream whose batch normalization leaves out the examples in which it is missing."""
    own, both = dataclasses.replace(stream.factory, present=stream.present), None
    if stream.before_present is not None:
        name = f"{own.prefix}presence_dates"
        both = layers.Concatenate(axis=0, dtype=own.exact, name=name)([stream.present, stream.before_present])
    return dataclasses.replace(stream, factory=own, backbone_present=both)


def _any_of(presences: list[Any], factory: LayerFactory, prefix: str) -> Any:
    if len(presences) == 1:
        return presences[0]
    return layers.Maximum(dtype=factory.exact, name=f"{prefix}presence_before")(presences)
