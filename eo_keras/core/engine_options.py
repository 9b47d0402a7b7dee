"""Options of what runs a command's units of work, and the engine made from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from eo_keras.core import engines
from eo_keras.core.options import check, option
from eo_keras.errors import OptionError

ENGINES = ("local", "dask", "beam")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options of what runs the units of work; a base of the options of commands that have such units."""

    num_workers: int = option(1, minimum=1, affects_result=False, help="Processes of this machine.")
    engine: str = option(
        "local",
        choices=ENGINES,
        affects_result=False,
        help="What runs the work: processes of this machine, a Dask cluster, or Apache Beam.",
    )
    scheduler: str | None = option(
        None, affects_result=False, help="Address of the Dask scheduler, such as tcp://HOST:8786. Needs `engine=dask`."
    )
    beam_options: tuple[str, ...] = option(
        (),
        item="beam_option",
        affects_result=False,
        help="Options of Apache Beam, such as --runner=FlinkRunner.",
    )

    def __post_init__(self):
        """Checks types and ranges."""
        check(self)

    def check_engine(self, paths: Iterable[str]) -> None:
        """Checks that the options fit each other, and the paths that are read and written.

        Raises:
            OptionError: if they do not.
        """
        if self.beam_options and self.engine != "beam":
            raise OptionError("beam_option", f"it does not apply to `engine={self.engine}`", "`engine=beam`")
        if self.scheduler and self.engine != "dask":
            raise OptionError("scheduler", f"it does not apply to `engine={self.engine}`", "`engine=dask`")
        if self.engine == "dask" and not self.scheduler:
            raise OptionError("scheduler", "it is not given", "the address of a Dask scheduler, for `engine=dask`")
        in_memory = [path for path in paths if str(path).startswith("memory://")]
        if in_memory and (self.num_workers > 1 or self.engine != "local"):
            raise OptionError(
                in_memory[0],
                "files in memory are seen by one process alone",
                "`engine=local` `num_workers=1`, or another file system",
            )

    def make_engine(self, prepare: Callable[[], Any] | None = None) -> engines.Engine:
        """Returns the engine; `prepare` is called in local worker processes at once.

        Raises:
            OptionError: if what it needs is not installed, or refuses the options.
        """
        if self.engine == "dask":
            try:
                from eo_keras.core.dask_engine import DaskEngine
            except ImportError:
                remedy = "install it: pip install 'eo-keras[dask]'"
                raise OptionError("`engine=dask`", "Dask's distributed is not installed", remedy=remedy) from None
            return DaskEngine(self.scheduler)
        if self.engine == "beam":
            return engines.BeamEngine(self.beam_options, self.num_workers)
        return engines.LocalEngine(self.num_workers, prepare)
