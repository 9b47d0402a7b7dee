"""Records built from the generated world, for tests that train."""

import pytest

from tfrecords_builder import build, splits
from tfrecords_builder.generated import archives


@pytest.fixture(scope="session")
def rgb_records(tmp_path_factory):
    """A records folder of 160 training and 40 test patches in ten classes."""
    folder = tmp_path_factory.mktemp("generated")
    source = archives.write_eurosat_archive(folder / "rgb.zip", kind="rgb", patches_per_class=20)
    options = build.BuildOptions("eurosat_rgb", str(source), str(folder / "rgb"), splits.SplitOptions(seed=1))
    build.build(options)
    return folder / "rgb"
