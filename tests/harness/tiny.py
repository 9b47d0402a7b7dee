"""Networks of a few channels, so that a test can afford many trainings: a classifier and a DeepLabv3+."""

import contextlib
import dataclasses

CLASSIFIER, SEGMENTER = "tiny", "deeplab_tiny"


def register():
    """Adds them to the registry of networks."""
    from eo_keras import models

    small = {"stem": (4, 8), "widths": (8,), "blocks": (1,)}
    models.MODELS[CLASSIFIER] = dataclasses.replace(models.MODELS["compact"], arguments=small)
    # Three stages, which is a stride of 16.
    small = {"backbone": "resnet", "blocks": (1, 1, 1), "width": 4, "depth": 8, "low_depth": 4}
    models.MODELS[SEGMENTER] = dataclasses.replace(models.MODELS["deeplab_resnet14"], arguments=small)


@contextlib.contextmanager
def registered():
    """Has them in the registry for a while."""
    from eo_keras import models

    before = dict(models.MODELS)
    register()
    try:
        yield
    finally:
        models.MODELS.clear()
        models.MODELS.update(before)
