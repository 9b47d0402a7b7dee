"""Registry of networks, with their builders and pretrained weights.

Free of Keras until a network is built, so that help texts, options and documentation can list the networks. A new
network is one file and one entry here; the help of the option `model`, the table in the documentation and the tests
of all networks follow.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from eo_keras.errors import OptionError
from eo_keras.models.pretrained.catalogue import (
    EFFICIENTNET_LITE0,
    EFFICIENTNET_LITE1,
    EFFICIENTNET_LITE2,
    INCEPTION_V3,
    RESNET50,
    RESNET101,
    VGG16,
    PretrainedWeights,
)
from eo_keras.models.pretrained.stem import check_stem
from eo_keras.models.spec import DATES, FUSIONS, LATE_FUSIONS, OUTPUT_STRIDES, NetworkSpec

if TYPE_CHECKING:
    import keras

    from eo_keras.models.pretrained.weights import InitializationReport

MIN_PATCH_SIZE = 32
"""Smallest height and width of an input, in pixels: five halvings leave one pixel."""


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """One entry of the registry.

    Attributes:
        task: name of the task that the network is for, as in the card of a records folder.
        description: one line for the user: architecture, reference, use.
        parameters: number of weights for three bands and ten classes, auxiliary classifiers left out.
        function: module of `eo_keras.models` and function that build it, as `module:function`.
        arguments: keyword arguments of that function besides the specification and the name.
        published: the ImageNet weights that Keras has for its backbone; None where it has none.
        min_patch_size: smallest height and width of an input, in pixels.
        output_strides: values of `NetworkSpec.output_stride`; empty for a network without one.
        fusions: values of `NetworkSpec.fusion`.
        dates: values of `NetworkSpec.dates`.
    """

    task: str
    description: str
    parameters: int
    function: str
    arguments: Mapping[str, object] = dataclasses.field(default_factory=dict)
    published: PretrainedWeights | None = None
    min_patch_size: int = MIN_PATCH_SIZE
    output_strides: tuple[int, ...] = ()
    fusions: tuple[str, ...] = ("early",)
    dates: tuple[str, ...] = ("stacked",)

    @property
    def imagenet(self) -> bool:
        """Whether there are ImageNet weights for it."""
        return self.published is not None

    @property
    def builder(self) -> Callable[..., keras.Model]:
        """Function that builds the network; loads Keras."""
        return pkgutil.resolve_name(f"eo_keras.models.{self.function}")

    def __call__(self, name: str, spec: NetworkSpec) -> keras.Model:
        """Builds the network with random weights; `build` loads pretrained ones too."""
        return self.builder(spec, **self.arguments, name=name)


def _classifier(description: str, parameters: int, function: str, published=None, **arguments: object) -> ModelInfo:
    return ModelInfo("classification", description, parameters, f"backbones.{function}", arguments, published)


def _deeplab(description: str, parameters: int, backbone: str, published=None, **arguments: object) -> ModelInfo:
    return ModelInfo(
        "segmentation",
        description,
        parameters,
        "segmentation.deeplab:build_deeplab",
        {"backbone": backbone, **arguments},
        published,
        output_strides=OUTPUT_STRIDES,
        fusions=FUSIONS,
        dates=DATES,
    )


def _segnet(description: str, parameters: int, published=None, **arguments: object) -> ModelInfo:
    return ModelInfo(
        "segmentation",
        description,
        parameters,
        "segmentation.segnet:build_segnet",
        arguments,
        published,
        fusions=("early", *LATE_FUSIONS, "vfusenet"),
    )


def _unet(description: str, parameters: int, **arguments: object) -> ModelInfo:
    return ModelInfo(
        "segmentation",
        description,
        parameters,
        "segmentation.unet:build_unet",
        arguments,
        fusions=("early", *LATE_FUSIONS),
    )


_RESNET, _XCEPTION = "resnet:build_resnet", "xception:build_xception"
_LITE = "efficientnet_lite:build_efficientnet_lite"

MODELS: dict[str, ModelInfo] = {
    "resnet50": _classifier("ResNet-50 (He et al. 2015)", 23_581_642, _RESNET, RESNET50, blocks=(3, 4, 6, 3), width=64),
    "resnet101": _classifier(
        "ResNet-101 (He et al. 2015)", 42_625_994, _RESNET, RESNET101, blocks=(3, 4, 23, 3), width=64
    ),
    "resnet50_torch": _classifier(
        "ResNet-50 as torchvision and timm have it, for their checkpoints",
        23_581_642,
        _RESNET,
        blocks=(3, 4, 6, 3),
        width=64,
        torch=True,
    ),
    "inception_v3": _classifier(
        "Inception-v3 (Szegedy et al. 2015), padded for small patches",
        21_823_274,
        "inception_v3:build_inception_v3",
        INCEPTION_V3,
    ),
    "googlenet": _classifier(
        "GoogLeNet (Szegedy et al. 2014) with batch normalization and two auxiliary classifiers in training",
        6_005_642,
        "googlenet:build_googlenet",
    ),
    "efficientnet_lite0": _classifier("EfficientNet-Lite0 (Tan & Le 2019)", 3_425_834, _LITE, EFFICIENTNET_LITE0),
    "efficientnet_lite1": _classifier("EfficientNet-Lite1", 4_202_154, _LITE, EFFICIENTNET_LITE1, width=1.0, depth=1.1),
    "efficientnet_lite2": _classifier(
        "EfficientNet-Lite2", 4_881_978, _LITE, EFFICIENTNET_LITE2, width=1.1, depth=1.2, dropout=0.3
    ),
    "resnet14": _classifier(
        "small ResNet of one block per stage at half the width, for the demo",
        2_031_082,
        _RESNET,
        blocks=(1, 1, 1, 1),
        width=32,
    ),
    "compact": _classifier(
        "residual network for patches of 64 pixels, to be trained from random weights",
        6_229_290,
        "compact:build_compact",
    ),
    "xception65": _classifier(
        "Xception-65 of DeepLabv3+ (Chen et al. 2018) as a classifier, to pretrain the backbone of deeplab_xception65",
        38_073_002,
        _XCEPTION,
    ),
    "deeplab_resnet50": _deeplab(
        "DeepLabv3+ (Chen et al. 2018) on ResNet-50", 26_764_026, "resnet", RESNET50, blocks=(3, 4, 6, 3), width=64
    ),
    "deeplab_resnet101": _deeplab(
        "DeepLabv3+ (Chen et al. 2018) on ResNet-101", 45_808_378, "resnet", RESNET101, blocks=(3, 4, 23, 3), width=64
    ),
    "deeplab_efficientnet_lite0": _deeplab(
        "DeepLabv3+ on EfficientNet-Lite0, of 128 channels, for processors",
        3_347_098,
        "efficientnet_lite",
        EFFICIENTNET_LITE0,
        depth=128,
    ),
    "deeplab_resnet14": _deeplab(
        "small DeepLabv3+ on resnet14, for processors and the demo",
        2_426_498,
        "resnet",
        blocks=(1, 1, 1, 1),
        width=32,
        depth=64,
        low_depth=24,
    ),
    "deeplab_xception65": _deeplab("DeepLabv3+ on its Xception-65 (Chen et al. 2018)", 41_255_386, "xception"),
    "deeplab_xception_small": _deeplab(
        "small DeepLabv3+ on an Xception of a quarter of the width with four middle blocks, for processors",
        1_451_754,
        "xception",
        middle=4,
        width=0.25,
        depth=64,
        low_depth=24,
    ),
    "segnet": _segnet("SegNet (Badrinarayanan et al. 2017) on VGG-16 with batch normalization", 29_488_714, VGG16),
    "segnet_small": _segnet(
        "SegNet of a quarter of the width, for processors",
        1_849_498,
        blocks=((2, 16), (2, 32), (3, 64), (3, 128), (3, 128)),
    ),
    "unet": _unet("U-Net (Ronneberger et al. 2015) with batch normalization", 31_052_874),
    "unet_small": _unet(
        "U-Net of a quarter of the width, for processors and as the generator of a stand-in",
        1_946_394,
        widths=(16, 32, 64, 128, 256),
    ),
}
"""Networks by name. `resnet14` has the depth of timm's ResNet-14t."""


def list_models(task: str | None = None) -> list[str]:
    """Returns the names of the networks in the order of the registry.

    Args:
        task: name of a task; None lists the networks of all tasks.
    """
    return [name for name, info in MODELS.items() if task in (None, info.task)]


def describe() -> str:
    """Returns the networks by task and those with ImageNet weights, as a help text of one paragraph."""
    tasks = dict.fromkeys(info.task for info in MODELS.values())
    listed = [f"{task}: {', '.join(list_models(task))}" for task in tasks]
    return f"{'; '.join(listed)}. ImageNet weights: {', '.join(_with_imagenet())}."


def markdown_table() -> str:
    """Returns the networks as a table of Markdown with a row each, for the documentation."""
    rows = [("`model`", "task", "parameters", "ImageNet weights", "architecture"), ("---",) * 5]
    for name, info in MODELS.items():
        weights = "yes" if info.imagenet else "no"
        rows.append((f"`{name}`", info.task, f"{info.parameters / 1e6:.1f} million", weights, info.description))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def find(name: str) -> ModelInfo:
    """Returns the entry of a network.

    Raises:
        OptionError: if there is no network of that name.
    """
    if name not in MODELS:
        raise OptionError("model", f"'{name}'", f"one of {', '.join(MODELS)}")
    return MODELS[name]


def check(name: str, spec: NetworkSpec) -> None:
    """Checks that a specification fits the architecture.

    Raises:
        BandError: if the bands and the stem do not fit each other.
        OptionError: if there is no such network, or an option does not apply to it.
    """
    info = find(name)
    for image in spec.inputs.values():
        check_stem(image.bands, spec.stem)
    if spec.weights == "imagenet" and not info.imagenet:
        expected = f"one of {', '.join(_with_imagenet())}, or a file"
        raise OptionError("weights", f"there are no ImageNet weights for {name}", expected)
    if spec.input_size is not None and info.task != "classification":
        found = f"{spec.input_size} for {name}, a {info.task} network"
        raise OptionError("input_size", found, "a classification network", "leave it out")
    size = spec.input_size or spec.patch_size
    if size is not None and size < info.min_patch_size:
        raise OptionError("patch_size", f"{size} pixels", f"at least {info.min_patch_size}")
    if spec.fusion is not None and spec.fusion not in info.fusions:
        raise OptionError("fusion", f"'{spec.fusion}' for {name}", f"one of {', '.join(info.fusions)}")
    if spec.dates is not None and spec.dates not in info.dates:
        raise OptionError("dates", f"'{spec.dates}' for {name}", f"one of {', '.join(info.dates)}")
    if spec.output_stride is not None and not info.output_strides:
        having = ", ".join(one for one, other in MODELS.items() if other.output_strides)
        raise OptionError("output_stride", f"{spec.output_stride} for {name}, which has none", f"one of {having}")
    if spec.distance_classes is not None and info.task != "segmentation":
        found = f"{spec.distance_classes} for {name}, a {info.task} network"
        raise OptionError("distance_classes", found, "a segmentation network")
    if spec.reconstruction and info.task != "segmentation":
        raise OptionError("reconstruction", f"for {name}, a {info.task} network", "a segmentation network")


def build(name: str, spec: NetworkSpec) -> tuple[keras.Model, InitializationReport]:
    """Builds a network and initializes it.

    Args:
        name: a key of `MODELS`.
        spec: inputs, classes, weights to start from, and how layers compute.

    Returns:
        The model, from `image` `(batch, patch_size, patch_size, bands)`, digital numbers, or from a dictionary of
        several inputs, to `probabilities` `(batch, num_classes)`, of a segmentation network `(batch, patch_size,
        patch_size, num_classes)` in the size of the finest input, float32 (float64 under that policy), the layer before
        being `logits` of the same shape; a model with auxiliary classifiers returns a list of the probabilities and of
        their logits, `aux1_logits` and so on, one with distance classes of the probabilities and of `distance_logits`,
        one with the logits of each modality's network of these and of `<modality>_stream_logits`; one for
        reconstruction returns `reconstruction` `(batch, patch_size, patch_size, bands)`, standardized numbers.
        And which layers were loaded and which hold random weights.

    Raises:
        BandError: if bands, stem and normalization do not fit each other.
        OptionError: if an option does not apply to the network.
        SourceError: if the weights cannot be read or do not fit.
    """
    from eo_keras.models.pretrained import weights

    check(name, spec)
    info = MODELS[name]
    if spec.weights is None:
        model = info(name, spec)
        return model, weights.scratch_report(model)
    bands = {name: image.bands for name, image in spec.inputs.items()}
    normalizations = {name: image.normalization for name, image in spec.inputs.items()}
    scales = weights.input_scales(spec.weights, bands, spec.stem, info.published, normalizations)
    inputs = {name: dataclasses.replace(image, scale=scales[name]) for name, image in spec.inputs.items()}
    model = info(name, dataclasses.replace(spec, inputs=inputs))
    return model, weights.load_backbones(model, spec.weights, bands, spec.stems, spec.stem, info.published)


def _with_imagenet() -> list[str]:
    return [name for name, info in MODELS.items() if info.imagenet]
