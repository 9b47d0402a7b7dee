"""Loss of a reconstruction of images: errors of standardized numbers, squared or absolute, as sums over devices.

As in He et al. 2022 (CVPR, arXiv 2111.06377, section 3) it counts where the network was not shown the numbers. Every
group of bands, which is one input, has a mean of its own, and the loss is the mean of these: an input of many bands, or
one that is seldom missing, weighs no more than another. Only Keras is used here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops


def terms(targets: Any, outputs: Any, groups: Sequence[int], *, absolute: bool = False) -> dict[str, Any]:
    """Returns sums over this device's pixels; they are added to those of other devices.

    Args:
        targets: standardized numbers (batch, height, width, bands), float; NaN where nothing is to be predicted.
        outputs: predicted numbers, likewise, float32 or float64.
        groups: number of bands of each input, in their order.
        absolute: whether errors count as they are and not squared; images are then sharper (Isola et al. 2017, arXiv
            1611.07004, section 3.1).

    Returns:
        `errors` and `numbers` (groups,), of the outputs' dtype: sums of squared or absolute errors, and of how many
        numbers.
    """
    targets = ops.cast(targets, outputs.dtype)
    counted = ops.isfinite(targets)
    # Chosen before the difference, or its gradient would be NaN.
    errors = outputs - ops.where(counted, targets, outputs)
    axes = tuple(range(len(outputs.shape) - 1))
    by_band = {
        "errors": ops.sum(ops.abs(errors) if absolute else ops.square(errors), axis=axes),
        "numbers": ops.sum(ops.cast(counted, outputs.dtype), axis=axes),
    }
    ends = [sum(groups[: place + 1]) for place in range(len(groups))]
    return {
        name: ops.stack([ops.sum(sums[end - count : end]) for end, count in zip(ends, groups, strict=True)])
        for name, sums in by_band.items()
    }


def combine(sums: Mapping[str, Any]) -> Any:
    """Returns the mean, over the groups with numbers to predict, of their mean errors; 0 where there is none.

    Args:
        sums: of `terms`, over all devices.
    """
    there = ops.cast(sums["numbers"] > 0, sums["numbers"].dtype)
    means = sums["errors"] / ops.maximum(sums["numbers"], 1.0)
    return ops.sum(means) / ops.maximum(ops.sum(there), 1.0)
