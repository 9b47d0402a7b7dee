"""Which heavy packages an import loads; import-linter's contracts hold which module may import which."""

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys

LIGHT = ("core", "sensors", "legends", "records", "geo", "metrics", "plots", "inspection")
import eo_keras, tfrecords_builder
early = {"numpy", "rasterio", "matplotlib"} & set(sys.modules)
assert not early, f"import eo_keras loads {early}"
for command in ("build", "evaluate", "inspect", "predict", "sweep", "train"):
    importlib.import_module(f"launch.{command}")
assert "scipy" not in sys.modules, "a command loads scipy before it needs it"
for package in ("tfrecords_builder", *(f"eo_keras.{name}" for name in LIGHT)):
    found = importlib.import_module(package)
    for module in pkgutil.walk_packages(found.__path__, f"{package}."):
        importlib.import_module(module.name)
heavy = {"tensorflow", "keras", "jax", "sklearn", "matplotlib"} & set(sys.modules)
assert not heavy, f"an import loads {heavy}"
from eo_keras.plots import curves

curves.training_curves_png({"loss": [1, 2]}, "T")
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""


def test_neither_frameworks_nor_matplotlib_are_loaded_where_data_is_described_read_or_scored():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
