"""Kills builds at random moments and calls them again; a program of its own, without threads and TensorFlow.

python killing.py DATASET SOURCE FOLDER KILLS SEED WORKERS: builds once undisturbed; then, KILLS times, begins a build
in a process group of its own, kills the group, calls the same build again and compares all bytes. Every second moment
is drawn over the undisturbed build's duration, the others over the files it leaves: a processor that is busy with
other work stretches the former, not the latter. Prints a JSON object with what was found.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time

from eo_keras.core import files
from tfrecords_builder import build
from tfrecords_builder.storage import output, state


def bytes_of(folder):
    # A killed process leaves its lock's file, which holds nobody back.
    paths = sorted(path for path in folder.iterdir() if path.name != files.FolderLock.NAME)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def begin(options):
    """Starts a build in a process of its own and returns the process's number."""
    child = os.fork()
    if child:
        # By both of the two, whichever comes first: the group must exist before it is killed.
        with contextlib.suppress(PermissionError):
            os.setpgid(child, child)
        return child
    os.setpgid(0, 0)
    try:
        build.build(options)
    finally:
        os._exit(0)


def stage_of(folder):
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if "card.json" in names:
        # The list in the folder says it last.
        return "clearing" if output.folder(str(folder)).has_scratch(state.STATE_FOLDER) else "finished"
    if any("tfrecord" in name for name in names):
        return "writing"
    return "scanning" if state.STATE_FOLDER in names else "before"


def wait_for_files(child, folder, count):
    """Waits until a build has put COUNT files and folders into its folder, or has ended."""
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if folder.is_dir() and len(os.listdir(folder)) >= count:
            return
        time.sleep(0.0005)


def main():
    dataset, source, folder, kills, seed, workers = sys.argv[1:]
    folder, draw = pathlib.Path(folder), random.Random(int(seed))

    def options(name):
        return build.BuildOptions(dataset, source, str(folder / name), shard_mb=0.5, num_workers=int(workers))

    build.build(options("warm"))
    started = time.monotonic()
    os.waitpid(begin(options("whole")), 0)
    duration, expected = time.monotonic() - started, bytes_of(folder / "whole")
    found = {"kills": 0, "equal": 0, "kept_shards": 0, "stages": {}, "seconds": duration}
    for number in range(int(kills)):
        target = folder / f"killed{number}"
        child = begin(options(target.name))
        # One moment in every slice of the build, so that no stage is left out.
        fraction = (number + draw.random()) / int(kills)
        if number % 2:
            time.sleep(duration * fraction)
        else:
            wait_for_files(child, target, 1 + int(fraction * len(expected)))
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        stage = stage_of(target)
        found["kills"] += 1
        found["stages"][stage] = found["stages"].get(stage, 0) + 1
        if stage != "finished":
            found["kept_shards"] += build.build(options(target.name)).kept_shards
        found["equal"] += bytes_of(target) == expected
        shutil.rmtree(target)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
