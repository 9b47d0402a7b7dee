"""Models derived from a network: the training model, which returns logits, and the inference model.

A model of `eo_keras.models.build` returns `probabilities` and, if it has auxiliary classifiers, predicts distance
classes or returns those of each modality's own network, their logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from eo_keras.models.dilation import dilated_layers
from eo_keras.models.graph import inputs_of_size
from eo_keras.models.layers.factory import LOGITS, PROBABILITIES


def logits_model(model: keras.Model) -> keras.Model:
    """Returns a model of the same layers whose outputs are logits, or a reconstruction as it is.

    Logits and not probabilities: the logarithm of a rounded softmax would lose small values.

    Args:
        model: a model as `build` returns it.

    Returns:
        A model from the same input to a list of logits `(batch, num_classes)`, those of the classifier first, then
        those of the auxiliary classifiers; of a segmentation network `(batch, height, width, num_classes)`, in the
        image's size, then those of the distance classes and of each modality's own network. Keras turns a list of one
        into the tensor itself when the model is called; `keras.tree.flatten` makes a list of both.
    """
    logits = next((layer.output for layer in model.layers if layer.name == LOGITS), model.outputs[0])
    return keras.Model(model.input, [logits, *model.outputs[1:]], name=model.name)


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """Returns a model of the same layers whose logits are divided by a temperature before the softmax.

    Args:
        model: a model of `build` or `inference_model`.
        temperature: above 0, see `eo_keras.metrics.calibration`.
    """
    logits, softmax = model.get_layer(LOGITS).output, model.get_layer(PROBABILITIES)
    divided = keras.layers.Rescaling(1 / temperature, dtype=softmax.dtype_policy, name="temperature")(logits)
    return keras.Model(model.input, keras.layers.Softmax(dtype=softmax.dtype_policy)(divided), name=model.name)


def inference_model(model: keras.Model, patch_size: int | None = None, output_stride: int | None = None) -> keras.Model:
    """Returns a copy of the model that can be saved and predicts on any backend.

    It computes in full precision, or its predictions would depend on the precision of training; its batch
    normalization is not synchronized, or it could not be loaded by another backend than TensorFlow; nothing in it is
    frozen; and it has neither the auxiliary classifiers, nor the logits of each modality by itself, nor dropout, which
    have an effect in training alone. It has the layers of distance classes only where the mask depends on them.

    Args:
        model: a model of this package.
        patch_size: height and width of the input in pixels, of several inputs those of the finest one; None takes any.
        output_stride: of a segmentation network, smaller than in training for finer predictions (Chen et al. 2018,
            arXiv 1802.02611, table 5); None is the model's own.

    Returns:
        A model with `probabilities`, or a reconstruction, as its only output.

    Raises:
        OptionError: if the output stride is not one of `OUTPUT_STRIDES`, or is larger than the model's, or the model is
            not a segmentation network.
    """
    changes = {} if output_stride is None else dilated_layers(model, output_stride)

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.dtype_policy.compute_dtype in ("bfloat16", "float16"):
            config["dtype"] = "float32"
        if "synchronized" in config:
            config["synchronized"] = False
        config["trainable"] = True
        config |= changes.get(layer.name, {})
        return layer.__class__.from_config(config)

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if isinstance(layer, keras.layers.Dropout) else layer(*args, **kwargs)

    # A model has the layers between its inputs and outputs only: this leaves out the auxiliary classifiers.
    predicting = keras.Model(model.input, model.outputs[0], name=model.name)
    inference = keras.models.clone_model(
        predicting,
        input_tensors=keras.tree.pack_sequence_as(model.input, inputs_of_size(model, patch_size, patch_size)),
        clone_function=clone,
        call_function=call,
    )
    copy_weights(model, inference)
    return inference


def copy_weights(model: keras.Model, target: keras.Model, values: Sequence[Any] | None = None) -> None:
    """Copies weights into the layers of the same name of another model; other layers are skipped.

    Args:
        model: the model that `target` was derived from, or its model of logits.
        target: a model of `inference_model`.
        values: copied in place of `model.weights`, parallel to them: arrays or variables of any backend, such as moving
            averages.

    Raises:
        ValueError: if there are not as many values as weights, or the target has a layer or shape that the model lacks.
    """
    values = model.weights if values is None else values
    by_weight = {id(weight): value for weight, value in zip(model.weights, values, strict=True)}
    for layer in target.layers:
        if layer.weights:
            weights = model.get_layer(layer.name).weights
            layer.set_weights([_array(by_weight[id(weight)]) for weight in weights])


def seed_states(model: keras.Model) -> list[keras.Variable]:
    """Returns the states of the dropout's random generators, in the order of the layers.

    `model.variables` has them, `model.weights` and TensorFlow's checkpoint of a model do not: to resume a run exactly
    they have to be saved too. Each is `(key, number of draws)`. Replicas of a mirrored strategy hold equal states and
    would drop the same units of their shares of the batch, unless each one's key is changed.
    """
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def _array(value: Any) -> np.ndarray:
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)
