"""Names of PyTorch's networks as those of this package, and their tensors as arrays of Keras's layers.

Known are ResNets as torchvision and timm name them, also where a network was taken apart into a sequence of its parts
(SeCo), and EfficientNets as timm and as the first port of them to PyTorch name them. What stands before these names,
such as `state_dict.module.encoder_q.`, is found by the stem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from eo_keras.models.layers.factory import LOGITS

_PREFERRED = ("encoder_q.", "teacher.", "backbone.", "")
"""Parts of the names of the network that is taken, where a checkpoint has several: of contrastive learning the one that
was trained by gradients, of DINO the teacher, which is the one that its authors evaluate."""

_PARTS = ("expand", "depthwise", "project")
"""Convolutions of an EfficientNet's block, in order."""

_STEMS = {
    "conv1": "layer1.0.conv1",
    "0": "4.0.conv1",
    "conv_stem": "blocks.0.0.conv_dw",
    "_conv_stem": "_blocks.0._depthwise_conv",
}
"""Names of the layer that takes the bands, and of the next one, which tell a network."""

_SEQUENCE = {"0": "conv1", "1": "bn1", **{f"{place + 3}": f"layer{place}" for place in range(1, 5)}}
"""Names of a ResNet's parts by their places in a sequence."""


def network_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Returns what stands before the names of each network in a checkpoint, and the name of its stem's kernel."""
    names, found = set(names), {}
    for stem, next_one in _STEMS.items():
        for name in names:
            prefix = name.removesuffix(f"{stem}.weight")
            if prefix != name and (not prefix or prefix.endswith(".")) and f"{prefix}{next_one}.weight" in names:
                found[prefix] = name
    return found


def choose_prefix(prefixes: Iterable[str]) -> str:
    """Returns the prefix of the network that is taken."""

    def rank(prefix: str) -> tuple[int, int, str]:
        return next(place for place, part in enumerate(_PREFERRED) if part in prefix), len(prefix), prefix

    return min(prefixes, key=rank)


def layers_of(tensors: Mapping[str, np.ndarray], prefix: str, blocks: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """Returns the arrays of each layer in Keras's order and layout, by the names of this package.

    Args:
        tensors: arrays by name.
        prefix: what stands before the names of the network.
        blocks: prefixes of the model's blocks in order, such as `conv2_block1`, by which blocks are known that have a
            running number alone.

    Returns:
        Kernels `(height, width, inputs, outputs)`, of depthwise convolutions `(height, width, channels, 1)`, of dense
        layers `(inputs, outputs)`; and of batch normalization gamma, beta, mean and variance. Layers with other names
        are left out.
    """
    modules: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            module, _, part = name.removeprefix(prefix).rpartition(".")
            modules.setdefault(module, {})[part] = tensor
    found = {}
    for module, parts in modules.items():
        layer_name, arrays = _layer_name(module, blocks), _arrays_of(parts)
        if layer_name is None or arrays is None:
            continue
        if layer_name.endswith("depthwise_conv"):
            arrays[0] = arrays[0].transpose(0, 1, 3, 2)
        found[layer_name] = arrays
    return found


def _arrays_of(parts: Mapping[str, np.ndarray]) -> list[np.ndarray] | None:
    weight = parts.get("weight")
    if weight is None:
        return None
    if weight.ndim == 1:
        names = ("weight", "bias", "running_mean", "running_var")
        return [parts[name] for name in names] if all(name in parts for name in names) else None
    if weight.ndim not in (2, 4):
        return None
    kernel = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
    return [kernel, *([parts["bias"]] if "bias" in parts else [])]


def _layer_name(module: str, blocks: Sequence[str]) -> str | None:
    """Returns the name of a layer in this package; None where it has none."""
    first, dot, rest = module.partition(".")
    module = _SEQUENCE.get(first, first) + dot + rest
    for pattern, make in _RULES:
        if match := re.fullmatch(pattern, module):
            return make(blocks, *match.groups())
    return None


def _is(name: str) -> Callable[..., str]:
    return lambda blocks: name


def _of_running_block(kind: str) -> Callable[..., str | None]:
    def make(blocks: Sequence[str], number: str) -> str | None:
        return f"{blocks[int(number)]}_{kind}" if int(number) < len(blocks) else None

    return make


def _of_block(kind: str) -> Callable[..., str]:
    return lambda blocks, stage, number: f"conv{int(stage) + 2}_block{int(number) + 1}_{kind}"


def _of_resnet(blocks: Sequence[str], stage: str, number: str, kind: str, place: str) -> str:
    return f"conv{int(stage) + 1}_block{int(number) + 1}_{place}_{kind}"


def _shortcut(blocks: Sequence[str], stage: str, number: str, place: str) -> str:
    return f"conv{int(stage) + 1}_block{int(number) + 1}_0_{('conv', 'bn')[int(place)]}"


_RULES: tuple[tuple[str, Callable[..., str | None]], ...] = (
    # ResNet.
    (r"conv1", _is("conv1_conv")),
    (r"layer(\d)\.(\d+)\.(conv|bn)(\d)", _of_resnet),
    (r"layer(\d)\.(\d+)\.downsample\.([01])", _shortcut),
    (r"fc|classifier|_fc", _is(LOGITS)),
    # EfficientNet, with running numbers of the blocks.
    (r"_conv_stem|conv_stem", _is("conv1_conv")),
    (r"_bn0", _is("conv1_bn")),
    (r"_conv_head|conv_head", _is("head_conv")),
    (r"_bn1", _is("head_bn")),
    *((rf"_blocks\.(\d+)\._{kind}_conv", _of_running_block(f"{kind}_conv")) for kind in _PARTS),
    *((rf"_blocks\.(\d+)\._bn{place}", _of_running_block(f"{kind}_bn")) for place, kind in enumerate(_PARTS)),
    # EfficientNet, with stages; its first one has no expansion.
    (r"blocks\.(0)\.(\d+)\.conv_dw", _of_block("depthwise_conv")),
    (r"blocks\.(0)\.(\d+)\.bn1", _of_block("depthwise_bn")),
    (r"blocks\.(0)\.(\d+)\.conv_pw", _of_block("project_conv")),
    (r"blocks\.(0)\.(\d+)\.bn2", _of_block("project_bn")),
    (r"blocks\.(\d+)\.(\d+)\.conv_pw", _of_block("expand_conv")),
    (r"blocks\.(\d+)\.(\d+)\.conv_dw", _of_block("depthwise_conv")),
    (r"blocks\.(\d+)\.(\d+)\.conv_pwl", _of_block("project_conv")),
    *((rf"blocks\.(\d+)\.(\d+)\.bn{place}", _of_block(f"{kind}_bn")) for place, kind in enumerate(_PARTS, 1)),
    # ResNet's batch normalization after the stem, and timm's of an EfficientNet.
    (r"bn1", _is("conv1_bn")),
    (r"bn2", _is("head_bn")),
)
"""Patterns of the names of modules, the first of which counts, and functions that return the names of layers."""
