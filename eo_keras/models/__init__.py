"""Models by name: digital numbers in, probabilities over the legend out, for the image or for each of its pixels.

`blocks.py` has what the architectures share, `weights.py` brings pretrained weights in, `twins.py` makes models to
train and to save out of those built here, `layer_groups.py` says which layers learn and how fast. Only Keras and numpy
are used here, so that the same model also runs under `KERAS_BACKEND=jax` without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence

import keras

from eo_keras.errors import BandError, OptionError
from eo_keras.models.backbones.compact import build_compact
from eo_keras.models.backbones.googlenet import build_googlenet
from eo_keras.models.backbones.inception_v3 import build_inception_v3
from eo_keras.models.backbones.resnet import build_resnet, resnet_features
from eo_keras.models.backbones.xception import build_xception, xception_features
from eo_keras.models.dilation import OUTPUT_STRIDES, check_output_stride, output_stride_of
from eo_keras.models.flops import count_macs
from eo_keras.models.inference import copy_weights, inference_model, logits_model, seed_states, with_temperature
from eo_keras.models.layer_groups import depth_groups, depthwise_kernels, normalised_kernels, set_trainable
from eo_keras.models.layers.batch_norm import fewest_values
from eo_keras.models.layers.factory import POLICIES, check_dropout
from eo_keras.models.layers.normalization import BandNormalization, Normalization
from eo_keras.models.pretrained.catalogue import INCEPTION_V3, RESNET50, RESNET101, PretrainedWeights
from eo_keras.models.pretrained.stem import STEM_MODES, check_stem
from eo_keras.models.pretrained.weights import InitializationReport, input_scale, load_backbone, scratch_report
from eo_keras.models.segmentation.deeplab import build_deeplab

__all__ = [
    "INPUT_DTYPES",
    "MODELS",
    "OUTPUT_STRIDES",
    "POLICIES",
    "STEM_MODES",
    "TASKS",
    "ModelInfo",
    "BandNormalization",
    "InitializationReport",
    "Normalization",
    "build",
    "copy_weights",
    "depth_groups",
    "depthwise_kernels",
    "fewest_values",
    "inference_model",
    "load_backbone",
    "count_macs",
    "normalised_kernels",
    "output_stride_of",
    "seed_states",
    "set_trainable",
    "logits_model",
    "with_temperature",
]

INPUT_DTYPES = ("uint8", "uint16")
"""The dtypes of digital numbers that models take: JPEGs' and Sentinel-2's own."""

TASKS = ("classification", "segmentation")
"""What models answer: a class for the image, or for each of its pixels."""

MIN_PATCH_SIZE = 32
"""Most architectures halve the image five times: below this, the last blocks would see nothing but padding."""


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """One entry of the registry.

    Attributes:
        description: one sentence for the user.
        builder: `build_resnet`, or a function with the same arguments.
        arguments: what the builder is called with besides the user's choices.
        published: the ImageNet weights that Keras has for it; None where it has none.
        residual: whether the builder takes `zero_last_gamma`, so that blocks start as the identity.
        task: one of `TASKS`; the builder for `segmentation` takes `output_stride` too.
    """

    description: str
    builder: Callable[..., keras.Model]
    arguments: dict[str, object]
    published: PretrainedWeights | None = None
    residual: bool = False
    task: str = "classification"

    @property
    def imagenet(self) -> bool:
        """Whether there are ImageNet weights for it."""
        return self.published is not None


MODELS: dict[str, ModelInfo] = {
    "resnet50": ModelInfo(
        "ResNet-50 (He et al. 2015, table 1), 23.6 million parameters; takes ImageNet weights",
        build_resnet,
        {"blocks": (3, 4, 6, 3), "width": 64},
        published=RESNET50,
        residual=True,
    ),
    "resnet101": ModelInfo(
        "ResNet-101 (He et al. 2015, table 1), 42.6 million parameters; takes ImageNet weights",
        build_resnet,
        {"blocks": (3, 4, 23, 3), "width": 64},
        published=RESNET101,
        residual=True,
    ),
    "inception_v3": ModelInfo(
        "Inception-v3 (Szegedy et al. 2015), padded for small patches, 21.8 million parameters; takes ImageNet weights",
        build_inception_v3,
        {},
        published=INCEPTION_V3,
    ),
    "googlenet": ModelInfo(
        "GoogLeNet (Szegedy et al. 2014, table 1) with batch normalisation and two auxiliary classifiers, 6.0 million "
        "parameters without them",
        build_googlenet,
        {},
    ),
    "resnet14": ModelInfo(
        "small bottleneck ResNet of one block a stage at half the width, 2.0 million parameters; for the demo",
        build_resnet,
        {"blocks": (1, 1, 1, 1), "width": 32},
        residual=True,
    ),
    "compact": ModelInfo(
        "residual network for patches of 64 pixels from random weights, 6.2 million parameters",
        build_compact,
        {},
        residual=True,
    ),
    "xception65": ModelInfo(
        "the Xception-65 of DeepLabv3+ (Chen et al. 2018, figure 4) as a classifier, 38.1 million parameters",
        build_xception,
        {},
        residual=True,
    ),
    "deeplab_resnet50": ModelInfo(
        "DeepLabv3+ (Chen et al. 2018) on ResNet-50, 26.8 million parameters; takes ImageNet weights",
        build_deeplab,
        {"backbone": functools.partial(resnet_features, blocks=(3, 4, 6, 3), width=64)},
        published=RESNET50,
        residual=True,
        task="segmentation",
    ),
    "deeplab_resnet101": ModelInfo(
        "DeepLabv3+ (Chen et al. 2018) on ResNet-101, 45.8 million parameters; takes ImageNet weights",
        build_deeplab,
        {"backbone": functools.partial(resnet_features, blocks=(3, 4, 23, 3), width=64)},
        published=RESNET101,
        residual=True,
        task="segmentation",
    ),
    "deeplab_resnet14": ModelInfo(
        "small DeepLabv3+ on the ResNet of one block a stage at half the width, 2.4 million parameters; for the demo",
        build_deeplab,
        {"backbone": functools.partial(resnet_features, blocks=(1, 1, 1, 1), width=32), "depth": 64, "low_depth": 24},
        residual=True,
        task="segmentation",
    ),
    "deeplab_xception65": ModelInfo(
        "DeepLabv3+ on its Xception-65 (Chen et al. 2018, figure 4), 41.3 million parameters",
        build_deeplab,
        {"backbone": xception_features},
        residual=True,
        task="segmentation",
    ),
    "deeplab_xception_small": ModelInfo(
        "DeepLabv3+ on an Xception of a quarter of the width and four blocks in the middle, 1.5 million parameters",
        build_deeplab,
        {"backbone": functools.partial(xception_features, middle=4, width=0.25), "depth": 64, "low_depth": 24},
        residual=True,
        task="segmentation",
    ),
}
"""The architectures by name. `resnet14` is the demo's small network, with the depth of timm's ResNet-14t."""


def build(
    name: str,
    *,
    bands: Sequence[str],
    num_classes: int,
    normalisation: Normalization,
    input_dtype: str,
    patch_size: int | None = None,
    stem: str = "by_name",
    weights: str | os.PathLike | None = None,
    dropout: float | None = None,
    synchronized: bool = False,
    dtype_policy: str | None = None,
    seed: int | None = None,
    output_stride: int | None = None,
) -> tuple[keras.Model, InitializationReport]:
    """Builds a model and initialises it.

    Args:
        name: a key of `MODELS`.
        bands: names of the input's bands in channel order.
        num_classes: number of classes, at least 2.
        normalisation: mean and standard deviation of each band in digital numbers.
        input_dtype: dtype of the digital numbers, `uint8` or `uint16`.
        patch_size: height and width of the input in pixels, at least 32; `None` takes any.
        stem: `by_name` or `by_position`: which pretrained kernel each band takes, see
            `eo_keras.models.pretrained.stem`.
        weights: `None` for random weights, `imagenet`, or a file: weights of `keras.applications`, or a `.keras` model
            of this package or of `keras.applications`.
        dropout: share of the features that are dropped before the logits (of a dense model, before the decoder), and
            before those of auxiliary classifiers, while training; `None` takes the architecture's own, 0 for those
            whose authors use none.
        synchronized: whether batch normalisation takes its moments over all replicas (TensorFlow backend only).
        dtype_policy: `float32`, `mixed_bfloat16`, `mixed_float16`, `float64`, or `None` for Keras's global policy,
            which is not changed.
        seed: makes the initial weights and the dropout repeatable.
        output_stride: of a dense model, pixels of the image between two of the backbone's last map, 8 or 16; `None` is
            16. To be left out for classifiers.

    Returns:
        The model, from `image` `(batch, patch_size, patch_size, len(bands))`, digital numbers, to `probabilities`
        `(batch, num_classes)`, of a dense model `(batch, patch_size, patch_size, num_classes)`, float32 (float64 under
        that policy), the layer before being `logits` of the same shape; a model with auxiliary classifiers answers with
        a list of the probabilities and of their logits, `aux1_logits` and so on. And what was loaded and what was
        initialised.

    Raises:
        BandError: if bands, stem and normalisation do not fit each other.
        OptionError: if an option's value cannot work.
        SourceError: if the weights cannot be read or do not fit.
    """
    bands = tuple(bands)
    check_stem(bands, stem)
    if name not in MODELS:
        raise OptionError("model", f"'{name}'", f"one of {', '.join(MODELS)}")
    if weights == "imagenet" and not MODELS[name].imagenet:
        with_weights = ", ".join(key for key, value in MODELS.items() if value.imagenet)
        raise OptionError("weights", f"there are no ImageNet weights for {name}", f"one of {with_weights}, or a file")
    if input_dtype not in INPUT_DTYPES:
        raise OptionError("input_dtype", f"'{input_dtype}'", f"one of {', '.join(INPUT_DTYPES)}")
    if num_classes < 2:
        raise OptionError("num_classes", f"{num_classes}", "at least 2")
    if patch_size is not None and patch_size < MIN_PATCH_SIZE:
        raise OptionError("patch_size", f"{patch_size} pixels", f"at least {MIN_PATCH_SIZE}")
    if dropout is not None:
        check_dropout(dropout)
    if len(normalisation.mean) != len(bands):
        raise BandError(
            f"normalisation for bands {','.join(bands)}",
            f"{len(normalisation.mean)} means",
            f"one for each of the {len(bands)} bands",
            "use the statistics of the same bands",
        )
    architecture = MODELS[name]
    dense = architecture.task == "segmentation"
    if output_stride is not None:
        if not dense:
            raise OptionError("output_stride", f"{output_stride} for {name}, a classifier", "a dense model")
        check_output_stride(output_stride)
    model = architecture.builder(
        bands=bands,
        num_classes=num_classes,
        normalisation=normalisation,
        input_dtype=input_dtype,
        patch_size=patch_size,
        scale=input_scale(weights, bands, stem, architecture.published),
        dropout=dropout,
        synchronized=synchronized,
        dtype_policy=dtype_policy,
        seed=seed,
        name=name,
        **({"zero_last_gamma": weights is None} if architecture.residual else {}),
        **({"output_stride": output_stride} if dense else {}),
        **architecture.arguments,
    )
    if weights is None:
        return model, scratch_report(model)
    return model, load_backbone(model, weights, bands, stem, architecture.published)
