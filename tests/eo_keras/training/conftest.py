"""Trainings here take the networks of tests.harness.tiny, and draw no figures."""

import pytest

from tests.harness import figures, tiny


@pytest.fixture(scope="package", autouse=True)
def tiny_networks_for_all():
    with tiny.registered():
        yield


@pytest.fixture(autouse=True)
def undrawn_figures():
    with figures.undrawn():
        yield
