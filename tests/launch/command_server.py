"""Runs commands, each in a fork of a process that has TensorFlow imported: importing it takes most of their time.

Reads a line of JSON a command from standard input and writes a line with the exit code. TensorFlow has touched no
device when a fork is made.
"""

import gc
import json
import multiprocessing
import os
import runpy
import sys

from launch.app import import_tensorflow_quietly


def _become(module, words, folder, variables, out, err):
    """Turns this fork into a process that was begun by `python -m MODULE WORDS`."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for descriptor, opened in enumerate(
        (nowhere, *(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in (out, err)))
    ):
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv[1:] = words
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main():
    import_tensorflow_quietly()
    import eo_keras.inspection.page
    import eo_keras.training.train  # noqa: F401
    import tfrecords_builder.build  # noqa: F401

    gc.freeze()  # Or each fork would copy the pages of all that is there when it collects.
    print("ready", flush=True)
    for line in sys.stdin:
        # A fork of multiprocessing ends without taking TensorFlow down, which takes as long as its import.
        process = multiprocessing.get_context("fork").Process(target=_become, kwargs=json.loads(line))
        process.start()
        process.join()
        print(process.exitcode, flush=True)


if __name__ == "__main__":
    main()
