"""Networks by name, from digital numbers to probabilities over the legend, for the image or for each pixel.

`build(name, NetworkSpec(...))` makes a network of the registry, `list_models` lists them. `logits_model` and
`inference_model` derive the models that are trained and saved. Only Keras and NumPy are used here, so that the same
model also runs under `KERAS_BACKEND=jax` without TensorFlow.

`import eo_keras.models` is all that `keras.saving.load_model` needs to open a saved model of this package. It does not
load Keras itself, because command lines and options read the registry: names are loaded at their first use, and the
layers are registered with Keras as soon as Keras is loaded, before or after.
"""

from __future__ import annotations

import importlib

import wrapt

_MODULES = {
    "registry": ("MIN_PATCH_SIZE", "MODELS", "ModelInfo", "build", "describe", "list_models", "markdown_table"),
    "spec": (
        "BEFORE",
        "DATES",
        "DISTANCE_HEADS",
        "FUSIONS",
        "IMAGE",
        "INPUT_DTYPES",
        "LATE_FUSIONS",
        "OUTPUT_STRIDES",
        "POLICIES",
        "ImageInput",
        "NetworkSpec",
        "Normalization",
    ),
    "dilation": ("output_stride_of",),
    "fusion.stand_in": ("PredictedImage", "with_stand_in"),
    "flops": ("count_macs",),
    "graph": ("fewest_values", "normalizations"),
    "inference": ("copy_weights", "inference_model", "logits_model", "seed_states", "with_temperature"),
    "layer_groups": ("depth_groups", "depthwise_kernels", "normalized_kernels", "set_trainable"),
    "layers.normalization": ("BandNormalization",),
    "pretrained.stem": ("STEM_MODES", "check_stem"),
    "pretrained.weights": ("InitializationReport", "load_backbone"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str):
    """Loads a public name at its first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


wrapt.register_post_import_hook(lambda _: importlib.import_module(f"{__name__}.layers"), "keras")
