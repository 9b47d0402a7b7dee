"""Folders that take long to make: made once, and read by all workers of pytest-xdist."""

import copyreg
import fcntl
import os
import pathlib
import pickle
import tempfile
import types


def _read_only(values):
    return types.MappingProxyType(values)


copyreg.pickle(types.MappingProxyType, lambda proxy: (_read_only, (dict(proxy),)))  # Cards hold them.


def once(tmp_path_factory, name, make):
    """Returns what `make` returned for a folder, which no test may write into.

    Args:
        tmp_path_factory: pytest's.
        name: a name that nothing else has.
        make: function of the empty folder, called by the first worker that asks; what it returns is pickled.
    """
    base = tmp_path_factory.getbasetemp()
    # Each worker has a folder of its own beside those of the others.
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with open(root / f"{name}.pickle", "ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if not (content := file.read()):
            content = pickle.dumps(make(pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))))
            file.write(content)
        return pickle.loads(content)
