"""ResNet v1 with bottleneck blocks (He et al. 2015, arXiv 1512.03385, section 4.1 and table 1).

Layer names, layer order, the epsilon of batch normalisation and the stride on a block's first 1x1 convolution are those
of `keras.applications.ResNet50`, so that its weights map by name. Convolutions have no bias: batch normalisation
follows each one and would subtract it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import keras
from keras import layers

from eo_keras.errors import OptionError
from eo_keras.models.normalisation import BandNormalisation, Normalisation

BATCH_NORM_EPSILON = 1.001e-5
"""That of `keras.applications`; with another one its weights would give other answers."""

EXPANSION = 4
"""A bottleneck block's output has four times the channels of its 3x3 convolution."""

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "float64")
"""The dtype policies that models are built for."""


def build_resnet(
    *,
    bands: Sequence[str],
    num_classes: int,
    normalisation: Normalisation,
    input_dtype: str,
    patch_size: int | None = None,
    scale: Sequence[float] | None = None,
    blocks: Sequence[int] = (3, 4, 6, 3),
    width: int = 64,
    synchronized: bool = False,
    dtype_policy: str | None = None,
    seed: int | None = None,
    zero_last_gamma: bool = True,
    batch_norm_momentum: float = 0.9,
    name: str = "resnet",
) -> keras.Model:
    """Builds a ResNet v1 of bottleneck blocks, without pretrained weights.

    Args:
        bands: names of the input's bands in channel order.
        num_classes: number of classes.
        normalisation: mean and standard deviation of each band in digital numbers.
        input_dtype: dtype of the digital numbers, `uint8` or `uint16`.
        patch_size: height and width of the input in pixels; `None` takes any.
        scale: what one standard deviation becomes behind the normalisation, per band; 1 when not given.
        blocks: number of blocks in each stage; the first stage keeps the resolution, each other one halves it.
        width: channels of the stem and of the first stage's 3x3 convolutions; doubled at each stage.
        synchronized: whether batch normalisation takes its moments over all replicas (TensorFlow backend only).
        dtype_policy: one of `POLICIES`, or `None` for Keras's global one. The global policy is not changed.
        seed: makes the initial weights repeatable; each layer draws from its own seed. `None` draws new ones.
        zero_last_gamma: start each block as the identity, by a zero gamma in its last batch normalisation (Goyal et
            al. 2017, arXiv 1706.02677, section 5.1).
        batch_norm_momentum: momentum of the moving statistics; 0.9 follows the weights within short runs.
        name: name of the model.

    Returns:
        A model from `image` `(batch, patch_size, patch_size, len(bands))`, digital numbers, to `probabilities`
        `(batch, num_classes)`, float32 (float64 under that policy); the layer before is `logits`, of the same dtype.

    Raises:
        BandError: if the normalisation does not fit the bands.
        OptionError: if the policy is unknown, or `synchronized` is asked for under another backend than TensorFlow.
    """
    policy = resolve_policy(dtype_policy)
    check_synchronized(synchronized)
    exact = "float64" if policy.compute_dtype == "float64" else "float32"

    def convolution(x, filters, size, layer_name, strides=1, padding="valid"):
        return layers.Conv2D(
            filters,
            size,
            strides=strides,
            padding=padding,
            use_bias=False,
            data_format="channels_last",
            kernel_initializer=keras.initializers.HeNormal(seed=layer_seed(seed, layer_name)),
            dtype=policy,
            name=layer_name,
        )(x)

    def batch_norm(x, layer_name, gamma="ones"):
        return layers.BatchNormalization(
            axis=-1,
            epsilon=BATCH_NORM_EPSILON,
            momentum=batch_norm_momentum,
            gamma_initializer=gamma,
            synchronized=synchronized,
            dtype=policy,
            name=layer_name,
        )(x)

    def relu(x, layer_name):
        return layers.Activation("relu", dtype=policy, name=layer_name)(x)

    def padded(x, size, layer_name):
        return layers.ZeroPadding2D(size, data_format="channels_last", dtype=policy, name=layer_name)(x)

    def block(x, filters, strides, project, prefix):
        shortcut = x
        if project:
            shortcut = convolution(x, EXPANSION * filters, 1, f"{prefix}_0_conv", strides)
            shortcut = batch_norm(shortcut, f"{prefix}_0_bn")
        x = convolution(x, filters, 1, f"{prefix}_1_conv", strides)
        x = relu(batch_norm(x, f"{prefix}_1_bn"), f"{prefix}_1_relu")
        x = convolution(x, filters, 3, f"{prefix}_2_conv", padding="same")
        x = relu(batch_norm(x, f"{prefix}_2_bn"), f"{prefix}_2_relu")
        x = convolution(x, EXPANSION * filters, 1, f"{prefix}_3_conv")
        x = batch_norm(x, f"{prefix}_3_bn", gamma="zeros" if zero_last_gamma else "ones")
        x = layers.Add(dtype=policy, name=f"{prefix}_add")([shortcut, x])
        return relu(x, f"{prefix}_out")

    image = keras.Input((patch_size, patch_size, len(bands)), dtype=input_dtype, name="image")
    x = BandNormalisation(normalisation.mean, normalisation.std, scale, bands=bands, dtype=exact, name="normalisation")(
        image
    )
    x = padded(x, 3, "conv1_pad")
    x = convolution(x, width, 7, "conv1_conv", strides=2)
    x = relu(batch_norm(x, "conv1_bn"), "conv1_relu")
    x = padded(x, 1, "pool1_pad")
    x = layers.MaxPooling2D(3, strides=2, data_format="channels_last", dtype=policy, name="pool1_pool")(x)
    for stage, count in enumerate(blocks):
        for number in range(1, count + 1):
            first = number == 1
            strides = 2 if first and stage > 0 else 1
            x = block(x, width * 2**stage, strides, first, f"conv{stage + 2}_block{number}")
    # Pooling, logits and softmax are exact, or reduced precision would round the probabilities.
    x = layers.GlobalAveragePooling2D(data_format="channels_last", dtype=exact, name="avg_pool")(x)
    logits = layers.Dense(
        num_classes,
        # Goyal et al. 2017, section 5.1.
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01, seed=layer_seed(seed, "logits")),
        dtype=exact,
        name="logits",
    )(x)
    probabilities = layers.Softmax(dtype=exact, name="probabilities")(logits)
    return keras.Model(image, probabilities, name=name)


def layer_seed(seed: int | None, layer_name: str) -> int | None:
    """Returns a seed of a layer's own, so that adding a layer does not change the others' initial weights."""
    if seed is None:
        return None
    digest = hashlib.sha256(f"{seed}/{layer_name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


def resolve_policy(dtype_policy: str | None) -> keras.DTypePolicy:
    """Returns the policy of that name, or Keras's global one for `None`, which stays as it is.

    Raises:
        OptionError: if models are not built for such a policy.
    """
    name = keras.config.dtype_policy().name if dtype_policy is None else dtype_policy
    if name not in POLICIES:
        raise OptionError("dtype_policy", f"'{name}'", f"one of {', '.join(POLICIES)}")
    return keras.dtype_policies.get(name)


def check_synchronized(synchronized: bool) -> None:
    """Refuses synchronised batch normalisation where Keras has none.

    Raises:
        OptionError: if it is asked for under another backend than TensorFlow.
    """
    backend = keras.config.backend()
    if synchronized and backend != "tensorflow":
        raise OptionError(
            "synchronized",
            f"synchronised batch normalisation under the {backend} backend of Keras",
            "synchronized=False, or KERAS_BACKEND=tensorflow",
        )
