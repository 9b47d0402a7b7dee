"""ResNet v1 with bottleneck blocks (He et al. 2015, arXiv 1512.03385, section 4.1 and table 1).

Layer names, layer order, the epsilon of batch normalization and the stride on a block's first 1x1 convolution are those
of `keras.applications.ResNet50` and `ResNet101`, so that their weights are matched by name. As a backbone of
segmentation networks it keeps all that, with dilation rates in place of its last strides.

PyTorch's ResNets (torchvision and timm, "v1.5") have the stride on the 3x3 convolution, padded alike on both sides, and
an epsilon of 1e-5: that is a variant here, for checkpoints of theirs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import keras

from eo_keras.models.backbones.stages import StageBuilder, run_stages
from eo_keras.models.dilation import plan_stages
from eo_keras.models.layers.factory import LayerFactory
from eo_keras.models.spec import NetworkSpec

BATCH_NORM_EPSILON = 1.001e-5
"""Epsilon of batch normalization in `keras.applications`, which its weights need."""

TORCH_EPSILON = 1e-5
"""Epsilon of batch normalization in PyTorch."""

EXPANSION = 4
"""Ratio of a bottleneck block's output channels to those of its 3x3 convolution."""


def build_resnet(
    spec: NetworkSpec,
    *,
    blocks: Sequence[int] = (3, 4, 6, 3),
    width: int = 64,
    torch: bool = False,
    name: str = "resnet",
) -> keras.Model:
    """Builds a ResNet v1 of bottleneck blocks with random weights.

    Args:
        spec: inputs, classes and how layers compute; without dropout of its own, as in the paper.
        blocks: number of blocks in each stage; the first stage keeps the resolution, each other one halves it.
        width: channels of the stem and of the first stage's 3x3 convolutions; doubled at each stage.
        torch: whether strides and epsilon are those of PyTorch's ResNets.
        name: name of the model.

    Returns:
        A model from `image` `(batch, patch_size, patch_size, bands)`, digital numbers, to `probabilities`
        `(batch, num_classes)`, float32 (float64 under that policy); the layer before is `logits`, of the same dtype.

    Raises:
        OptionError: if the specification has synchronized batch normalization under another backend than TensorFlow.
    """
    factory = LayerFactory(spec)
    image, x = factory.image()
    _, x = run_stages(resnet_stages(factory, blocks=blocks, width=width, torch=torch), x)
    return factory.classifier(image, x, name)


def resnet_stages(
    factory: LayerFactory,
    output_stride: int | None = None,
    *,
    blocks: Sequence[int] = (3, 4, 6, 3),
    width: int = 64,
    torch: bool = False,
) -> list[StageBuilder]:
    """Returns the functions that add the stem and each stage; the epsilon of batch normalization is the ResNet's own.

    The low-level features are the last feature map of the first stage, at a quarter of the resolution ("Conv2 before
    striding", arXiv 1802.02611, section 4.1).

    Args:
        factory: makes the layers.
        output_stride: stride from which on strides become dilation rates; None keeps all strides. The paper's
            multi-grid (Chen et al. 2017, arXiv 1706.05587, section 3.2) is left out: pretrained weights would give
            other outputs.
        blocks: as in `build_resnet`.
        width: likewise.
        torch: likewise.
    """
    factory = dataclasses.replace(factory, batch_norm_epsilon=TORCH_EPSILON if torch else BATCH_NORM_EPSILON)

    def block(x, filters, plan, project, prefix):
        shortcut = x
        # Of the stage's first convolution, so that the 3x3 one has the next rate; in PyTorch of the latter.
        strides = plan.stride if project else 1
        if project:
            shortcut = factory.convolution(x, EXPANSION * filters, 1, f"{prefix}_0_conv", strides)
            shortcut = factory.batch_norm(shortcut, f"{prefix}_0_bn")
        x = factory.convolution(x, filters, 1, f"{prefix}_1_conv", 1 if torch else strides)
        x = factory.relu(factory.batch_norm(x, f"{prefix}_1_bn"), f"{prefix}_1_relu")
        if torch and project:
            x = factory.zero_pad(x, plan.rate, f"{prefix}_2_pad")
            x = factory.convolution(x, filters, 3, f"{prefix}_2_conv", strides, rate=plan.rate)
        else:
            x = factory.convolution(x, filters, 3, f"{prefix}_2_conv", padding="same", rate=plan.next_rate)
        x = factory.relu(factory.batch_norm(x, f"{prefix}_2_bn"), f"{prefix}_2_relu")
        x = factory.convolution(x, EXPANSION * filters, 1, f"{prefix}_3_conv")
        x = factory.batch_norm(x, f"{prefix}_3_bn", gamma=factory.last_gamma)
        return factory.relu(factory.add([shortcut, x], f"{prefix}_add"), f"{prefix}_out")

    def stem(x):
        x = factory.convolution(factory.zero_pad(x, 3, "conv1_pad"), width, 7, "conv1_conv", strides=2)
        x = factory.relu(factory.batch_norm(x, "conv1_bn"), "conv1_relu")
        return factory.max_pool(factory.zero_pad(x, 1, "pool1_pad"), 3, "pool1_pool"), None

    def stage(place, count, plan, x):
        for number in range(1, count + 1):
            x = block(x, width * 2**place, plan, number == 1, f"conv{place + 2}_block{number}")
        return x, x if place == 0 else None

    plans = plan_stages([1] + [2] * (len(blocks) - 1), 4, output_stride)
    numbered = enumerate(zip(blocks, plans, strict=True))
    return [stem, *(functools.partial(stage, place, count, plan) for place, (count, plan) in numbered)]
