"""Heads of segmentation networks: the classes of a mask, and beside or before them the classes of a distance.

Distances to the outlines of objects, quantized to classes, teach a network where boundaries are (Bischke et al. 2019,
ICIP, arXiv 1709.05932): a second task of the same decoder, which inference does not need, or whose answer the first
task is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

from eo_keras.models.layers.factory import DISTANCE_LOGITS, LOGITS, RECONSTRUCTION, LayerFactory
from eo_keras.models.layers.resize import ResizeLike


def segmentation_model(
    factory: LayerFactory, inputs: Any, features: Any, reference: Any, name: str, stride: int = 1
) -> keras.Model:
    """Returns the model of a decoder's last features, with the heads of the specification.

    Logits are 1x1 convolutions of the features: layers `logits` and `distance_logits`. Where the features are coarser
    than the image, the convolutions are `decoder_scores` and `decoder_distance_scores`, and those layers interpolate.
    In a cascade the distance logits, through a ReLU, are joined to the features of the mask (Bischke et al. 2019,
    section 3). A reconstruction of bands has convolutions of its own names, `reconstruction` and
    `decoder_reconstruction`, so that a network of classes that starts from its weights never takes them.

    Args:
        factory: makes the layers.
        inputs: the model's inputs.
        features: the decoder's last features `(batch, height, width, channels)`.
        reference: a tensor of the height and width of the outputs.
        name: name of the model.
        stride: pixels of the reference per pixel of the features.

    Returns:
        A model from the inputs to `probabilities` `(batch, height, width, num_classes)`, or with distance classes to a
        list of these and of `distance_logits` `(batch, height, width, distance_classes)`; of a reconstruction to
        `reconstruction` `(batch, height, width, bands)`.
    """
    return model_of_scores(factory, inputs, add_scores(factory, features, stride), reference, name, stride)


def add_scores(factory: LayerFactory, features: Any, stride: int = 1) -> dict[str, Any]:
    """Adds the convolutions of `segmentation_model`.

    Args:
        factory: makes the layers.
        features: the decoder's last features `(batch, height, width, channels)`.
        stride: pixels of the output per pixel of the features.

    Returns:
        `logits`, and with distance classes `distance_logits`, in the size of the features; or `reconstruction`.
    """
    spec, found = factory.spec, {}

    def scores(x: Any, classes: int, logits_name: str, scores_name: str) -> Any:
        layer_name = logits_name if stride == 1 else scores_name
        return layers.Conv2D(
            classes,
            1,
            data_format="channels_last",
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.01, seed=factory.layer_seed(layer_name)),
            dtype=factory.exact,
            name=factory.prefix + layer_name,
        )(x)

    if spec.reconstruction:
        return {RECONSTRUCTION: scores(features, spec.channels, RECONSTRUCTION, "decoder_reconstruction")}
    if spec.distance_classes is not None:
        distance = scores(features, spec.distance_classes, DISTANCE_LOGITS, "decoder_distance_scores")
        found[DISTANCE_LOGITS] = distance
        if spec.distance_head == "cascaded":
            rectified = factory.relu(distance, "decoder_distance_relu")
            features = factory.concatenate([features, rectified], "decoder_distance_concatenate")
    return {LOGITS: scores(features, spec.num_classes, LOGITS, "decoder_scores"), **found}


def model_of_scores(
    factory: LayerFactory, inputs: Any, scores: Mapping[str, Any], reference: Any, name: str, stride: int = 1
) -> keras.Model:
    """Returns the model of scores, as `segmentation_model` does, whose arguments it has.

    Args:
        factory: makes the layers.
        inputs: the model's inputs.
        scores: of `add_scores`.
        reference: a tensor of the height and width of the outputs.
        name: name of the model.
        stride: pixels of the reference per pixel of the scores.
    """

    def in_full_size(logits_name: str) -> Any:
        if stride == 1:
            return scores[logits_name]
        # In full precision: interpolated in bfloat16, the logits of neighboring pixels would become equal.
        return ResizeLike(stride, dtype=factory.exact, name=logits_name)(scores[logits_name], reference)

    logits, *others = map(in_full_size, scores)
    if factory.spec.reconstruction:
        return keras.Model(inputs, logits, name=name)
    probabilities = factory.probabilities(logits)
    return keras.Model(inputs, [probabilities, *others] if others else probabilities, name=name)
