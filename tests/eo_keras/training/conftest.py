"""Trainings here draw no figures."""

import pytest

from tests.harness import figures


@pytest.fixture(autouse=True)
def undrawn_figures():
    with figures.undrawn():
        yield
