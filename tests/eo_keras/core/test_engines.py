import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from eo_keras.core import engines, files
from eo_keras.core.worker_errors import decode_error, encode_error
from eo_keras.errors import EOKerasError, OptionError, SourceError


def write_scaled(folder, unit):
    files.write_text(f"{folder}/{unit}", str(3 * unit))


def write_process(folder, unit):
    time.sleep(0.05)  # Long enough that one process does not do all.
    files.write_text(f"{folder}/{unit}", str(os.getpid()))


def refuse(context, unit):
    raise SourceError(f"unit {unit}", "it is bad", "a good one", "fix it")


def no_preparation():
    raise FileNotFoundError


def die(context, unit):
    os._exit(9)


def be_killed(folder, unit):
    try:
        (pathlib.Path(folder) / "first").touch(exist_ok=False)
    except FileExistsError:
        time.sleep(60)  # A run that waited for the other worker's units would be late.
    os.kill(os.getpid(), signal.SIGKILL)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_all_units_are_done_and_reported_in_their_order(tmp_path, num_workers):
    with engines.LocalEngine(num_workers, os.getpid) as engine:
        assert list(engine.run(write_scaled, str(tmp_path), range(40))) == list(range(40))
        assert contents(tmp_path) == {str(n): str(3 * n) for n in range(40)}
        # The same processes do the next work too.
        (tmp_path / "b").mkdir()
        assert len(list(engine.run(write_scaled, str(tmp_path / "b"), range(3)))) == 3


def test_one_worker_is_this_process_and_two_are_two_others(tmp_path):
    for num_workers in (1, 2):
        folder = tmp_path / str(num_workers)
        folder.mkdir()
        with engines.LocalEngine(num_workers, os.getpid) as engine:
            list(engine.run(write_process, str(folder), range(8)))
        found = set(contents(folder).values())
        assert len(found) == num_workers and (str(os.getpid()) in found) == (num_workers == 1)


def test_an_error_crosses_the_pool_with_its_words():
    with engines.LocalEngine(2) as engine, pytest.raises(SourceError, match="unit 0: it is bad; expected a good one."):
        list(engine.run(refuse, None, range(5)))


def test_a_preparation_that_fails_troubles_nobody(tmp_path):
    with engines.LocalEngine(2, no_preparation) as engine:
        assert list(engine.run(write_scaled, str(tmp_path), range(3))) == [0, 1, 2]


def test_a_killed_worker_is_our_error():
    with engines.LocalEngine(2) as engine, pytest.raises(EOKerasError, match="ended from outside"):
        list(engine.run(die, None, range(5)))


def test_workers_import_no_tensorflow_and_end_with_their_killed_parent(tmp_path):
    code = (
        "import os, sys, time; from eo_keras.core import engines; import tests_units\n"
        "if __name__ == '__main__':\n"
        "    with engines.LocalEngine(2) as engine:\n"
        "        list(engine.run(tests_units.note, sys.argv[1], range(2)))\n"
        "        os.kill(os.getpid(), 9)\n"
    )
    (tmp_path / "tests_units.py").write_text(
        "import os, pathlib, sys, time\n"
        "def note(folder, unit):\n"
        "    from tfrecords_builder.steps import shards\n"
        "    time.sleep(0.3)\n"
        "    pathlib.Path(folder, str(os.getpid())).write_text(str('tensorflow' in sys.modules))\n"
    )
    (tmp_path / "main.py").write_text(code)
    (tmp_path / "out").mkdir()
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{pathlib.Path(__file__).parents[3]}"}
    assert subprocess.run([sys.executable, tmp_path / "main.py", tmp_path / "out"], env=environment).returncode == -9
    found = contents(tmp_path / "out")
    assert len(found) == 2 and set(found.values()) == {"False"}
    for _ in range(100):
        if not any(_is_alive(int(pid)) for pid in found):
            break
        time.sleep(0.05)
    else:
        pytest.fail("workers outlive their parent")


def _is_alive(pid):
    try:
        # A zombie that nobody has collected yet has ended too.
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_beam_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam.options", None)
    with pytest.raises(OptionError, match=r"not installed. Install it: pip install 'eo-keras\[beam\]'"):
        engines.BeamEngine()


def test_an_error_keeps_its_kind_and_words_inside_another_programs_message():
    error = SourceError("a.zip: b.jpg", "it is bad", "a good one", "fix it")
    found = decode_error(f"RuntimeError: Traceback\n{encode_error(error)} [while running 'x']")
    assert type(found) is SourceError and str(found) == str(error)
    assert decode_error("something else") is None


def test_beam_runs_the_same_units_in_several_processes(tmp_path):
    pytest.importorskip("apache_beam")
    # One process for everything, as the module's tests may run beside a TensorFlow that has threads.
    code = (
        "import sys; from eo_keras.core import engines; from eo_keras.errors import *\n"
        "sys.path.insert(0, sys.argv[2]); import test_engines as t\n"
        "engine = engines.BeamEngine(num_workers=2)\n"
        "print(list(engine.run(t.write_process, sys.argv[1], range(12))))\n"
        "try: list(engine.run(t.refuse, None, range(2)))\n"
        "except SourceError as error: print(error)\n"
        "try: engines.BeamEngine(['--direct_num_workers=many'])\n"
        "except OptionError as error: print(error)\n"
        # Other runners than the one of this machine's processes are neither asked for nor downloaded.
        "print([name for name in sys.modules if 'prism' in name])\n"
        "started = t.time.monotonic()\n"
        "try: list(engine.run(t.be_killed, sys.argv[1], range(4)))\n"
        "except EOKerasError as error: print(error, t.time.monotonic() - started < 60)\n"
    )
    here = str(pathlib.Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": f"{here}:{pathlib.Path(__file__).parents[3]}"}
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), here],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    lines = result.stdout.splitlines()
    assert lines[0] == str(list(range(12))), result.stderr
    assert "it is bad; expected a good one. Fix it" in lines[1]
    assert "--direct_num_workers=many" in lines[2]
    assert lines[3] == "[]"
    assert "one of them was ended from outside (signal 9). Check the memory" in lines[4] and lines[4].endswith("True")
    assert "Traceback" not in result.stderr
    (tmp_path / "first").unlink()
    assert len(contents(tmp_path)) == 12 and len(set(contents(tmp_path).values())) == 2
