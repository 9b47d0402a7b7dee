"""The public interface: every name resolves, importing it is cheap, and its datasets go into Keras."""

import ast
import dataclasses
import importlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import eo_keras as eo

HEAVY = ("tensorflow", "keras", "jax", "rasterio", "shapely", "matplotlib", "numpy")


def test_import_is_cheap():
    code = f"import sys, eo_keras; dir(eo_keras); print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_every_module_sets_onednn_before_tensorflow_is_imported():
    # As a worker of a cluster does, which is sent a function of this module.
    code = "import eo_keras.core.files, os; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    for given, expected in (({}, "1"), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "0")):
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment | given
        )
        assert result.stdout.strip() == expected


def test_every_public_name_resolves_and_type_checkers_see_the_same_names():
    for name in eo.__all__:
        assert getattr(eo, name) is not None
    unknown = "bogus"
    assert dir(eo) == sorted(eo.__all__)
    with pytest.raises(AttributeError, match="bogus"):
        getattr(eo, unknown)
    tree = ast.parse(pathlib.Path(eo.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert set(seen) == set(eo.__all__) - {"__version__"}
    for name, module in seen.items():
        assert getattr(importlib.import_module(module), name) is getattr(eo, name)


def test_models_are_listed_by_task():
    tasks = eo.list_tasks()
    by_task = [eo.list_models(task) for task in tasks]
    assert set(eo.list_models()) == set().union(*by_task) and all(by_task)
    assert "compact" in eo.list_models("classification") and "deeplab_resnet50" in eo.list_models("segmentation")
    with pytest.raises(eo.errors.OptionError, match="one of classification"):
        eo.list_models("bogus")


def test_a_model_takes_the_numbers_of_the_card(rgb_records):
    card = eo.open_records(rgb_records).card
    model = eo.build_model("resnet14", card, bands=("B02", "B04"), seed=1)
    assert model.input_shape == (None, 64, 64, 2) and model.output_shape == (None, len(card.legend))
    means = {entry.band: entry.mean for entry in card.statistics}
    np.testing.assert_allclose(model.get_layer("normalisation").mean, [means["B02"], means["B04"]])
    assert eo.build_model("resnet14", card, patch_size=None).input_shape == (None, None, None, 3)
    with pytest.raises(eo.errors.BandError, match="B8A"):
        eo.build_model("resnet14", card, bands="B8A")


def test_training_returns_the_run_and_a_run_knows_its_history_and_options(rgb_records, short_training, tmp_path):
    options = dataclasses.replace(short_training, run_dir=str(tmp_path / "run"), epochs=1, steps_per_epoch=2)
    lines = []
    run = eo.train(options, report=lines.append)
    assert [row["epoch"] for row in run.history] == [1] and run.options["model"] == options.model and lines
    again = eo.open_run(tmp_path / "run")
    assert again.card == run.card and again.history == run.history
