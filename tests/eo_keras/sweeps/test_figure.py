import dataclasses

import pytest

from eo_keras.sweeps import figure, grid, state
from eo_keras.sweeps.state import RunStatus


@pytest.mark.parametrize(
    ("varied", "shown"),
    [
        ({"seed": [1, 2]}, ("seed", None)),
        ({"weight_decay": [0.0, 0.1, 0.2], "learning_rate": [0.1], "seed": [1]}, ("learning_rate", "weight_decay")),
        ({"weight_decay": [0.1, 0.2]}, ("weight_decay", None)),
        ({"learning_rate": [0.1], "ema": [0.0, 0.9], "optimizer": ["sgd", "adamw", "rmsprop"]}, ("optimizer", "ema")),
    ],
)
def test_the_figure_shows_the_flags_with_most_values(varied, shown):
    points = grid.expand(varied)
    found = [RunStatus(grid.run_name(point), point, state.FINISHED, score=0.9) for point in points]
    found[-1] = dataclasses.replace(found[-1], status=state.FAILED, score=None)
    assert figure.shown_flags(found) == shown
    assert figure.figure_png(found, {}).startswith(b"\x89PNG")
    assert figure.figure_png(found[-1:]).startswith(b"\x89PNG")
