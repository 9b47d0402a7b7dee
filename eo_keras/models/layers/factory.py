"""Factory of layers: input, convolutions with batch normalization, head, seeds and precisions."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers

from eo_keras.errors import OptionError
from eo_keras.models.layers.batch_norm import BatchNormalization
from eo_keras.models.layers.normalization import BandNormalization
from eo_keras.models.layers.resize import ResizeLike
from eo_keras.models.spec import IMAGE, POLICIES, NetworkSpec

NORMALIZATION = "normalisation"
"""Name of the layer that standardizes the only input; of several inputs, its beginning."""

LOGITS = "logits"
PROBABILITIES = "probabilities"
"""Name of the layer of the logits; the only one that a new legend replaces."""

RECONSTRUCTION = "reconstruction"
"""Name of the layer of standardized numbers that a network for pre-training predicts in place of classes."""

AUXILIARY = "_logits"
"""Suffix of the names of the auxiliary classifiers' last layers."""

DISTANCE_LOGITS = f"distance{AUXILIARY}"
"""Name of the layer of the logits of distance classes."""

STREAM_LOGITS = f"stream{AUXILIARY}"
"""End of the names of the layers of the logits of each modality's own network in late fusion."""

DENSE_HEAD = ("aspp_", "decoder_", "fusion_")
"""Beginnings of the names of a segmentation network's layers with weights after its backbone, a prefix left out."""

VIRTUAL = "virtual_"
"""Prefix of the layers of a backbone that takes the features of those of several modalities."""

_DENSE_HEAD = re.compile(rf"(?:^|_)(?:{'|'.join(DENSE_HEAD)})")


@dataclasses.dataclass(frozen=True)
class LayerFactory:
    """Factory of a network's layers with common precision, batch normalization and seeds.

    Convolutions have no bias: batch normalization follows each one and would subtract it again.

    Attributes:
        spec: the specification of the network.
        batch_norm_epsilon: number that is added to the variance.
        batch_norm_momentum: momentum of the moving statistics; 0.9 follows the weights within short runs.
        batch_norm_scale: whether batch normalization has a gamma.
        prefix: beginning of the names of all layers between the input and the outputs: that of a modality where each
            has layers of its own. `is_head` knows the layers of a head with a prefix too.
        present: which examples have that modality, `(batch, 1, 1, 1)`; batch normalization takes their moments alone.
            None for all.

    Raises:
        OptionError: if Keras's global dtype policy is none that networks are built for and the specification names no
            other, or the specification has synchronized batch normalization under another backend than TensorFlow.
    """

    spec: NetworkSpec
    batch_norm_epsilon: float = 1e-3
    batch_norm_momentum: float = 0.9
    batch_norm_scale: bool = True
    prefix: str = ""
    present: Any = None

    def __post_init__(self):
        """Checks the values."""
        resolve_policy(self.spec.dtype_policy)
        backend = keras.config.backend()
        if self.spec.synchronized and backend != "tensorflow":
            raise OptionError(
                "synchronized",
                f"synchronized batch normalization under the {backend} backend of Keras",
                "synchronized=False, or KERAS_BACKEND=tensorflow",
            )

    @property
    def policy(self) -> keras.DTypePolicy:
        """Dtype policy of the layers between the input and the head."""
        return resolve_policy(self.spec.dtype_policy)

    @property
    def exact(self) -> str:
        """Dtype policy of the normalization and the head: float64 with the policy float64, else float32."""
        return "float64" if self.policy.compute_dtype == "float64" else "float32"

    @property
    def last_gamma(self) -> str:
        """Initializer of gamma in the last batch normalization of a residual block: `zeros` or `ones`."""
        zero = self.spec.zero_last_gamma
        return "zeros" if (self.spec.weights is None if zero is None else zero) else "ones"

    def image(self) -> tuple[Any, Any]:
        """Returns the model's inputs, and their standardized bands in one tensor.

        Of several inputs, a dictionary; their bands are brought to the size of the finest one and stacked (early
        fusion). With an input size of the specification, they are interpolated bilinearly to that.
        """
        images, bands = self.images()
        if list(images) == [IMAGE]:
            return images[IMAGE], self._enlarged(bands[IMAGE])
        finest = self.finest(bands)
        resized = [self.at_finest(x, name, finest) for name, x in bands.items()]
        return images, self._enlarged(self.concatenate(resized, "stacked_inputs", self.exact))

    def _enlarged(self, x: Any) -> Any:
        size = self.spec.input_size
        if size is None:
            return x
        return layers.Resizing(size, size, data_format="channels_last", dtype=self.exact, name="enlarged")(x)

    def images(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns the inputs by name, as records hold them, and their standardized bands by name.

        The only input is `image`, its layer `normalisation`; several inputs have the names of the specification, and
        layers `normalisation_<name>`.
        """
        images, bands = {}, {}
        for name, given in self.spec.inputs.items():
            images[name] = keras.Input(
                (given.patch_size, given.patch_size, len(given.bands)), dtype=given.dtype, name=name
            )
            bands[name] = BandNormalization(
                given.normalization.mean,
                given.normalization.std,
                given.scale,
                bands=given.bands,
                ratio=given.ratio,
                dtype=self.exact,
                name=NORMALIZATION if name == IMAGE else f"{NORMALIZATION}_{name}",
            )(images[name])
        return images, bands

    def finest(self, tensors: Mapping[str, Any]) -> Any:
        """Returns the tensor of the first input that is as fine as the output."""
        return next(tensor for name, tensor in tensors.items() if self.spec.inputs[name].ratio == 1)

    def at_finest(self, x: Any, name: str, finest: Any) -> Any:
        """Brings the bands of an input to the size of the finest one; no layer where they have it."""
        ratio = self.spec.inputs[name].ratio
        if ratio == 1:
            return x
        return ResizeLike(ratio, (ratio - 1) / 2, dtype=self.exact, name=f"resized_{name}")(x, finest)

    def convolution(
        self, x: Any, filters: int, size: Any, name: str, strides: int = 1, padding: str = "valid", rate: int = 1
    ) -> Any:
        """Adds a convolution, atrous where the rate is above 1, initialized after He et al. 2015 (arXiv 1502.01852)."""
        return layers.Conv2D(
            filters,
            size,
            strides=strides,
            padding=padding,
            dilation_rate=rate,
            use_bias=False,
            data_format="channels_last",
            kernel_initializer=keras.initializers.HeNormal(seed=self.layer_seed(name)),
            dtype=self.policy,
            name=self.prefix + name,
        )(x)

    def depthwise(self, x: Any, size: int, name: str, strides: int = 1, padding: str = "same", rate: int = 1) -> Any:
        """Adds a depthwise convolution, atrous where the rate is above 1.

        A pixel sees `size * size` values of its channel, which is what the initial weights go by: Keras's own scaling
        would count the other channels in, and what came out would be small beside the epsilon of batch normalization.
        """
        return layers.DepthwiseConv2D(
            size,
            strides=strides,
            padding=padding,
            dilation_rate=rate,
            use_bias=False,
            data_format="channels_last",
            depthwise_initializer=keras.initializers.TruncatedNormal(stddev=1 / size, seed=self.layer_seed(name)),
            dtype=self.policy,
            name=self.prefix + name,
        )(x)

    def separable(
        self,
        x: Any,
        filters: int,
        prefix: str,
        strides: int = 1,
        padding: str = "same",
        rate: int = 1,
        gamma: str = "ones",
    ) -> Any:
        """Adds a 3x3 separable convolution (Chen et al. 2018, arXiv 1802.02611, section 3.1).

        Each channel for itself, batch normalization and a ReLU; then all channels of a pixel, and batch
        normalization: `<prefix>_depthwise`, `<prefix>_depthwise_bn`, `<prefix>_depthwise_relu`, `<prefix>_pointwise`,
        `<prefix>_pointwise_bn`, whose initial `gamma` may be `zeros`. The ReLU after them is the caller's.
        """
        x = self.depthwise(x, 3, f"{prefix}_depthwise", strides, padding, rate)
        x = self.relu(self.batch_norm(x, f"{prefix}_depthwise_bn"), f"{prefix}_depthwise_relu")
        x = self.convolution(x, filters, 1, f"{prefix}_pointwise")
        return self.batch_norm(x, f"{prefix}_pointwise_bn", gamma)

    def batch_norm(self, x: Any, name: str, gamma: str = "ones") -> Any:
        """Adds batch normalization."""
        return BatchNormalization(
            axis=-1,
            epsilon=self.batch_norm_epsilon,
            momentum=self.batch_norm_momentum,
            scale=self.batch_norm_scale,
            gamma_initializer=gamma,
            synchronized=self.spec.synchronized,
            dtype=self.policy,
            name=self.prefix + name,
        )(x, **({} if self.present is None else {"present": self.present}))

    def relu(self, x: Any, name: str) -> Any:
        """Adds a ReLU."""
        return layers.Activation("relu", dtype=self.policy, name=self.prefix + name)(x)

    def conv_bn_relu(
        self, x: Any, filters: int, size: Any, prefix: str, strides: int = 1, padding: str = "same"
    ) -> Any:
        """Adds a convolution, batch normalization and a ReLU: `<prefix>_conv`, `<prefix>_bn`, `<prefix>_relu`."""
        x = self.convolution(x, filters, size, f"{prefix}_conv", strides, padding)
        return self.relu(self.batch_norm(x, f"{prefix}_bn"), f"{prefix}_relu")

    def zero_pad(self, x: Any, size: int, name: str) -> Any:
        """Adds a border of zeros."""
        return layers.ZeroPadding2D(size, data_format="channels_last", dtype=self.policy, name=self.prefix + name)(x)

    def max_pool(self, x: Any, size: int, name: str, strides: int = 2, padding: str = "valid") -> Any:
        """Adds pooling by the maximum."""
        return layers.MaxPooling2D(
            size,
            strides=strides,
            padding=padding,
            data_format="channels_last",
            dtype=self.policy,
            name=self.prefix + name,
        )(x)

    def average_pool(self, x: Any, size: int, name: str, strides: int = 2, padding: str = "valid") -> Any:
        """Adds pooling by the mean."""
        return layers.AveragePooling2D(
            size,
            strides=strides,
            padding=padding,
            data_format="channels_last",
            dtype=self.policy,
            name=self.prefix + name,
        )(x)

    def add(self, summands: Sequence[Any], name: str) -> Any:
        """Adds a sum."""
        return layers.Add(dtype=self.policy, name=self.prefix + name)(list(summands))

    def concatenate(self, tensors: Sequence[Any], name: str, dtype: Any = None) -> Any:
        """Adds a concatenation along the channels."""
        return layers.Concatenate(axis=-1, dtype=dtype or self.policy, name=self.prefix + name)(list(tensors))

    def global_mean(self, x: Any, name: str = "avg_pool", keepdims: bool = False) -> Any:
        """Adds the mean over all pixels, in the head's precision; with `keepdims` as a feature map of one pixel."""
        return layers.GlobalAveragePooling2D(
            data_format="channels_last", keepdims=keepdims, dtype=self.exact, name=self.prefix + name
        )(x)

    def global_max(self, x: Any, name: str = "max_pool") -> Any:
        """Adds the maximum over all pixels, in the head's precision."""
        return layers.GlobalMaxPooling2D(data_format="channels_last", dtype=self.exact, name=self.prefix + name)(x)

    def dropout(self, x: Any, rate: float = 0.0, name: str = "dropout") -> Any:
        """Adds dropout (Srivastava et al. 2014, JMLR 15) in the head's precision; no layer where the rate is 0.

        Args:
            x: features.
            rate: the architecture's own rate, which that of the specification replaces.
            name: name of the layer.
        """
        rate = rate if self.spec.dropout is None else self.spec.dropout
        return (
            layers.Dropout(rate, seed=self.layer_seed(name), dtype=self.exact, name=self.prefix + name)(x)
            if rate
            else x
        )

    def logits(self, features: Any, name: str = LOGITS) -> Any:
        """Adds the last layer with weights, initialized after Goyal et al. 2017 (arXiv 1706.02677, section 5.1)."""
        return layers.Dense(
            self.spec.num_classes,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01, seed=self.layer_seed(name)),
            dtype=self.exact,
            name=self.prefix + name,
        )(features)

    def probabilities(self, logits: Any) -> Any:
        """Adds the softmax."""
        return layers.Softmax(dtype=self.exact, name=PROBABILITIES)(logits)

    def classifier(self, image: Any, x: Any, name: str, dropout: float = 0.0) -> keras.Model:
        """Returns the model that classifies by the mean over all pixels.

        Args:
            image: the model's input.
            x: features `(batch, height, width, channels)`.
            name: name of the model.
            dropout: the architecture's own rate, see `dropout`.
        """
        logits = self.logits(self.dropout(self.global_mean(x), dropout))
        return keras.Model(image, self.probabilities(logits), name=name)

    def layer_seed(self, layer_name: str) -> int | None:
        """Returns a seed by a layer's name, see `seed_of_layer`."""
        return seed_of_layer(self.spec.seed, self.prefix + layer_name)


def seed_of_layer(seed: int | None, layer_name: str) -> int | None:
    """Returns a seed by a layer's name, so that adding a layer does not change the others' initial weights.

    Args:
        seed: the network's seed; None for weights that differ each time.
        layer_name: name of the layer.
    """
    if seed is None:
        return None
    digest = hashlib.sha256(f"{seed}/{layer_name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


def is_segmentation_head(layer_name: str) -> bool:
    """Tells whether a layer of that name belongs to the head of a segmentation network, after its backbone."""
    return _DENSE_HEAD.search(layer_name) is not None


def is_head(layer_name: str) -> bool:
    """Tells whether a layer of that name is the last of a classifier, auxiliary or not, or in a segmentation head."""
    last = layer_name in (LOGITS, RECONSTRUCTION) or layer_name.endswith(AUXILIARY)
    return last or is_segmentation_head(layer_name)


def resolve_policy(dtype_policy: str | None) -> keras.DTypePolicy:
    """Returns the policy of that name, or Keras's global one for None, which is not changed.

    Raises:
        OptionError: if models are not built for such a policy.
    """
    name = keras.config.dtype_policy().name if dtype_policy is None else dtype_policy
    if name not in POLICIES:
        raise OptionError("dtype_policy", f"'{name}'", f"one of {', '.join(POLICIES)}")
    return keras.dtype_policies.get(name)
