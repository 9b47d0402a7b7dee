"""EO-Keras: land use and land cover from Sentinel-2 with TensorFlow and Keras 3.

The names below are the public interface. Each is imported when it is first used (PEP 562), so that `import eo_keras`
takes milliseconds and a program that only reads cards imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Without AVX-512, TensorFlow leaves oneDNN's kernels off: networks train at a third of the speed, and predictions
# differ in their last digits. It reads the variable when it is imported. Here, so that workers of a cluster set it too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

if TYPE_CHECKING:
    from eo_keras import errors as errors
    from eo_keras import legends as legends
    from eo_keras.api import Records as Records
    from eo_keras.api import assess_map as assess_map
    from eo_keras.api import build_model as build_model
    from eo_keras.api import draw_sample as draw_sample
    from eo_keras.api import evaluate as evaluate
    from eo_keras.api import evaluate_map as evaluate_map
    from eo_keras.api import list_models as list_models
    from eo_keras.api import list_tasks as list_tasks
    from eo_keras.api import open_records as open_records
    from eo_keras.api import predict as predict
    from eo_keras.api import predict_masks as predict_masks
    from eo_keras.api import train as train
    from eo_keras.geo.scene_reader import open_scene as open_scene
    from eo_keras.mapping.mapper import map_scene as map_scene
    from eo_keras.mapping.mapper import map_scenes as map_scenes
    from eo_keras.mapping.options import MapOptions as MapOptions
    from eo_keras.runs.export_folder import open_export as open_export
    from eo_keras.runs.folder import open_run as open_run
    from eo_keras.serving.saved_model import export as export
    from eo_keras.training.options import TrainingOptions as TrainingOptions

_MODULES = {
    "MapOptions": "mapping.options",
    "Records": "api",
    "TrainingOptions": "training.options",
    "assess_map": "api",
    "build_model": "api",
    "draw_sample": "api",
    "evaluate": "api",
    "evaluate_map": "api",
    "export": "serving.saved_model",
    "list_models": "api",
    "list_tasks": "api",
    "map_scene": "mapping.mapper",
    "map_scenes": "mapping.mapper",
    "open_export": "runs.export_folder",
    "open_records": "api",
    "open_run": "runs.folder",
    "open_scene": "geo.scene_reader",
    "predict": "api",
    "predict_masks": "api",
    "train": "api",
}
"""The module of each public name."""

_PACKAGES = ("errors", "legends")
"""Modules that are public themselves."""

__all__ = ["__version__", *_PACKAGES, *_MODULES]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names."""
    return sorted(__all__)
