"""Trainings here take the networks of tests.harness.tiny, and draw no figures."""

import pytest

from tests.harness import figures, tiny


@pytest.fixture(scope="session", autouse=True)
def tiny_networks():
    tiny.register()


@pytest.fixture(scope="module", autouse=True)
def undrawn_figures():
    with figures.undrawn():
        yield
