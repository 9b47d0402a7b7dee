import math

import numpy as np
import pytest

from eo_keras.metrics.reconstruction import ReconstructionSums, mean_of
from eo_keras.records.inputs import InputBands

INPUTS = (InputBands("s2", "s2", ("B04", "B03")), InputBands("s1", "s1", ("VV",)), InputBands("dem", "dem", ("H",)))


def test_against_the_definition():
    random = np.random.default_rng(1)
    targets = random.normal([3, -2, 0, 0], [1, 5, 2, 1], (6, 8, 8, 4))
    targets[random.random(targets.shape) < 0.3] = np.nan
    targets[..., 3] = np.nan
    outputs = np.nan_to_num(targets) + random.normal(0, 0.5, targets.shape)
    one, other = ReconstructionSums(INPUTS), ReconstructionSums(INPUTS)
    one.add(targets[:4].astype(np.float32), outputs[:4].astype(np.float32))
    other.add(targets[4:].astype(np.float32), outputs[4:].astype(np.float32))
    one.merge(other)
    for name, own in (("s2", slice(0, 2)), ("s1", slice(2, 3))):
        squares = np.nansum((outputs[..., own] - targets[..., own]) ** 2)
        mean = np.nanmean(targets[..., own], axis=(0, 1, 2))
        assert one.errors()[name] == pytest.approx(squares / np.isfinite(targets[..., own]).sum(), rel=1e-5)
        spread = np.nansum((targets[..., own] - mean) ** 2)
        assert one.explained_variances()[name] == pytest.approx(1 - squares / spread, rel=1e-5)
    assert one.errors()["dem"] is None and one.explained_variances()["dem"] is None


def test_the_mean_of_every_band_explains_nothing():
    targets = np.random.default_rng(2).normal([1, 2, 3, 4], 1, (5, 4, 4, 4))
    sums = ReconstructionSums(INPUTS)
    sums.add(targets, np.broadcast_to(targets.mean(axis=(0, 1, 2)), targets.shape))
    assert list(sums.explained_variances().values()) == pytest.approx([0, 0, 0], abs=1e-9)


def test_means_leave_out_what_is_not_known():
    assert mean_of({"a": 1.0, "b": None, "c": 3.0}) == 2
    assert math.isnan(mean_of({"a": None}))
