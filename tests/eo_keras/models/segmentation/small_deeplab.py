"""DeepLabv3+ on two backbones so small that tests can build many."""

from eo_keras.models.segmentation.deeplab import build_deeplab
from tests.harness.networks import network_spec

RESNET = {"blocks": (1, 1, 1, 1), "width": 8}
SMALL = {"backbone": "resnet", **RESNET}
XCEPTION = {"backbone": "xception", "middle": 1, "width": 1 / 16}


def reduced(backbone=SMALL, name="deeplab", **choices):
    """Returns a DeepLabv3+ on `SMALL` or `XCEPTION`; choices are those of `network_spec`."""
    spec = network_spec(**{"seed": 3, "zero_last_gamma": False} | choices)
    return build_deeplab(spec, depth=16, low_depth=8, name=name, **backbone)
