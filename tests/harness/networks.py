"""Reduced networks of every architecture, and `check_network`: what each of them has to keep."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from eo_keras import models
from eo_keras.models.backbones.efficientnet_lite import Bottlenecks
from eo_keras.models.layers.factory import is_head
from eo_keras.models.layers.unpooling import MaxPoolingWithIndices, MaxUnpooling
from eo_keras.models.registry import ModelInfo

RGB = ("B04", "B03", "B02")

BLOCKS = (("3a", (64, 96, 128, 16, 32, 32)), ("4a", (192, 96, 208, 16, 48, 64)), ("4d", (112, 144, 288, 32, 64, 64)))
"""Of the blocks of a GoogLeNet one, and the two that have auxiliary classifiers."""

SMALL_STAGES = (
    Bottlenecks(1, 3, 1, 1, 8),
    Bottlenecks(2, 3, 2, 2, 16),
    Bottlenecks(2, 5, 2, 2, 24),
    Bottlenecks(1, 3, 2, 2, 32),
)
"""Stages of an EfficientNet-Lite down to a stride of 16."""

REDUCED = {
    "resnet50": {"blocks": (1, 1), "width": 8},
    "inception_v3": {"blocks": (1, 1, 1), "width": 1 / 16},
    "googlenet": {"width": 1 / 16, "table": BLOCKS},
    "compact": {"stem": (4, 6), "widths": (8, 12), "blocks": (1, 2)},
    "xception65": {"middle": 0, "width": 1 / 16},
    "efficientnet_lite0": {"stages": SMALL_STAGES, "head": 16},
    "deeplab_resnet50": {"blocks": (1, 1, 1, 1), "width": 4, "depth": 8, "low_depth": 4},
    "deeplab_xception65": {"middle": 0, "width": 1 / 16, "depth": 8, "low_depth": 4},
    "deeplab_efficientnet_lite0": {"stages": SMALL_STAGES, "depth": 8, "low_depth": 4},
    "segnet": {"blocks": ((2, 4), (1, 8), (1, 12))},
    "unet": {"widths": (4, 8, 12)},
}
"""Arguments that make a network of the registry narrow and shallow: one for each architecture and backbone."""

KINDS = {"s1": (("VV", "VH"), "float32", -12.0, 5.0), "height": (("height",), "float32", 10.0, 8.0)}
"""Bands, dtype, mean and standard deviation of inputs by the name of their modality."""

UNDER_JAX = ("googlenet", "deeplab_resnet50", "deeplab_xception65", "segnet")
"""Reduced networks that have every kind of layer between them; JAX takes seconds to compile each."""

FUSED_INPUTS, FUSED_RATIOS = ("s2", "s2_before", "s1"), {"s1": 2}
"""Inputs of a reduced fusion, and the ratio of the coarser one."""

RATES = {
    "inception_v3": {"dropout": 0.2},
    "googlenet": {"aux1_dropout": 0.7, "aux2_dropout": 0.7, "dropout": 0.4},
    "efficientnet_lite0": {"dropout": 0.2},
    "deeplab_efficientnet_lite0": {"dropout": 0.1},
    "deeplab_resnet50": {"dropout": 0.1},
    "deeplab_xception65": {"dropout": 0.1},
}
"""The architectures' own rates of dropout by layer, as published."""


def network_spec(bands=RGB, dtype="uint16", num_classes=4, patch_size=None, normalization=None, scale=None, **choices):
    """Returns a specification of a network of one image; choices are other attributes of `NetworkSpec`."""
    normalization = normalization or models.Normalization((1500.0,) * len(bands), (800.0,) * len(bands))
    image = models.ImageInput(tuple(bands), dtype, normalization, patch_size, scale)
    return models.NetworkSpec({models.IMAGE: image}, num_classes, **choices)


def several_inputs(names, num_classes=4, patch_size=None, ratios=None, **choices) -> models.NetworkSpec:
    """Returns a specification of inputs by name: of `s1` VV and VH in dB, of `height` meters, of others RGB.

    Args:
        names: names of the inputs.
        num_classes: number of classes.
        patch_size: of the finest input.
        ratios: ratio by name, where it is not 1.
        **choices: other attributes of `NetworkSpec`.
    """

    def image(name):
        ratio = (ratios or {}).get(name, 1)
        bands, dtype, mean, std = KINDS.get(name.removesuffix(models.BEFORE), (RGB, "uint16", 1500.0, 800.0))
        normalization = models.Normalization((mean,) * len(bands), (std,) * len(bands))
        return models.ImageInput(bands, dtype, normalization, patch_size and patch_size // ratio, ratio=ratio)

    return models.NetworkSpec({name: image(name) for name in names}, num_classes, **choices)


def several_images(names, height=32, width=32, ratios=None, count=2, seed=0) -> dict[str, np.ndarray]:
    """Returns images for `several_inputs` by name."""
    random, found = np.random.default_rng(seed), {}
    for name in names:
        ratio = (ratios or {}).get(name, 1)
        bands, dtype, mean, std = KINDS.get(name.removesuffix(models.BEFORE), (RGB, "uint16", 1500.0, 500.0))
        size = (count, -(-height // ratio), -(-width // ratio), len(bands))
        found[name] = np.maximum(random.normal(mean, std, size), 1 if dtype == "uint16" else -np.inf).astype(dtype)
    return found


def reduced_info(name: str, **arguments: object) -> ModelInfo:
    """Returns the entry of the registry with the arguments of the reduced network; further ones replace those."""
    info = models.MODELS[name]
    return dataclasses.replace(info, arguments={**info.arguments, **REDUCED[name], **arguments})


def reduced(name: str, spec: models.NetworkSpec | None = None, **choices) -> keras.Model:
    """Returns the reduced network with random weights, in which no residual block is the identity.

    Args:
        name: a key of `REDUCED`.
        spec: the specification; None takes that of `network_spec`, with seed 3.
        **choices: attributes of that specification.
    """
    return reduced_info(name)(name, spec or network_spec(**{"seed": 3, "zero_last_gamma": False} | choices))


def reduced_fusion(fusion: str, dates: str | None, **choices) -> keras.Model:
    """Returns the reduced DeepLabv3+ of two stages for `FUSED_INPUTS`; choices are attributes of the specification."""
    choices = {"seed": 3, "zero_last_gamma": False, "output_stride": 8, "ratios": FUSED_RATIOS} | choices
    spec = several_inputs(choices.pop("names", FUSED_INPUTS), fusion=fusion, dates=dates, **choices)
    return reduced_info("deeplab_resnet50", blocks=(1, 1))("deeplab_resnet50", spec)


def fused_images() -> dict[str, np.ndarray]:
    """Returns two examples of odd size for `reduced_fusion`, of which the first lacks the radar image."""
    found = several_images(FUSED_INPUTS, 33, 41, FUSED_RATIOS)
    found["s1"][0] = np.nan
    return found


def without_weights(build, *arguments, **keywords) -> keras.Model:
    """Returns a model whose weights have shapes and no values: full-size networks in about a second."""
    with keras.StatelessScope(initialize_variables=False):
        model = build(*arguments, **keywords)
    keras.utils.clear_session(free_memory=False)
    return model


def images(count=2, height=32, width=32, bands=3, seed=0) -> np.ndarray:
    """Returns uint16 digital numbers `(count, height, width, bands)`."""
    return np.random.default_rng(seed).integers(1, 3000, (count, height, width, bands)).astype("uint16")


def compile_for_labels(model: keras.Model) -> None:
    """Compiles a model of logits with Adam; a step that makes the optimizer's variables would be traced twice."""
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))


def outputs_of(model: keras.Model, image: np.ndarray) -> list[np.ndarray]:
    """Returns the outputs of inference."""
    return [np.asarray(output) for output in keras.tree.flatten(model(image, training=False))]


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the weights by path."""
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}


def check_network(name: str, folder) -> None:
    """Checks a reduced network of the registry: every promise that all architectures make.

    Three builds: in float32 with synchronized batch normalization and dropout, in mixed bfloat16 with the
    architecture's own dropout and the same seed, in float64 with another seed.

    Args:
        name: a key of `REDUCED`.
        folder: where models are saved.
    """
    before = keras.config.dtype_policy().name
    synchronized = keras.config.backend() == "tensorflow"
    model = reduced(name, dropout=0.25, synchronized=synchronized)
    half = reduced(name, dtype_policy="mixed_bfloat16")
    double = reduced(name, dtype_policy="float64", seed=4)
    assert keras.config.dtype_policy().name == before
    _check_layers(model, "float32", "float32", synchronized)
    _check_layers(half, "float32", "bfloat16", False)
    _check_layers(double, "float64", "float64", False)
    assert _rates(model) == dict.fromkeys(RATES.get(name, {"dropout": 0.25}), 0.25)
    assert _rates(half) == _rates(double) == RATES.get(name, {})
    _check_seeds(model, half, double)
    dense = models.MODELS[name].task == "segmentation"
    _check_inference_model(model, _check_outputs(model, "float32", dense), 1e-6, folder / "inference.keras")
    _check_inference_model(half, _check_outputs(half, "float32", dense), 0.05, None)
    _check_outputs(double, "float64", dense)
    _check_saved(model, dense, folder / f"{name}.keras")
    _check_what_learns(model)


def _rates(model):
    return {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}


def _of_type(model, *kinds):
    return [layer for layer in model.layers if isinstance(layer, kinds)]


def _check_layers(model, exact, compute, synchronized):
    """Checks precisions, biases and batch normalization."""
    scores = [one for one in _of_type(model, keras.layers.Conv2D) if one.name in ("logits", "decoder_scores")]
    scores += _of_type(model, keras.layers.Dense)
    heads = [*scores, *map(model.get_layer, ("normalisation", "logits", "probabilities"))]
    assert scores and {layer.compute_dtype for layer in heads} == {exact}
    convolutions = [layer for layer in _of_type(model, keras.layers.Conv2D) if layer not in scores]
    convolutions += [layer for layer in _of_type(model, keras.layers.DepthwiseConv2D) if layer not in convolutions]
    between = _of_type(model, MaxPoolingWithIndices, MaxUnpooling)
    between += [layer for layer in model.layers if layer.name == "decoder_resize"]
    assert {layer.compute_dtype for layer in (*convolutions, *between)} == {compute}
    assert not any(layer.use_bias for layer in convolutions)
    norms = _of_type(model, keras.layers.BatchNormalization)
    assert len(norms) == len(convolutions) and {layer.synchronized for layer in norms} == {synchronized}
    assert model.get_layer("normalisation").bands == RGB


def _check_seeds(model, same, other):
    """Checks that a weight depends on the seed and the layer's name alone, not on precision or dropout."""
    first, second, third = map(weights_of, (model, same, other))
    assert set(first) == set(second) == set(third)
    for path, value in first.items():
        np.testing.assert_array_equal(value, second[path], err_msg=path)
    kernels = [path for path in first if path.endswith("kernel")]
    assert not any(np.array_equal(first[path], third[path]) for path in kernels)
    assert len({first[path].tobytes() for path in kernels}) == len(kernels)


def _check_outputs(model, exact, dense):
    """Checks names, shapes and dtypes of the outputs; returns the probabilities of `images()`."""
    assert model.output_names[0] == "probabilities" and model.input.name == "image"
    assert keras.backend.standardize_dtype(model.input.dtype) == "uint16"
    inside = keras.Model(model.input, [model.outputs, models.logits_model(model).outputs])
    found, logits = ([np.asarray(one) for one in group] for group in inside(images(), training=False))
    assert {one.dtype for one in found} == {np.dtype(exact)}
    assert {one.shape for one in found} == {(2, 32, 32, 4) if dense else (2, 4)}
    np.testing.assert_allclose(found[0].sum(axis=-1), 1, atol=1e-6)
    assert np.ptp(found[0]) > 1e-5
    np.testing.assert_allclose(keras.ops.softmax(logits[0]), found[0], atol=1e-6)
    for one, same in zip(found[1:], logits[1:], strict=True):
        np.testing.assert_array_equal(one, same)
    return found[0]


def _check_inference_model(model, expected, tolerance, path):
    """Checks that the inference model is plain, has weights of its own and predicts what the model does."""
    made, weights = models.inference_model(model, 32), weights_of(model)
    for weight_path, value in weights_of(made).items():
        np.testing.assert_array_equal(value, weights[weight_path])
    if path:
        made.save(path)
        made = keras.saving.load_model(path, safe_mode=True)
    (found,) = outputs_of(made, images())
    assert made.input_shape == (None, 32, 32, 3) and found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert not any(getattr(layer, "synchronized", False) for layer in made.layers)
    assert {layer.compute_dtype for layer in made.layers if layer.weights} == {expected.dtype.name}
    assert len(made.variables) == len(made.weights)  # No random state is saved.
    own = {id(weight) for weight in model.weights}
    assert not any(id(weight) in own for weight in made.weights)


def _check_saved(model, dense, path):
    """Checks that the model itself, saved, predicts the same at a size that is neither even nor square."""
    model.save(path)
    loaded = keras.saving.load_model(path, safe_mode=True)
    image = images(1, 37, 65)
    for one, other in zip(outputs_of(model, image), outputs_of(loaded, image), strict=True):
        assert one.shape == ((1, 37, 65, 4) if dense else (1, 4))
        np.testing.assert_allclose(one, other, atol=1e-6)


def _check_what_learns(model):
    """Checks gradients, depth groups and frozen layers."""
    trained = models.logits_model(model)
    paths, order = [one.path for one in trained.trainable_variables], [one.path for one in trained.weights]
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            outputs = keras.tree.flatten(trained(images(4), training=True))
            loss = tf.add_n([tf.reduce_mean(output[..., 0] ** 2) for output in outputs])
        gradients = tape.gradient(loss, trained.trainable_variables)
        without = [path for path, one in zip(paths, gradients, strict=True) if one is None or not np.abs(one).max() > 0]
        assert not without
    groups = models.depth_groups(model)
    heads = {path.split("/")[0] for path in paths if is_head(path.split("/")[0])}
    assert groups[paths[0].split("/")[0]] == 0 and {groups[layer] for layer in heads} == {max(groups.values())}
    models.set_trainable(model, only_head=True, frozen_batch_norm=False)
    assert {one.path for one in trained.trainable_variables} == {path for path in paths if path.split("/")[0] in heads}
    models.set_trainable(model, only_head=False, frozen_batch_norm=True)
    assert [one.path for one in trained.trainable_variables] == [path for path in paths if "_bn/" not in path]
    models.set_trainable(model, only_head=False, frozen_batch_norm=False)
    assert [one.path for one in trained.trainable_variables] == paths
    assert [one.path for one in trained.weights] == order
