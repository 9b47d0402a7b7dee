"""Runs modules, each in a fork of a process that has TensorFlow imported: importing it takes most of their time.

Reads lines of JSON from standard input. For a module to start, the process's number is written; it runs beside those
started before. For `wait`, that process's exit code is written. TensorFlow has touched no device when a fork is made.
The networks of tests.harness.tiny are registered, and figures are not drawn.
"""

import gc
import json
import multiprocessing
import os
import runpy
import sys

from launch.app import import_tensorflow_quietly


def _become(module, words, folder, variables, out, err):
    """Turns this fork into a process started by `python -m MODULE WORDS`, or by `python -c WORDS`."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for descriptor, opened in enumerate(
        (nowhere, *(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for path in (out, err)))
    ):
        os.dup2(opened, descriptor)
        os.close(opened)
    if module == "-c":
        sys.argv = [module, *words[1:]]
        exec(compile(words[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv[1:] = words
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def main():
    import_tensorflow_quietly()
    import eo_keras.inspection.page  # noqa: F401
    import eo_keras.training.train  # noqa: F401
    import tfrecords_builder.build  # noqa: F401
    from tests.harness import figures, tiny

    tiny.register()
    with figures.undrawn():
        _serve()


def _serve():
    gc.freeze()  # Or each fork would copy the pages of all that is there when it collects.
    print("ready", flush=True)
    processes = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            process = processes.pop(request["wait"])
            process.join()
            print(process.exitcode, flush=True)
        else:
            # A fork of multiprocessing ends without taking TensorFlow down, which takes as long as its import.
            process = multiprocessing.get_context("fork").Process(target=_become, kwargs=request)
            process.start()
            processes[process.pid] = process
            print(process.pid, flush=True)


if __name__ == "__main__":
    main()
