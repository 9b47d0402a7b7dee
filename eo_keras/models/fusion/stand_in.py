"""Model of several sensors that is given predicted images of one where this is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras
from keras import ops

from eo_keras.models.graph import normalizations
from eo_keras.models.inference import inference_model
from eo_keras.models.layers.normalization import Presence
from eo_keras.models.spec import Normalization


@dataclasses.dataclass(frozen=True)
class PredictedImage:
    """An input of a model that another model predicts.

    Attributes:
        name: name of the input.
        normalization: means and standard deviations by which the predicted numbers are standardized, one a band.
    """

    name: str
    normalization: Normalization


@keras.saving.register_keras_serializable(package="eo_keras")
class StandIn(keras.layers.Layer):
    """Images, of an example in which they are missing those predicted: in the input's own numbers.

    Predictions of integer inputs are rounded, and at least 1: 0 is no data. They are averaged to the size of the input
    where this is of a coarser resolution.

    Args:
        mean: mean of each band.
        std: standard deviation of each band.
        image_dtype: dtype of the images, one of `eo_keras.models.INPUT_DTYPES`.
        ratio: pixels of the predicted image, along a side, per pixel of the input.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments: images `(batch, height, width, bands)`, predicted standardized numbers `(batch, ratio * height,
    ratio * width, bands)`, whether the images are present and what they are predicted from is, `(batch, 1, 1, 1)`.
    Output shape: that of the images, of their dtype.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], image_dtype: str, ratio: int = 1, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        # Integers must arrive as they are.
        self.autocast = False
        self.mean, self.std = tuple(mean), tuple(std)
        self.image_dtype, self.ratio = image_dtype, ratio

    def call(self, inputs, predicted, present, known):
        """Returns the images, completed."""
        if self.ratio > 1:
            predicted = ops.average_pool(predicted, self.ratio, self.ratio, data_format="channels_last")
        numbers = ops.cast(predicted, "float32") * ops.convert_to_tensor(self.std, "float32")
        numbers += ops.convert_to_tensor(self.mean, "float32")
        if not self.image_dtype.startswith("float"):
            numbers = ops.clip(ops.round(numbers), 1, 2 ** int(self.image_dtype.removeprefix("uint")) - 1)
        filled = ops.logical_and(present < 0.5, known > 0.5)
        return ops.where(filled, ops.cast(numbers, self.image_dtype), inputs)

    def compute_output_spec(self, inputs, predicted, present, known):
        """Returns shape and dtype of the images."""
        return keras.KerasTensor(inputs.shape, dtype=self.image_dtype)

    def get_config(self):
        """Returns the arguments."""
        own = {"mean": list(self.mean), "std": list(self.std), "image_dtype": self.image_dtype, "ratio": self.ratio}
        return {**super().get_config(), **own}


def with_stand_in(
    model: keras.Model, generator: keras.Model, taken: Mapping[str, str], images: Sequence[PredictedImage]
) -> keras.Model:
    """Returns a model that predicts the images of a sensor where an example has none, and goes on from them.

    An example that has neither them nor any image that they are predicted from stays without.

    Args:
        model: a model of several inputs.
        generator: a model from some of them to standardized numbers of all predicted images.
        taken: name of the model's input by that of each of the generator's.
        images: the predicted images, in the order of the generator's channels.

    Returns:
        A model with the inputs and outputs of `model`.
    """
    inputs = {one.name: keras.Input(one.shape[1:], dtype=one.dtype, name=one.name) for one in model.inputs}
    given = {own: inputs[name] for own, name in taken.items()}
    ratios = {name: layer.ratio for name, layer in normalizations(model).items()}
    finest = min(ratios[name] for name in taken.values())
    # Of any size, and of another name than the model, which may be of the same architecture.
    generator = inference_model(generator)
    generator = keras.Model(generator.input, generator.output, name=f"stand_in_{generator.name}")
    predicted = generator(given if len(given) > 1 else next(iter(given.values())))
    known = [Presence(dtype="float32", name=f"known_{name}")(image) for name, image in given.items()]
    known = keras.layers.Maximum(dtype="float32", name="known")(known) if len(known) > 1 else known[0]
    completed, first = dict(inputs), 0
    for one in images:
        image, own = inputs[one.name], slice(first, first + len(one.normalization.mean))
        first = own.stop
        completed[one.name] = StandIn(
            one.normalization.mean,
            one.normalization.std,
            image.dtype,
            ratios[one.name] // finest,
            name=f"stand_in_{one.name}",
        )(image, predicted[..., own], Presence(dtype="float32", name=f"presence_{one.name}")(image), known)
    return keras.Model(inputs, model(completed), name=model.name)
