"""Output folder of the demo: its check, and removal of an earlier demo's files."""

import contextlib
from collections.abc import Iterator

from eo_keras.core.output_folders import OutputFolder
from eo_keras.errors import OptionError
from launch import app

_FOLDERS = ("records/rgb", "records/ms", "records/cities", "run", "run_cities", "serving", "city_evaluation")
"""Folders of the demo's commands, each with a manifest."""

_PAGES = ("eurosat_rgb", "eurosat_ms", "cities")
_NAMES = (
    *("eurosat_rgb.zip", "eurosat_ms.zip", "predictions.csv"),
    *(f"{name}.{end}" for name in _PAGES for end in ("html", "json")),
)


def check(output: OutputFolder, *, overwrite: bool) -> None:
    """Checks that a folder holds no other demo and no foreign files.

    Raises:
        OptionError: if it does.
    """
    output.check(overwrite=overwrite, writes=_NAMES)
    if output.manifest() is not None and not overwrite:
        raise OptionError("--output_dir", f"{output.folder} holds a demo", remedy="replace it by --overwrite")


@contextlib.contextmanager
def prepared(output: OutputFolder, *, overwrite: bool) -> Iterator[None]:
    """Locks the folder and removes an earlier demo in it, by the manifests of its commands; a context manager."""
    check(output, overwrite=overwrite)
    with output.held(overwrite=overwrite, writes=_NAMES):
        output.clear()
        output.tell_foreign()
        # Pages that were changed since are kept under other names.
        output.announce(_NAMES)
        for line in output.take_warnings():
            app.say(f"warning: {line}")
        for name in _FOLDERS:
            output.add_folder(name)
        yield
