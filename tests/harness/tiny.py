"""Networks of a few channels, so that a test can afford many trainings: a classifier, a DeepLabv3+ and a SegNet."""

import contextlib
import dataclasses

CLASSIFIER, SEGMENTER, SEGNET, UNET = "tiny", "deeplab_tiny", "segnet_tiny", "unet_tiny"


def register():
    """Adds them to the registry of networks, where they stay."""
    from eo_keras import models

    small = {"stem": (4, 8), "widths": (8,), "blocks": (1,)}
    models.MODELS[CLASSIFIER] = dataclasses.replace(models.MODELS["compact"], arguments=small)
    # Three stages, which is a stride of 16.
    small = {"backbone": "resnet", "blocks": (1, 1, 1), "width": 4, "depth": 8, "low_depth": 4}
    models.MODELS[SEGMENTER] = dataclasses.replace(models.MODELS["deeplab_resnet14"], arguments=small)
    models.MODELS[SEGNET] = dataclasses.replace(models.MODELS["segnet_small"], arguments={"blocks": ((2, 4), (1, 8))})
    models.MODELS[UNET] = dataclasses.replace(models.MODELS["unet_small"], arguments={"widths": (8, 16)})


@contextlib.contextmanager
def narrow_resnet14():
    """Makes resnet14, which the examples of the documentation train, a small network for a while."""
    from eo_keras import models

    before = models.MODELS["resnet14"]
    models.MODELS["resnet14"] = dataclasses.replace(before, arguments=before.arguments | {"blocks": (1, 1), "width": 4})
    try:
        yield
    finally:
        models.MODELS["resnet14"] = before


@contextlib.contextmanager
def absent():
    """Takes them out of the registry for a while: it is as users have it."""
    from eo_keras import models

    before = dict(models.MODELS)
    for name in (CLASSIFIER, SEGMENTER, SEGNET, UNET):
        models.MODELS.pop(name, None)
    try:
        yield
    finally:
        models.MODELS.clear()
        models.MODELS.update(before)
