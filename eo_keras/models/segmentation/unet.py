"""U-Net (Ronneberger, Fischer & Brox 2015, MICCAI, arXiv 1505.04597) for semantic segmentation.

An encoder of convolutions and pooling, and a decoder that is given the features of every level again: the network of
choice where outputs follow the edges of their inputs closely, and the generator of image translation (Isola et al.
2017, arXiv 1611.07004, section 3.2.1). Unlike the published network it keeps the size of the image, its convolutions
are followed by batch normalization, and features are repeated before the decoder's 2x2 convolutions: a transposed
convolution leaves patterns of squares (Odena et al. 2016, Distill, doi 10.23915/distill.00003).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from eo_keras.models.fusion.late import joined_scores
from eo_keras.models.fusion.streams import Stream, make_streams
from eo_keras.models.layers.factory import LayerFactory
from eo_keras.models.layers.resize import RepeatLike
from eo_keras.models.segmentation.heads import add_scores, model_of_scores, segmentation_model
from eo_keras.models.spec import LATE_FUSIONS, NetworkSpec

WIDTHS = (64, 128, 256, 512, 1024)
"""Channels of each level, the finest first."""


def build_unet(spec: NetworkSpec, *, widths: Sequence[int] = WIDTHS, name: str = "unet") -> keras.Model:
    """Builds the network with random weights.

    Args:
        spec: inputs, classes, distance classes and how layers compute; it has no output stride. Dropout, none of its
            own, is that of the coarsest features.
        widths: channels of each level, the finest first.
        name: name of the model.

    Returns:
        A model from `image` `(batch, height, width, bands)`, digital numbers, of any height and width where the
        specification has no patch size, to outputs as `eo_keras.models.segmentation.heads.segmentation_model` has them.

    Raises:
        OptionError: if the specification has synchronized batch normalization under another backend than TensorFlow.
    """
    factory, network = LayerFactory(spec), UNet(widths)
    inputs, reference, streams = make_streams(factory, spec.fusion not in LATE_FUSIONS)
    if len(streams) > 1:
        return model_of_scores(factory, inputs, joined_scores(network, factory, streams), reference, name)
    return segmentation_model(factory, inputs, network.features(streams[0]), reference, name)


@dataclasses.dataclass(frozen=True)
class UNet:
    """Parts of U-Net, of which networks of several modalities have more than one.

    Attributes:
        widths: channels of each level, the finest first.
    """

    widths: Sequence[int]

    stride = 1

    @property
    def depth(self) -> int:
        """Channels of the decoder's last features."""
        return self.widths[0]

    def features(self, stream: Stream) -> Any:
        """Adds encoder and decoder of a modality; returns features in the size of its bands."""
        factory, x, skipped = stream.factory, stream.bands, []
        for level, width in enumerate(self.widths, 1):
            if level > 1:
                # The last row and column of an odd size are pooled by themselves.
                x = factory.max_pool(x, 2, f"level{level}_pool", padding="same")
            x = _convolutions(factory, x, width, f"level{level}")
            skipped.append(x)
        x = factory.dropout(skipped.pop())
        for level in range(len(skipped), 0, -1):
            x = _upsampled(factory, x, skipped[level - 1], self.widths[level - 1], f"decoder_level{level}")
            x = _convolutions(factory, x, self.widths[level - 1], f"decoder_level{level}")
        return x

    def scores(self, factory: LayerFactory, features: Any) -> dict[str, Any]:
        """Adds the heads' convolutions, see `add_scores`."""
        return add_scores(factory, features)


def _convolutions(factory: LayerFactory, x: Any, width: int, name: str) -> Any:
    for place in (1, 2):
        x = factory.conv_bn_relu(x, width, 3, f"{name}_conv{place}")
    return x


def _upsampled(factory: LayerFactory, x: Any, finer: Any, width: int, name: str) -> Any:
    """Adds features in the size of finer ones, and joins both."""
    x = RepeatLike(2, dtype=factory.policy, name=f"{factory.prefix}{name}_upsampled")(x, finer)
    x = factory.conv_bn_relu(x, width, 2, f"{name}_up")
    return factory.concatenate([finer, x], f"{name}_concatenate")
