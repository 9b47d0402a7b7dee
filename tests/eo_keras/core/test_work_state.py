"""State of unfinished work whose removal was cut off, or whose files are damaged."""

import itertools
import os

import pytest

from eo_keras.core.output_folders import OutputFolder
from eo_keras.core.work_state import WorkState
from eo_keras.errors import StorageError

UNITS = [f"unit-{number}.npz" for number in range(8)]


@pytest.fixture
def begun(tmp_path):
    """A function that returns the state of work that has finished some units."""

    def begin(name="work"):
        output = OutputFolder(tmp_path / name, "records folder", StorageError)
        state = WorkState(output, ".build", "build", StorageError)
        state.begin({"seed": 1}, {"a.tif": 1}, overwrite=False)
        for unit in UNITS:
            state.output.path(f".build/{unit}").write_bytes(b"finished")
        return state

    return begin


def units_of(state):
    return [name for name in UNITS if state.output.path(f".build/{name}").exists()]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_state_is_whole_or_none_wherever_its_removal_was_cut_off(begun, monkeypatch, seed):
    unlink = os.unlink
    for removed in itertools.count(1):
        state, left = begun(f"work-{removed}"), itertools.count(removed, -1)

        def cut_off(*arguments, left=left, **kwargs):
            if next(left) == 0:
                raise KeyboardInterrupt
            unlink(*arguments, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(os, "unlink", cut_off)
            try:
                state.remove()
                break
            except KeyboardInterrupt:
                pass
        # Neither the same work nor other work is refused, and no unit of the old one is taken for finished.
        assert state.begin({"seed": seed}, {"a.tif": 1}, overwrite=False) == ()
        assert units_of(state) == [] and state.description() == {"seed": seed}
    assert removed > len(UNITS)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b'{"a.')])
def test_without_its_list_of_sources_the_same_work_starts_over_and_other_work_is_refused(begun, damage):
    state = begun()
    damage(state.output.path(".build/sources.json"))
    with pytest.raises(StorageError, match="unfinished build of something else .`seed` was 1, is now 2"):
        state.begin({"seed": 2}, {"a.tif": 1}, overwrite=False)
    assert units_of(state) == UNITS
    state.begin({"seed": 1}, {"a.tif": 1}, overwrite=False)
    assert units_of(state) == []
