"""SegNet (Badrinarayanan et al. 2017, IEEE TPAMI 39(12), arXiv 1511.00561) for semantic segmentation.

The encoder is VGG-16's (Simonyan and Zisserman 2015, arXiv 1409.1556, table 1, column D) without its dense layers, each
convolution with batch normalization before its ReLU. The decoder mirrors it: it puts values back where the encoder's
pooling found its maxima, and fills the gaps by convolutions. The last of the decoder's 13 convolutions is followed by
a classifier of pixels, as in the paper's text and not in its published code, which has them in one.

Several modalities are stacked, each has a network of its own (`eo_keras.models.fusion.late`), or an encoder of its own
and a virtual one takes their sums: V-FuseNet (Audebert, Le Saux & Lefèvre 2018, ISPRS J. 140, arXiv 1711.08681, section
3.2), which was published on SegNet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from eo_keras.models.fusion.late import joined_scores
from eo_keras.models.fusion.streams import Stream, make_streams
from eo_keras.models.layers.factory import VIRTUAL, LayerFactory
from eo_keras.models.layers.unpooling import MaxPoolingWithIndices, MaxUnpooling
from eo_keras.models.segmentation.heads import add_scores, model_of_scores, segmentation_model
from eo_keras.models.spec import LATE_FUSIONS, NetworkSpec

Blocks = Sequence[tuple[int, int]]
"""Number and channels of the convolutions of each of an encoder's blocks."""

VGG16 = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Number of convolutions of each block of VGG-16, and their channels."""


@dataclasses.dataclass(frozen=True)
class Pooled:
    """A block's features and the places of their maxima, which the decoder needs.

    Attributes:
        features: what was pooled `(batch, height, width, channels)`.
        indices: the places, see `MaxPoolingWithIndices`.
    """

    features: Any
    indices: Any


def build_segnet(spec: NetworkSpec, *, blocks: Blocks = VGG16, name: str = "segnet") -> keras.Model:
    """Builds the network with random weights.

    Args:
        spec: inputs, classes, distance classes and how layers compute; it has no output stride. Dropout, none of its
            own as in the paper, is that of the encoder's last features.
        blocks: number and channels of the convolutions of each of the encoder's blocks.
        name: name of the model.

    Returns:
        A model from `image` `(batch, height, width, bands)`, digital numbers, of any height and width where the
        specification has no patch size, odd ones too, to `probabilities` `(batch, height, width, num_classes)`, float32
        (float64 under that policy); the layer before is `logits`, of the same shape and dtype. With distance classes to
        a list of these and of `distance_logits`. From several inputs by name, where the specification has them, to
        outputs in the size of the finest one.

    Raises:
        OptionError: if the specification has synchronized batch normalization under another backend than TensorFlow.
    """
    factory, network = LayerFactory(spec), SegNet(blocks)
    inputs, reference, streams = make_streams(factory, spec.fusion not in LATE_FUSIONS)
    if len(streams) > 1 and spec.fusion in LATE_FUSIONS:
        return model_of_scores(factory, inputs, joined_scores(network, factory, streams), reference, name)
    if len(streams) > 1:
        x, pooled = _virtual_encoder(factory, streams, blocks)
        features = network.decoder(factory, x, pooled)
    else:
        features = network.features(streams[0])
    return segmentation_model(factory, inputs, features, reference, name)


@dataclasses.dataclass(frozen=True)
class SegNet:
    """Parts of SegNet, of which networks of several modalities have more than one.

    Attributes:
        blocks: number and channels of the convolutions of each of the encoder's blocks.
    """

    blocks: Blocks

    stride = 1

    @property
    def depth(self) -> int:
        """Channels of the decoder's last features."""
        return self.blocks[0][1]

    def features(self, stream: Stream) -> Any:
        """Adds encoder and decoder of a modality; returns features in the size of its bands."""
        x, pooled = stream.bands, []
        for number, (count, filters) in enumerate(self.blocks, 1):
            x, one = _pool(stream.factory, _block(stream.factory, x, number, count, filters), number)
            pooled.append(one)
        return self.decoder(stream.factory, x, pooled)

    def decoder(self, factory: LayerFactory, x: Any, pooled: Sequence[Pooled]) -> Any:
        """Adds dropout and the decoder.

        Args:
            factory: makes the layers.
            x: the encoder's last maxima.
            pooled: what each of its blocks pooled.

        Returns:
            Features of the bands' height and width, with the channels of the encoder's first block.
        """
        return _decoder(factory, factory.dropout(x), pooled, self.blocks)

    def scores(self, factory: LayerFactory, features: Any) -> dict[str, Any]:
        """Adds the heads' convolutions, see `add_scores`."""
        return add_scores(factory, features)


def _virtual_encoder(factory: LayerFactory, streams: Sequence[Stream], blocks: Blocks) -> tuple[Any, list[Pooled]]:
    """Adds an encoder for each stream, and the virtual one; returns its last maxima, and what its blocks pooled.

    The virtual encoder begins with what the first blocks of the others return, stacked. What each of its blocks returns
    is summed with what theirs do, of a modality that is missing 0, and the sum is pooled.
    """
    virtual = dataclasses.replace(factory, prefix=VIRTUAL)
    parts, x, pooled = [stream.bands for stream in streams], None, []
    for number, (count, filters) in enumerate(blocks, 1):
        parts = [
            _block(stream.factory, part, number, count, filters) for stream, part in zip(streams, parts, strict=True)
        ]
        added = [stream.if_present(part, f"present_block{number}") for stream, part in zip(streams, parts, strict=True)]
        x = _block(virtual, virtual.concatenate(added, "stems") if x is None else x, number, count, filters)
        x, one = _pool(virtual, virtual.add([x, *added], f"sum_block{number}"), number)
        pooled.append(one)
        if number < len(blocks):
            parts = [_pool(stream.factory, part, number)[0] for stream, part in zip(streams, parts, strict=True)]
    return x, pooled


def _block(factory: LayerFactory, x: Any, number: int, count: int, filters: int) -> Any:
    """Adds a block of the encoder without its pooling.

    Args:
        factory: makes the layers. Without a prefix, the convolutions have the names of `keras.applications.VGG16`,
            such as `block1_conv1`.
        x: the standardized bands, or what the block before was pooled to.
        number: number of the block, from 1.
        count: number of its convolutions.
        filters: their channels.
    """
    for place in range(1, count + 1):
        x = _convolution(factory, x, filters, f"block{number}_conv{place}")
    return x


def _pool(factory: LayerFactory, features: Any, number: int) -> tuple[Any, Pooled]:
    """Adds the pooling of a block; returns the maxima, and what the decoder needs."""
    layer = MaxPoolingWithIndices(dtype=factory.policy, name=f"{factory.prefix}block{number}_pool")
    maxima, indices = layer(features)
    return maxima, Pooled(features, indices)


def _decoder(factory: LayerFactory, x: Any, pooled: Sequence[Pooled], blocks: Blocks) -> Any:
    """Adds the decoder.

    Args:
        factory: makes the layers.
        x: the encoder's last maxima.
        pooled: of each of its blocks.
        blocks: as in `build_segnet`.

    Returns:
        Features of the image's height and width, with the channels of the encoder's first block.
    """
    for number in range(len(blocks), 0, -1):
        (count, filters), one = blocks[number - 1], pooled[number - 1]
        unpool = MaxUnpooling(dtype=factory.policy, name=f"{factory.prefix}decoder_block{number}_unpool")
        x = unpool(x, one.indices, one.features)
        # Mirrored: the convolution that stands for a block's first one has the channels of the block before.
        before = blocks[number - 2][1] if number > 1 else filters
        for place in range(count, 0, -1):
            x = _convolution(factory, x, filters if place > 1 else before, f"decoder_block{number}_conv{place}")
    return x


def _convolution(factory: LayerFactory, x: Any, filters: int, name: str) -> Any:
    x = factory.convolution(x, filters, 3, name, padding="same")
    return factory.relu(factory.batch_norm(x, f"{name}_bn"), f"{name}_relu")
