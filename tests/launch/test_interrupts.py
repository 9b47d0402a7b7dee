"""Commands that are interrupted while they import: stand-ins for the libraries catch every exception, as some do."""

import os
import signal
import subprocess
import sys
import time

import pytest


@pytest.fixture(autouse=True)
def heard():
    """Signals that whoever started the tests ignores, as shells do in the background, are heard by the commands."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


STAND_IN = """
import pathlib, time
pathlib.Path({ready!r}).touch()
try:
    for _ in range(2000):
        time.sleep(0.01)  # A signal just before a long sleep would be handled after it.
except BaseException:
    pass
raise SystemExit("the interrupt was swallowed")
"""


@pytest.mark.parametrize(
    ("library", "number", "words"),
    [
        ("tqdm", signal.SIGINT, ["launch.export"]),  # Imported before any flag is read.
        ("tqdm", signal.SIGTERM, ["launch.export"]),
        ("tqdm", signal.SIGINT, ["launch", "export"]),
        ("tensorflow", signal.SIGINT, ["launch.export"]),
        ("tensorflow", signal.SIGTERM, ["launch.export"]),
        ("keras", signal.SIGINT, ["launch.export"]),
    ],
)
def test_an_interrupt_within_an_import_ends_the_command(tmp_path, library, number, words):
    ready = tmp_path / "ready"
    (tmp_path / f"{library}.py").write_text(STAND_IN.format(ready=str(ready)))
    process = subprocess.Popen(
        [sys.executable, "-m", *words, f"--run_dir={tmp_path}", f"--export_dir={tmp_path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    name = "launch.export" if len(words) == 1 else "eo-keras export"
    try:
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (128 + number, "", f"{name}: interrupted\n")


PROGRAM = """
import multiprocessing, os, signal, sys, time
from launch import interrupts
interrupts.listen()
interrupts.begin()
sys.path.insert(0, {folder!r})
context = multiprocessing.get_context("fork")
up = context.Event()
worker = context.Process(target=lambda: (up.set(), [time.sleep(0.05) for _ in range(400)]))
if {workers}:
    worker.start()
    # A signal that reaches a process while it is forked is lost.
    up.wait()
try:
    import interrupted
except KeyboardInterrupt:
    worker.terminate() if {workers} else None
    sys.exit(9)
"""


@pytest.mark.parametrize(("workers", "code"), [(False, 130), (True, 9)])
def test_late_imports_leave_no_workers_behind(tmp_path, workers, code):
    (tmp_path / "interrupted.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(9): pass"
    )
    program = PROGRAM.format(folder=str(tmp_path), workers=workers)
    assert subprocess.run([sys.executable, "-c", program], timeout=20).returncode == code


def test_an_interrupt_while_multiprocessing_itself_is_imported(tmp_path):
    (tmp_path / "interrupted.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(9): pass"
    )
    program = (
        "import sys, types; from launch import interrupts; interrupts.listen(); interrupts.begin()\n"
        f"sys.modules['multiprocessing'] = types.ModuleType('half'); sys.path.insert(0, {str(tmp_path)!r})\n"
        "import interrupted"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=20).returncode == 130


def test_ignored_signals_stay_ignored():
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from launch import interrupts; interrupts.listen()\n"
        "assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
