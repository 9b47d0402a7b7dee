"""Units of work for a Dask cluster; its processes import this module, which loads little."""

import os
import pathlib
import signal
import time

from eo_keras.errors import SourceError


def note(folder, unit):
    time.sleep(0.05)  # Long enough that one process does not do all.
    pathlib.Path(folder, str(unit)).write_text(str(os.getpid()))


def refuse(context, unit):
    raise SourceError(f"unit {unit}", "it is bad", "a good one", "fix it")


def be_killed(context, unit):
    os.kill(os.getpid(), signal.SIGKILL)


def take_time(folder, unit):
    pathlib.Path(folder, f"begun-{unit}").touch()
    time.sleep(0.5)
    pathlib.Path(folder, f"done-{unit}").touch()
