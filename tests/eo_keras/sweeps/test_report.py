import pytest

from eo_keras.sweeps import grid, report, state
from eo_keras.sweeps.state import RunStatus


def results(*rows):
    """Returns runs of (learning rate, seed, accuracy or None for failed, loss)."""
    made = []
    for rate, seed, accuracy, loss in rows:
        point = {"learning_rate": rate, "seed": seed}
        status = state.FINISHED if accuracy is not None else state.FAILED
        made.append(
            RunStatus(grid.run_name(point), point, status, 5, 4, accuracy, loss, accuracy, loss, 120.0, 150.0, 1e9)
        )
    return tuple(made)


ROWS = results(
    (0.1, 1, 0.90, 0.30), (0.1, 2, 0.92, 0.34), (0.1, 3, 0.97, 0.20),
    (0.2, 1, 0.94, 0.25),
    (0.3, 1, 0.99, 0.10), (0.3, 2, None, None),
)  # fmt: skip


def test_means_and_deviations_by_hand():
    first, second, third = report.settings_of(ROWS)
    # Deviations from 0.93: -0.03, -0.01, 0.04, whose squares sum to 0.0026; over two.
    assert first.score == pytest.approx(0.93) and first.score_sd == pytest.approx(0.0013**0.5)
    # From 0.28: 0.02, 0.06, -0.08: 0.0104.
    assert first.loss == pytest.approx(0.28) and first.loss_sd == pytest.approx(0.0052**0.5)
    assert first.minutes == 2.0 and (first.runs, first.finished, first.failed) == (3, 3, 0)
    assert second.score == 0.94 and second.score_sd is None and second.loss_sd is None
    assert (third.runs, third.finished, third.failed) == (2, 1, 1)


def test_the_table_marks_the_best_and_not_what_failed():
    found = state.Sweep({}, "", "the split val", ROWS)
    rows = report.table(found).rows
    assert rows[0] == ("0.2", "best", "1 of 1", "94.00%", "-", "0.2500", "-", "2.0")
    assert rows[1] == ("0.3", "1 failed", "1 of 2", "99.00%", "-", "0.1000", "-", "2.0")
    assert rows[2] == ("0.1", "", "3 of 3", "93.00%", "3.61", "0.2800", "0.0721", "2.0")
    text = " ".join(report.cautions(found))
    assert "test split was not evaluated" in text and "With one seed a setting" in text


def test_of_equal_accuracies_the_lower_loss_is_best_and_the_gap_is_told():
    rows = results((0.1, 1, 0.9, 0.3), (0.1, 2, 0.92, 0.3), (0.2, 1, 0.9, 0.2), (0.2, 2, 0.92, 0.2))
    best = report.best_of(report.settings_of(rows))
    assert best.values == {"learning_rate": 0.2}
    text = " ".join(report.cautions(state.Sweep({}, "", "v", rows)))
    assert "0.00 points lower; seeds differ by a standard deviation of 1.41 points" in text
    assert report.best_of(report.settings_of(results((0.1, 1, None, None)))) is None
