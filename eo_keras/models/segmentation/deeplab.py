"""DeepLabv3+ (Chen et al. 2018, arXiv 1802.02611): a class for every pixel.

A backbone whose last strides are rates, atrous spatial pyramid pooling on its last map (section 3.1), and a decoder
that joins what comes out to a finer map of the backbone (figure 2). The rates and depths are the paper's; the epsilon
of 1e-5 in the head, the rate of its dropout and its initial weights are those of the code that the authors published
(tensorflow/models, research/deeplab).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

from eo_keras.models.dilation import check_output_stride
from eo_keras.models.layers.factory import LOGITS, LayerFactory, layer_seed
from eo_keras.models.layers.normalization import Normalization
from eo_keras.models.layers.resize import BroadcastLike, ResizeLike

RATES = (6, 12, 18)
"""Of the pyramid's separable convolutions at output stride 16; doubled at 8 (section 4)."""

DROPOUT = 0.1
"""Share of the pyramid's features that are dropped while training."""

LOW_STRIDE = 4
"""Pixels of the image between two of the low-level features, with which the decoder works."""


def build_deeplab(
    *,
    bands: Sequence[str],
    num_classes: int,
    normalisation: Normalization,
    input_dtype: str,
    backbone: Callable[..., tuple[Any, Any]],
    patch_size: int | None = None,
    scale: Sequence[float] | None = None,
    output_stride: int | None = None,
    depth: int = 256,
    low_depth: int = 48,
    dropout: float | None = None,
    synchronized: bool = False,
    dtype_policy: str | None = None,
    seed: int | None = None,
    name: str = "deeplab",
    **backbone_options: Any,
) -> keras.Model:
    """Builds the network with random weights.

    The mean over the whole image, a branch of the pyramid, is normalised over the batch's images alone: with few images
    a batch its moments are rough, and with one they say nothing.

    Args:
        bands: names of the input's bands in channel order.
        num_classes: number of classes.
        normalisation: mean and standard deviation of each band in digital numbers.
        input_dtype: dtype of the digital numbers, `uint8` or `uint16`.
        backbone: `resnet_features`, `xception_features`, or a function like them.
        patch_size: height and width of the input in pixels; `None` takes any height and width, odd ones too.
        scale: what one standard deviation becomes behind the normalisation, per band; 1 when not given.
        output_stride: pixels of the image between two of the backbone's last map, 8 or 16; `None` is 16.
        depth: channels of the pyramid's branches and of the decoder.
        low_depth: channels that the low-level features are reduced to (table 1: 48 of 8 to 64 do best).
        dropout: share of the pyramid's features that are dropped while training; `None` is 0.1.
        synchronized: whether batch normalisation takes its moments over all replicas (TensorFlow backend only).
        dtype_policy: one of `POLICIES`, or `None` for Keras's global one.
        seed: makes the initial weights and the dropout repeatable.
        name: name of the model.
        **backbone_options: what the backbone is called with besides.

    Returns:
        A model from `image` `(batch, patch_size, patch_size, len(bands))`, digital numbers, to `probabilities`
        `(batch, patch_size, patch_size, num_classes)`, float32 (float64 under that policy); the layer before is
        `logits`, of the same shape and dtype.

    Raises:
        BandError: if the normalisation does not fit the bands.
        OptionError: if the policy is unknown, the output stride is none of the paper's, the dropout is no rate, or
            `synchronized` is asked for under another backend than TensorFlow.
    """
    output_stride = 16 if output_stride is None else output_stride
    check_output_stride(output_stride)
    parts = LayerFactory(dtype_policy, seed, synchronized, batch_norm_epsilon=1e-5)
    image, x = parts.image(bands, normalisation, scale, input_dtype, patch_size)
    low, high = backbone(parts, x, output_stride, **backbone_options)
    rates = [rate * 16 // output_stride for rate in RATES]
    pyramid = parts.dropout(_pyramid(parts, high, rates, depth), DROPOUT if dropout is None else dropout)
    features = _decoder(parts, pyramid, low, output_stride // LOW_STRIDE, depth, low_depth)
    scores = layers.Conv2D(
        num_classes,
        1,
        data_format="channels_last",
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.01, seed=layer_seed(seed, "decoder_scores")),
        dtype=parts.exact,
        name="decoder_scores",
    )(features)
    # In full precision: interpolated in bfloat16, the logits of neighbouring pixels would become equal.
    logits = ResizeLike(LOW_STRIDE, dtype=parts.exact, name=LOGITS)(scores, image)
    return keras.Model(image, parts.probabilities(logits), name=name)


def _pyramid(parts: LayerFactory, x: Any, rates: Sequence[int], depth: int) -> Any:
    """Adds atrous spatial pyramid pooling and the projection of its branches."""
    branches = [parts.unit(x, depth, 1, "aspp_1x1")]
    for number, rate in enumerate(rates, 1):
        # Named by number, not by rate: with other rates the weights are the same.
        prefix = f"aspp_atrous{number}"
        branches.append(parts.relu(parts.separable(x, depth, prefix, rate=rate), f"{prefix}_relu"))
    mean = parts.unit(parts.global_mean(x, "aspp_mean", keepdims=True), depth, 1, "aspp_mean")
    branches.append(BroadcastLike(dtype=parts.policy, name="aspp_mean_spread")(mean, x))
    return parts.unit(parts.concatenate(branches, "aspp_concatenate"), depth, 1, "aspp_projection")


def _decoder(parts: LayerFactory, x: Any, low: Any, ratio: int, depth: int, low_depth: int) -> Any:
    """Adds the decoder up to the features that the scores are made of, in the size of the low-level features."""
    low = parts.unit(low, low_depth, 1, "decoder_low")
    x = ResizeLike(ratio, dtype=parts.policy, name="decoder_resize")(x, low)
    x = parts.concatenate([x, low], "decoder_concatenate")
    for prefix in ("decoder_unit1", "decoder_unit2"):
        x = parts.relu(parts.separable(x, depth, prefix), f"{prefix}_relu")
    return x
