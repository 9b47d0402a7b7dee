"""DeepLabv3+ on backbones so small that tests can build many, and images for it."""

import functools

import numpy as np

from eo_keras.models import Normalization
from eo_keras.models.backbones.resnet import resnet_features
from eo_keras.models.backbones.xception import xception_features
from eo_keras.models.segmentation.deeplab import build_deeplab

COMMON = {
    "bands": ("B04", "B03", "B02"),
    "num_classes": 4,
    "normalisation": Normalization((1500.0,) * 3, (800.0,) * 3),
    "input_dtype": "uint16",
}
RESNET = {"blocks": (1, 1, 1, 1), "width": 8}
SMALL = functools.partial(resnet_features, **RESNET, zero_last_gamma=False)
XCEPTION = functools.partial(xception_features, middle=1, width=1 / 16, zero_last_gamma=False)


def reduced(**options):
    return build_deeplab(**(COMMON | {"seed": 3, "backbone": SMALL, "depth": 16, "low_depth": 8} | options))


def images(count=1, height=64, width=64, bands=3):
    return np.random.default_rng(0).integers(1, 3000, (count, height, width, bands)).astype("uint16")
