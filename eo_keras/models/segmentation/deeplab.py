"""DeepLabv3+ (Chen et al. 2018, arXiv 1802.02611) for semantic segmentation.

A backbone with dilated convolutions in place of its last strides, atrous spatial pyramid pooling on its last feature
map (section 3.1), and a decoder that joins the result to a finer feature map of the backbone (figure 2). The rates and
depths are the paper's; the epsilon of 1e-5 in the head, the rate of its dropout and its initial weights are those of
the code that the authors published (tensorflow/models, research/deeplab).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from eo_keras.models.backbones.efficientnet_lite import efficientnet_lite_stages
from eo_keras.models.backbones.resnet import resnet_stages
from eo_keras.models.backbones.stages import StageBuilder
from eo_keras.models.backbones.xception import xception_stages
from eo_keras.models.fusion.attention import attention
from eo_keras.models.fusion.late import joined_scores
from eo_keras.models.fusion.streams import Stream, make_streams
from eo_keras.models.fusion.vfusenet import vfusenet
from eo_keras.models.layers.factory import LayerFactory
from eo_keras.models.layers.resize import BroadcastLike, ResizeLike
from eo_keras.models.segmentation.heads import add_scores, model_of_scores, segmentation_model
from eo_keras.models.spec import LATE_FUSIONS, NetworkSpec

BACKBONES: dict[str, Callable[..., list[StageBuilder]]] = {
    "resnet": resnet_stages,
    "xception": xception_stages,
    "efficientnet_lite": efficientnet_lite_stages,
}
"""Functions that return the stages of a backbone, by name."""

ENCODER_FUSIONS = {"vfusenet": vfusenet, "attention": attention}
"""Functions that add the backbones of several modalities and return joined features for one decoder, by name."""

DEFAULT_OUTPUT_STRIDE = 16

RATES = (6, 12, 18)
"""Dilation rates of the pyramid's separable convolutions at output stride 16; doubled at 8 (section 4)."""

DROPOUT = 0.1
"""Fraction of the pyramid's features dropped in training."""

LOW_STRIDE = 4
"""Stride of the low-level features, with which the decoder works."""


def build_deeplab(
    spec: NetworkSpec,
    *,
    backbone: str = "resnet",
    depth: int = 256,
    low_depth: int = 48,
    name: str = "deeplab",
    **arguments: Any,
) -> keras.Model:
    """Builds the network with random weights.

    The mean over the whole image, a branch of the pyramid, is normalized over the batch's images alone: with few images
    a batch its moments are noisy, and with one they carry no information.

    Several modalities are joined as `eo_keras.models.fusion` says.

    Args:
        spec: inputs, classes, output stride and how layers compute. Its dropout, of the pyramid's features, replaces
            the rate of 0.1.
        backbone: one of `BACKBONES`.
        depth: channels of the pyramid's branches and of the decoder.
        low_depth: channels that the low-level features are reduced to (table 1: 48 of 8 to 64 do best).
        name: name of the model.
        **arguments: keyword arguments of the backbone, such as `blocks` of `resnet_stages`.

    Returns:
        A model from `image` `(batch, height, width, bands)`, digital numbers, of any height and width where the
        specification has no patch size, odd ones too, to `probabilities` `(batch, height, width, num_classes)`, float32
        (float64 under that policy); the layer before is `logits`, of the same shape and dtype. With distance classes to
        a list of these and of `distance_logits`. From several inputs by name, where the specification has them, to
        outputs in the size of the finest one.

    Raises:
        OptionError: if the specification has synchronized batch normalization under another backend than TensorFlow.
    """
    network = DeepLab(backbone, depth, low_depth, spec.output_stride or DEFAULT_OUTPUT_STRIDE, arguments)
    factory = LayerFactory(spec, batch_norm_epsilon=1e-5)
    inputs, reference, streams = make_streams(factory, spec.fusion not in LATE_FUSIONS)
    if len(streams) > 1 and spec.fusion in LATE_FUSIONS:
        scores = joined_scores(network, factory, streams)
        return model_of_scores(factory, inputs, scores, reference, name, LOW_STRIDE)
    if len(streams) > 1:
        features = network.decoder(factory, *ENCODER_FUSIONS[spec.fusion](network, factory, streams))
    else:
        features = network.features(streams[0])
    return segmentation_model(factory, inputs, features, reference, name, LOW_STRIDE)


@dataclasses.dataclass(frozen=True)
class DeepLab:
    """Parts of DeepLabv3+, of which networks of several modalities have more than one.

    Attributes:
        backbone: as in `build_deeplab`.
        depth: likewise.
        low_depth: likewise.
        output_stride: one of `OUTPUT_STRIDES`.
        arguments: keyword arguments of the backbone.
    """

    backbone: str
    depth: int
    low_depth: int
    output_stride: int
    arguments: Mapping[str, Any]

    stride = LOW_STRIDE

    def stages(self, factory: LayerFactory) -> list[StageBuilder]:
        """Returns the stages of a backbone."""
        return BACKBONES[self.backbone](factory, self.output_stride, **self.arguments)

    def features(self, stream: Stream) -> Any:
        """Adds backbone and decoder of a modality; returns features in the size of the low-level ones."""
        low, high = stream.encode(self.stages(stream.backbone_factory))
        return self.decoder(stream.factory, low.x, high.x)

    def decoder(self, factory: LayerFactory, low: Any, high: Any) -> Any:
        """Adds the pyramid and the decoder without its scores; returns features in the size of the low-level ones."""
        rates = [rate * 16 // self.output_stride for rate in RATES]
        pyramid = factory.dropout(_pyramid(factory, high, rates, self.depth), DROPOUT)
        return _decoder(factory, pyramid, low, self.output_stride // LOW_STRIDE, self.depth, self.low_depth)

    def scores(self, factory: LayerFactory, features: Any) -> dict[str, Any]:
        """Adds the heads' convolutions, see `add_scores`."""
        return add_scores(factory, features, LOW_STRIDE)


def _pyramid(factory: LayerFactory, x: Any, rates: Sequence[int], depth: int) -> Any:
    """Adds atrous spatial pyramid pooling and the projection of its branches."""
    branches = [factory.conv_bn_relu(x, depth, 1, "aspp_1x1")]
    for number, rate in enumerate(rates, 1):
        # Named by number, not by rate: with other rates the weights are the same.
        prefix = f"aspp_atrous{number}"
        branches.append(factory.relu(factory.separable(x, depth, prefix, rate=rate), f"{prefix}_relu"))
    mean = factory.conv_bn_relu(factory.global_mean(x, "aspp_mean", keepdims=True), depth, 1, "aspp_mean")
    branches.append(BroadcastLike(dtype=factory.policy, name=f"{factory.prefix}aspp_mean_spread")(mean, x))
    return factory.conv_bn_relu(factory.concatenate(branches, "aspp_concatenate"), depth, 1, "aspp_projection")


def _decoder(factory: LayerFactory, x: Any, low: Any, ratio: int, depth: int, low_depth: int) -> Any:
    """Adds the decoder without its logits, in the size of the low-level features."""
    low = factory.conv_bn_relu(low, low_depth, 1, "decoder_low")
    x = ResizeLike(ratio, dtype=factory.policy, name=f"{factory.prefix}decoder_resize")(x, low)
    x = factory.concatenate([x, low], "decoder_concatenate")
    for prefix in ("decoder_unit1", "decoder_unit2"):
        x = factory.relu(factory.separable(x, depth, prefix), f"{prefix}_relu")
    return x
