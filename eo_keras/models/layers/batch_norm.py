"""Batch normalization in one kernel.

Keras computes moments and normalization from single operations, which read the features from memory several times, a
sixth of a ResNet50's training step on a processor. TensorFlow has a kernel for all of it, with its gradient.
"""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="eo_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer (Ioffe & Szegedy 2015, arXiv 1502.03167): the same arguments, weights and results.

    TensorFlow's fused kernel takes over where it can: under the TensorFlow backend, in training on one device, for
    images in float32 or below. Everything else is Keras's own: inference, moments over several devices, float64.

    Call arguments beside Keras's: `present` `(batch, 1, 1, 1)`, 1 for the examples `(batch, height, width, channels)`
    whose moments are taken in training, 0 for others, such as those in which a modality is missing. Where none is
    present, features are not changed but by gamma and beta, and moving statistics not at all.
    """

    def call(self, inputs, training=None, mask=None, present=None):
        """Normalizes, and in training updates the moving mean and variance, as Keras's layer does."""
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        if present is not None:
            return self._call_of_present(inputs, present)
        if mask is not None or not self._fits_the_kernel(inputs):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        channels = ops.shape(inputs)[-1]
        gamma = ops.cast(self.gamma, "float32") if self.scale else ops.ones(channels, "float32")
        beta = ops.cast(self.beta, "float32") if self.center else ops.zeros(channels, "float32")
        # Half precision is read and written as it is; the kernel's own arithmetic is float32, as Keras's is.
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=gamma, offset=beta, mean=[], variance=[], epsilon=self.epsilon, is_training=True
        )
        # The kernel returns the variance that a sample suggests of its population, n / (n - 1) times its own; Keras
        # follows the sample's own.
        count = ops.cast(tf.size(inputs) // channels, "float32")
        variance = variance * (ops.maximum(count - 1, 1) / count)
        self._move(mean, variance, self.momentum)
        return ops.cast(outputs, self.compute_dtype)

    def _call_of_present(self, inputs, present):
        """Normalizes by the moments of the examples that are present."""
        compute_dtype = keras.backend.result_type(inputs.dtype, "float32")
        x = ops.cast(inputs, compute_dtype)
        weights = ops.cast(ops.reshape(present, (-1, 1)), compute_dtype)
        count = self._over_devices(ops.sum(weights))
        shares = weights / ops.maximum(count, 1)
        # Of each example first: one pass over the features, and no difference of large sums.
        means, variances = ops.moments(x, axes=(1, 2))
        mean = self._over_devices(ops.sum(shares * means, axis=0))
        variance = self._over_devices(ops.sum(shares * (variances + ops.square(means - mean)), axis=0))
        momentum = ops.where(count > 0, ops.cast(self.momentum, compute_dtype), ops.cast(1, compute_dtype))
        self._move(mean, variance, momentum)
        outputs = ops.batch_normalization(
            x=x,
            mean=mean,
            variance=ops.where(count > 0, variance, ops.ones_like(variance)),
            axis=self.axis,
            offset=ops.cast(self.beta, compute_dtype) if self.center else None,
            scale=ops.cast(self.gamma, compute_dtype) if self.scale else None,
            epsilon=self.epsilon,
        )
        return ops.cast(outputs, self.compute_dtype)

    def _move(self, mean, variance, momentum):
        """Moves the moving statistics towards the moments of a batch, in their precision."""
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            kept = ops.cast(average, value.dtype) * momentum
            average.assign(ops.cast(kept + value * (1 - momentum), average.dtype))

    def _over_devices(self, value):
        """Returns a sum over all devices, where moments are those of all."""
        if not self.synchronized:
            return value
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        return value if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, value)

    def _fits_the_kernel(self, inputs) -> bool:
        return (
            keras.config.backend() == "tensorflow"
            and not (self.synchronized or self.renorm)
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "bfloat16", "float16")
        )
