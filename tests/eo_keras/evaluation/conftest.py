"""Evaluations here draw no figures: tests of eo_keras.plots do."""

import pytest

from tests.harness import figures


@pytest.fixture(scope="module", autouse=True)
def undrawn_figures():
    with figures.undrawn():
        yield
