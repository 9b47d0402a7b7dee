"""What all tests share: a quiet TensorFlow on the CPU, and the folder of real data."""

import os
import pathlib

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

DEFAULT_DATA = pathlib.Path(__file__).parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data; a test that asks for it is skipped where it is absent."""
    folder = pathlib.Path(os.environ.get("EO_KERAS_DATA") or DEFAULT_DATA).resolve()
    if not (folder / "eurosat").is_dir():
        pytest.skip(f"no real data in {folder} (set EO_KERAS_DATA)")
    return folder
