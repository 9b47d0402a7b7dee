"""Pretrained weights: read by layer name, fitted to the model's bands, reported.

A weights file is read as numbers and nothing else: neither pickled objects nor layers, functions or classes named in it
are ever brought to life, which is stricter than Keras's safe mode.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Sequence

import h5py
import keras
import numpy as np

from eo_keras.errors import SourceError
from eo_keras.models.stems import COLOURS, IMAGENET_STD, StemBand, assign_sources, inflate_stem

STEM = "conv1_conv"
"""The layer that eats the bands."""

MAX_ARRAY_BYTES = 1 << 30
"""No layer of ours comes near; a file that declares more would only exhaust the memory."""

_FORMS = "weights of keras.applications (.h5, .weights.h5, .keras) or a .keras model of this package"


@dataclasses.dataclass(frozen=True)
class InitialisationReport:
    """Where a model's weights come from.

    Attributes:
        source: `imagenet`, a file, or `random`.
        loaded: names of the layers that hold the source's weights.
        inflated: names of the layers whose kernel was made out of the source's for other bands.
        initialised: names of the layers that hold random weights.
        stem: which input channel of the source each band takes; empty for random weights.
    """

    source: str
    loaded: tuple[str, ...] = ()
    inflated: tuple[str, ...] = ()
    initialised: tuple[str, ...] = ()
    stem: tuple[StemBand, ...] = ()

    def summary(self) -> str:
        """Returns one sentence for the user."""
        if not (self.loaded or self.inflated):
            return f"All {len(self.initialised)} layers start from random weights."
        parts = [f"{len(self.loaded)} layers loaded from {self.source}"]
        if self.inflated:
            bands = ", ".join(f"{entry.band} from {entry.source} x {entry.factor:.3g}" for entry in self.stem)
            parts.append(f"{', '.join(self.inflated)} inflated ({bands})")
        if self.initialised:
            names = ", ".join(self.initialised[:5]) + (", ..." if len(self.initialised) > 5 else "")
            parts.append(f"{len(self.initialised)} layers start from random weights ({names})")
        return "; ".join(parts) + "."


@dataclasses.dataclass(frozen=True)
class _Source:
    """Weights of one model: arrays by layer name in Keras's order, and what its stem eats."""

    layers: dict[str, list[np.ndarray]]
    bands: tuple[str, ...]
    stem_is_bgr: bool


def scratch_report(model: keras.Model) -> InitialisationReport:
    """Returns the report of a model with random weights."""
    return InitialisationReport("random", initialised=tuple(layer.name for layer in model.layers if layer.weights))


def input_scale(weights: str | os.PathLike | None, bands: Sequence[str], stem: str) -> tuple[float, ...]:
    """Returns what one standard deviation of each band has to become, so that the stem sees what it was trained with.

    1 for random weights. `keras.applications` feeds ResNet v1 with colours of 0 to 255 less their mean, not divided by
    anything, so for its weights the spread of the colour in ImageNet whose kernel the band takes. For a model of this
    package what its own normalisation layer says of the band whose kernel is taken.

    Raises:
        BandError: if the bands do not fit the stem.
        SourceError: if the file cannot be read.
    """
    if weights is None:
        return (1.0,) * len(bands)
    sources, scale = COLOURS, IMAGENET_STD
    if weights != "imagenet":
        saved = _saved_normalisation(_checked_path(weights))
        if saved is not None:
            sources, scale = saved
    return tuple(scale[sources.index(entry.source)] for entry in assign_sources(bands, stem, sources))


def load_backbone(
    model: keras.Model, weights: str | os.PathLike, bands: Sequence[str], stem: str = "by_name"
) -> InitialisationReport:
    """Loads pretrained weights into a model, layer by layer, where name and shape agree.

    A convolution's bias is folded into the batch normalisation behind it, which is exact: it normalises
    `x + bias - mean`. The kernel of the stem is fitted to the bands by `inflate_stem`; kernels of `keras.applications`
    eat blue, green, red. The normalisation layer is not touched: build the model with `input_scale`.

    Args:
        model: a model of this package.
        weights: `imagenet` (fetched by Keras, `keras.applications.ResNet50`) or a file: weights of
            `keras.applications` with or without its top, or a `.keras` model of this package or of
            `keras.applications`.
        bands: the model's bands in channel order.
        stem: `by_name` or `by_position`, see `eo_keras.models.stems`.

    Returns:
        Which layers were loaded, inflated or left as they are.

    Raises:
        BandError: if the bands do not fit the stem.
        SourceError: if the weights cannot be fetched or read, or no layer fits.
    """
    source = _imagenet() if weights == "imagenet" else _read(_checked_path(weights))
    plan: tuple[StemBand, ...] = ()
    loaded, inflated, initialised = [], [], []
    for layer in model.layers:
        if not layer.weights:
            continue
        arrays = source.layers.get(layer.name)
        if arrays is not None and layer.name == STEM:
            arrays, plan = _fitted_stem(arrays, source, bands, stem, str(weights))
        if arrays is not None and layer.name.endswith("_bn"):
            bias = _bias(source.layers.get(layer.name.removesuffix("_bn") + "_conv"))
            if bias is not None and len(arrays) == 4 and bias.shape == arrays[2].shape:
                gamma, beta, moving_mean, moving_variance = arrays
                arrays = [gamma, beta, moving_mean - bias, moving_variance]
        if arrays is not None and isinstance(layer, keras.layers.Conv2D) and not layer.use_bias:
            arrays = arrays[:1]
        if arrays is None or [array.shape for array in arrays] != [tuple(weight.shape) for weight in layer.weights]:
            initialised.append(layer.name)
            continue
        if not all(np.isfinite(array).all() for array in arrays):
            raise SourceError(weights, f"layer '{layer.name}' holds values that are not finite", "finite weights")
        layer.set_weights(arrays)
        own_kernels = layer.name != STEM or tuple(entry.source for entry in plan) == tuple(bands)
        (loaded if own_kernels else inflated).append(layer.name)
    if not (loaded or inflated):
        raise SourceError(
            weights,
            f"none of its {len(source.layers)} layers has the name and shape of one of model '{model.name}'",
            "weights of the same architecture",
            "choose the model that they were trained with, or other weights",
        )
    return InitialisationReport(str(weights), tuple(loaded), tuple(inflated), tuple(initialised), plan)


def _fitted_stem(arrays, source: _Source, bands, stem: str, where: str):
    kernel = arrays[0]
    if kernel.ndim != 4 or kernel.shape[2] != len(source.bands):
        raise SourceError(
            where,
            f"its first convolution '{STEM}' has a kernel of shape {kernel.shape}",
            f"{len(source.bands)} input channels",
            f"give {_FORMS}",
        )
    if source.stem_is_bgr:
        kernel = kernel[:, :, ::-1]
    kernel, plan = inflate_stem(kernel, bands, stem, source.bands)
    return [kernel, *arrays[1:]], plan


def _bias(arrays: list[np.ndarray] | None) -> np.ndarray | None:
    return arrays[1] if arrays is not None and len(arrays) == 2 else None


def _imagenet() -> _Source:
    try:
        model = keras.applications.ResNet50(weights="imagenet", include_top=False)
    except Exception as error:  # Keras raises a bare Exception when the download fails.
        raise SourceError(
            "weights 'imagenet'",
            f"Keras could not fetch them ({error})",
            "the file of keras.applications.ResNet50",
            "where there is no network, fetch the file elsewhere and give it with --weights=FILE",
        ) from error
    layers = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    return _Source(layers, COLOURS, stem_is_bgr=True)


def _checked_path(weights: str | os.PathLike) -> str:
    path = os.fspath(weights)
    if not os.path.isfile(path):
        found = "it is a folder" if os.path.isdir(path) else "there is no such file"
        raise SourceError(path, found, f"'imagenet' or a file: {_FORMS}")
    if not (zipfile.is_zipfile(path) or h5py.is_hdf5(path)):
        raise SourceError(
            path, "neither HDF5 nor a .keras archive", _FORMS, "it may be damaged: fetch or save it again"
        )
    return path


def _read(path: str) -> _Source:
    try:
        content: str | io.BytesIO = path
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content, "r") as file:
            layers = _layers_of(file, path)
    except (OSError, KeyError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(
            path, f"its weights cannot be read ({error})", _FORMS, "it may be damaged: fetch or save it again"
        ) from error
    if not layers:
        raise SourceError(path, "no named layers in it", _FORMS, "save it again with Keras 3.15 or later")
    saved = _saved_normalisation(path)
    if saved is not None:
        return _Source(layers, saved[0], stem_is_bgr=False)
    if STEM in layers and _bias(layers[STEM]) is None:
        raise SourceError(
            path,
            f"its first convolution '{STEM}' has no bias, so it is none of keras.applications, and no bands are named",
            _FORMS,
            "give the .keras file of the run, which names its bands",
        )
    return _Source(layers, COLOURS, stem_is_bgr=True)


def _layers_of(file: h5py.File, path: str) -> dict[str, list[np.ndarray]]:
    """Returns the arrays of each named layer in Keras's order, from Keras 3's form or the older one."""
    datasets: dict[str, h5py.Dataset] = {}
    named: dict[str, str] = {}

    def visit(place, item):  # Follows no soft or external links, so that a file cannot point at another one.
        if isinstance(item, h5py.Dataset):
            datasets[place] = item
        elif place.rpartition("/")[2] == "vars" and "name" in item.attrs and not place.startswith("optimizer"):
            named[place] = _text(item.attrs["name"])

    file.visititems(visit)
    root, prefix = (file["model_weights"], "model_weights/") if "model_weights" in file else (file, "")
    layers: dict[str, list[np.ndarray]] = {}
    for layer_name in _listed(root.attrs, "layer_names"):
        layer = file[f"{prefix}{layer_name}"]
        layers[layer_name] = [
            _array(datasets[f"{prefix}{layer_name}/{weight}"], path) for weight in _listed(layer.attrs, "weight_names")
        ]
    for place, layer_name in named.items():
        variables = sorted((key for key in file[place] if key.isdigit()), key=int)
        layers[layer_name] = [_array(datasets[f"{place}/{key}"], path) for key in variables]
    return {name: arrays for name, arrays in layers.items() if arrays}


def _array(dataset: h5py.Dataset, path: str) -> np.ndarray:
    if dataset.is_virtual or dataset.external or dataset.nbytes > MAX_ARRAY_BYTES or dataset.dtype.kind not in "fiu":
        raise SourceError(path, f"'{dataset.name}' is no plain array of numbers of below 1 GiB", _FORMS)
    return dataset[()]


def _listed(attributes, name: str) -> list[str]:
    """Returns a list of names; long ones are stored in numbered pieces, as an HDF5 attribute holds 64 KiB."""
    if name in attributes:
        return [_text(value) for value in attributes[name]]
    pieces, number = [], 0
    while f"{name}{number}" in attributes:
        pieces += [_text(value) for value in attributes[f"{name}{number}"]]
        number += 1
    return pieces


def _text(value) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _saved_normalisation(path: str) -> tuple[tuple[str, ...], tuple[float, ...]] | None:
    """Returns bands and scale of the normalisation layer in a `.keras` file; None where there is none."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            layers = json.loads(archive.read("config.json"))["config"].get("layers", [])
        configs = [layer["config"] for layer in layers if layer["registered_name"] == "eo_keras>BandNormalisation"]
        if not configs:
            return None
        bands, scale = configs[0]["bands"], configs[0]["scale"]
    except (OSError, KeyError, TypeError, AttributeError, ValueError, zipfile.BadZipFile) as error:
        raise SourceError(path, f"its configuration cannot be read ({error!r})", _FORMS, "save it again") from error
    if not bands or len(bands) != len(scale):
        raise SourceError(path, "its normalisation layer does not name its bands", "bands by name", "use another model")
    return tuple(bands), tuple(float(value) for value in scale)
