"""Fixtures of all tests, and a quiet TensorFlow on the CPU."""

import gc
import os
import pathlib

import pytest

# Until all tests are collected, when what has been imported is put aside: else the collector goes through all objects
# of TensorFlow and of the tests again and again.
gc.disable()

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

from tests.harness.archives import make, ms_zip, rgb_zip  # noqa: E402, F401
from tests.harness.trainings import (  # noqa: E402, F401
    distance_records,
    finished,
    finished_on_tiles,
    rgb_records,
    short_distance_training,
    short_tile_training,
    short_training,
    tile_records,
)

DEFAULT_DATA = pathlib.Path(__file__).parents[1] / ".." / "shared" / "data"

LONGEST = ("test_resume.py", "test_train.py", "test_distribution.py", "test_workers.py", "test_moments.py")
"""Modules that take longest: started last, one processor would wait for them."""


def pytest_collection_modifyitems(items):
    """Puts the longest modules first; `make test` keeps pytest-xdist from sorting by the number of tests."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish():
    """Puts what has been imported out of the garbage collector's sight, and switches that on."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data; a test that asks for it is skipped where it is absent."""
    folder = pathlib.Path(os.environ.get("EO_KERAS_DATA") or DEFAULT_DATA).resolve()
    if not (folder / "eurosat").is_dir():
        pytest.skip(f"no real data in {folder} (set EO_KERAS_DATA)")
    return folder


@pytest.fixture(scope="session")
def make_run():
    """A function that writes the run folder of an untrained small network, and opens it."""

    def write(folder, dtype, bands, *, legend=None, patch_size=64, policy=None, seed=1, sharpness=3.0, model=None):
        import numpy as np

        from eo_keras import models
        from eo_keras.geo import images as rasters
        from eo_keras.legends import catalogue as legends
        from eo_keras.records.data_card import StoredImages
        from eo_keras.runs import folder as runs
        from eo_keras.runs import model_card as model_cards
        from tests.harness import tiny

        legend = legend or legends.EUROSAT
        level, spread = (90.0, 35.0) if dtype == "uint8" else (1200.0, 500.0)
        normalisation = models.Normalization((level,) * len(bands), (spread,) * len(bands))
        image = models.ImageInput(tuple(bands), dtype, normalisation, patch_size)
        spec = models.NetworkSpec({models.IMAGE: image}, len(legend), dtype_policy=policy, seed=seed)
        tiny.register()
        name = model or tiny.CLASSIFIER
        model, report = models.build(name, spec)
        # The features hardly differ between random images, so the weights that tell them apart must be large.
        rng, logits = np.random.default_rng(0), model.get_layer("logits")
        logits.set_weights([rng.normal(0, sharpness, weight.shape) for weight in logits.get_weights()])
        card = model_cards.ModelCard(
            model=name,
            task="classification",
            dataset="test",
            data_fingerprint="0" * 64,
            bands=tuple(bands),
            dtype=dtype,
            level="L1C",
            reflectance=rasters.REFLECTANCES[dtype],
            nodata=0,
            resolution_m=10.0,
            patch_size=patch_size,
            normalisation={"mean": normalisation.mean, "std": normalisation.std, "scale": (1.0,) * len(bands)},
            legend=legend,
            parameters=model.count_params(),
            initialisation=report.summary(),
            flags={},
            selection={},
            scores={},
            versions=runs.versions(),
            attribution="nobody",
            records=StoredImages(tuple(bands), dtype, "jpeg" if dtype == "uint8" else "raw", patch_size),
        )
        folder.mkdir(parents=True, exist_ok=True)
        runs.save_model(models.inference_model(model, patch_size), folder / runs.MODEL_NAME)
        model_cards.write_model_card(card, folder)
        return runs.open_run(folder)

    return write
