"""Losses of segmentation, as sums over pixels that are added over devices and workers before they are divided.

A mean over a device's own pixels weighs a pixel the more, the fewer others on that device are labeled, and one of two
devices without a labeled pixel halves the step. So every loss has two methods: `DenseLoss.terms` gives sums
over the pixels at hand, `DenseLoss.combine` makes the loss of the sums over all devices, and `whole_sums` lies between.
Only Keras is used here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from keras import ops

from eo_keras.errors import OptionError
from eo_keras.legends.catalogue import IGNORE
from eo_keras.losses import SEGMENTATION_LOSSES


@dataclasses.dataclass(frozen=True)
class DenseLossOptions:
    """Options of the loss over the pixels of a mask.

    Attributes:
        kind: one of `SEGMENTATION_LOSSES`. `focal`: see `pixel_losses`; `dice`: see `dice_sums`; the sum of two counts
            both alike (Isensee et al. 2021, Nature Methods 18, section "Training", with sums over the whole batch).
        class_weights: weight of a pixel of each class in the cross-entropy or the focal loss; None for 1. The mean of
            a class-weighted loss is still over the number of pixels.
        focal_gamma: exponent that reduces the weight of well classified pixels; of `focal` alone.
        label_smoothing: this share of the target is spread evenly over all classes; of cross-entropy alone.
        ignore: the value of a mask whose pixels count nothing.
    """

    kind: str = "cross_entropy"
    class_weights: tuple[float, ...] | None = None
    focal_gamma: float = 2.0
    label_smoothing: float = 0.0
    ignore: int = IGNORE

    def __post_init__(self):
        """Checks the values."""
        if self.kind not in SEGMENTATION_LOSSES:
            raise OptionError("loss", f"'{self.kind}'", f"one of {', '.join(SEGMENTATION_LOSSES)}")
        if not (math.isfinite(self.focal_gamma) and self.focal_gamma >= 0):
            raise OptionError("focal_gamma", f"{self.focal_gamma}", "0 or more")
        if not 0 <= self.label_smoothing < 1:
            raise OptionError("label_smoothing", f"{self.label_smoothing}", "a number in [0, 1)")
        if self.label_smoothing and "cross_entropy" not in self.kind:
            raise OptionError(
                "label_smoothing", f"{self.label_smoothing} with loss {self.kind}", "a loss with cross_entropy"
            )
        if self.class_weights is not None:
            self._check_class_weights(self.class_weights)

    def _check_class_weights(self, weights: tuple[float, ...]) -> None:
        found = ", ".join(f"{weight:g}" for weight in weights)
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
            raise OptionError("class_weights", found or "none", "numbers of 0 or more, one of them above 0")
        if self.kind == "dice":
            raise OptionError(
                "class_weights",
                f"{found} with loss dice",
                "a loss with cross_entropy or focal",
                "leave them out: every class counts the same in it already",
            )


class DenseLoss:
    """A loss in two parts, for a number of classes.

    Args:
        options: kind of loss and its weights.
        num_classes: number of classes C.

    Raises:
        OptionError: if the options do not fit so many classes.
    """

    def __init__(self, options: DenseLossOptions, num_classes: int):
        if 0 <= options.ignore < num_classes:
            raise OptionError("ignore", f"{options.ignore} is a class", f"no number of 0..{num_classes - 1}")
        if options.class_weights is not None and len(options.class_weights) != num_classes:
            found = f"{len(options.class_weights)} weights"
            raise OptionError("class_weights", found, f"one for each of the {num_classes} classes")
        self.options, self.num_classes = options, num_classes

    def terms(self, labels: Any, logits: Any) -> dict[str, Any]:
        """Returns sums over this device's pixels; they are added to those of other devices.

        Args:
            labels: integers (batch, height, width), or of any shape; `ignore` where the class is unknown.
            logits: float32 or float64 (batch, height, width, C): the labels' shape and the classes.

        Returns:
            Scalars and vectors (C,) of the logits' dtype, by name. `pixels` is always there: the number of pixels
            that are not ignored. All are NaN where a label is neither a class nor `ignore`.
        """
        options = self.options
        terms = {"pixels": ops.sum(counted_pixels(labels, self.num_classes, logits.dtype, options.ignore))}
        if options.kind != "dice":
            losses = pixel_losses(
                labels,
                logits,
                class_weights=options.class_weights,
                focal_gamma=options.focal_gamma if options.kind == "focal" else 0.0,
                label_smoothing=options.label_smoothing,
                ignore=options.ignore,
            )
            terms["loss"] = ops.sum(losses)
        if "dice" in options.kind:
            sums = dice_sums(labels, logits, ignore=options.ignore)
            terms |= dict(zip(("intersection", "cardinality", "truth"), sums, strict=True))
        return terms

    def combine(self, sums: Mapping[str, Any]) -> Any:
        """Returns the loss of sums over all devices, a scalar; 0 where no pixel counts."""
        loss = 0.0
        if "loss" in sums:
            # A count is 0, or 1 and more: the larger of it and 1 spares a division by 0, whose gradient is NaN.
            loss += sums["loss"] / ops.maximum(sums["pixels"], 1.0)
        if "truth" in sums:
            loss += dice_from_sums(sums["intersection"], sums["cardinality"], sums["truth"])
        return loss


def whole_sums(terms: Mapping[str, Any], all_reduce: Callable[[Any], Any]) -> dict[str, Any]:
    """Returns sums over all devices, through which gradients flow to this device's own pixels alone.

    The loss of these sums has the same value L on every device, and its gradient on device k is dL/dS times the
    gradient of k's own sums. As S is the sum of the devices' sums, the gradients add up to that of L over the whole
    batch: they are to be summed, as the optimizers of this package do, and L is to be counted once. `all_reduce` is not
        part
    of the backward pass.

    Args:
        terms: this device's sums, of `DenseLoss.terms`.
        all_reduce: adds a tensor up over all devices, such as
            `lambda value: tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)`.
    """
    return {name: value + ops.stop_gradient(all_reduce(value) - value) for name, value in terms.items()}


def counted_pixels(labels: Any, num_classes: int, dtype: Any, ignore: int = IGNORE) -> Any:
    """Returns the weight of each pixel: 1, or 0 where it is ignored, or NaN where its label is no class.

    A label outside the legend reads past the end of an array: an error on a processor, 0 on a GPU. As NaN it stops the
    training on either, and no device can pass it over.
    """
    labels = ops.cast(labels, "int32")
    counted = ops.cast(ops.not_equal(labels, ignore), dtype)
    outside = ops.logical_and(labels != ignore, ops.logical_or(labels < 0, labels >= num_classes))
    return ops.where(outside, ops.full_like(counted, math.nan), counted)


def pixel_losses(
    labels: Any,
    logits: Any,
    *,
    class_weights: tuple[float, ...] | None = None,
    focal_gamma: float = 0.0,
    label_smoothing: float = 0.0,
    ignore: int = IGNORE,
) -> Any:
    """Returns the cross-entropy of softmax(logits) with true labels, pixel by pixel.

    With p the probability of the true class, the focal loss is `-(1 - p) ** gamma * log(p)` (Lin et al. 2017, arXiv
    1708.02002, section 3.2, with softmax in the place of the sigmoid); gamma 0 is the cross-entropy.

    Args:
        labels: integers (...); `ignore` where the class is unknown.
        logits: float32 or float64 (..., C).
        class_weights: C factors by true class, or None for 1.
        focal_gamma: see above.
        label_smoothing: this share of the target is spread evenly over all classes (Szegedy et al. 2015, arXiv
            1512.00567, section 7); not together with the focal loss.
        ignore: the value of ignored pixels.

    Returns:
        (...) of the logits' dtype, nats; 0 where ignored, NaN where the label is no class.

    Raises:
        ValueError: if the shapes do not fit.
    """
    num_classes = logits.shape[-1]
    counted = counted_pixels(labels, num_classes, logits.dtype, ignore)
    safe = _within(labels, num_classes)
    entropy = ops.sparse_categorical_crossentropy(safe, logits, from_logits=True)
    losses = entropy
    if label_smoothing:
        uniform = -ops.mean(ops.log_softmax(logits, axis=-1), axis=-1)
        losses = (1 - label_smoothing) * entropy + label_smoothing * uniform
    elif focal_gamma:
        # 1 - p without cancellation where p is nearly 1; above 0, as a root's gradient at 0 is infinite.
        losses = ops.power(ops.maximum(-ops.expm1(-entropy), 1e-12), focal_gamma) * entropy
    if class_weights is not None:
        losses *= ops.take(ops.convert_to_tensor(class_weights, logits.dtype), safe)
    return losses * counted


def dice_sums(labels: Any, logits: Any, *, ignore: int = IGNORE) -> tuple[Any, Any, Any]:
    """Returns the sums that the soft Dice coefficients of all classes are computed from.

    With p the probabilities and y the truth as 0 and 1, class by class and summed over the pixels that are not ignored,
    the coefficient is `2 sum(p y) / (sum(p) + sum(y))` (Sudre et al. 2017, arXiv 1707.03237, section 2.1, without
    weights).

    Args:
        labels: integers (...).
        logits: float32 or float64 (..., C).
        ignore: the value of ignored pixels.

    Returns:
        Three vectors (C,) of the logits' dtype: `sum(p y)`, `sum(p) + sum(y)` and `sum(y)`; NaN where a label is no
        class.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if len(labels.shape) != len(logits.shape) - 1:
        raise ValueError(f"labels of shape {labels.shape} do not fit logits of shape {logits.shape}")
    num_classes, pixels = logits.shape[-1], tuple(range(len(labels.shape)))
    counted = ops.expand_dims(counted_pixels(labels, num_classes, logits.dtype, ignore), -1)
    truth = ops.one_hot(_within(labels, num_classes), num_classes, dtype=logits.dtype) * counted
    probabilities = ops.softmax(logits, axis=-1) * counted
    total = ops.sum(truth, axis=pixels)
    return ops.sum(probabilities * truth, axis=pixels), ops.sum(probabilities, axis=pixels) + total, total


def dice_from_sums(intersection: Any, cardinality: Any, truth: Any) -> Any:
    """Returns 1 minus the mean of the soft Dice coefficients of the classes in the true mask.

    A class without a true pixel has the coefficient 0 for any prediction: it would add a constant and no gradient.

    Args:
        intersection: (C,), see `dice_sums`.
        cardinality: (C,).
        truth: (C,).

    Returns:
        A scalar; 0 where no class occurs.
    """
    # NaN differs from 0: a label outside the legend is not lost here.
    occurs = ops.cast(ops.not_equal(truth, 0), truth.dtype)
    distances = occurs * (1 - 2 * intersection / ops.maximum(cardinality, 1.0))
    return ops.sum(distances) / ops.maximum(ops.sum(occurs), 1.0)


def right_pixels(labels: Any, logits: Any, *, ignore: int = IGNORE) -> Any:
    """Returns the number of correct pixels among those that are not ignored, an int32 scalar."""
    predicted = ops.cast(ops.argmax(logits, axis=-1), "int32")
    labels = ops.cast(labels, "int32")
    return ops.sum(ops.cast(ops.logical_and(predicted == labels, labels != ignore), "int32"))


def _within(labels: Any, num_classes: int) -> Any:
    """Returns labels as int32, with 0 where they are no class."""
    labels = ops.cast(labels, "int32")
    return ops.where(ops.logical_and(labels >= 0, labels < num_classes), labels, ops.zeros_like(labels))
