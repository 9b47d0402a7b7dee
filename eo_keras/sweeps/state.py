"""State of a sweep and of its runs, as stored in `sweep.json`."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from eo_keras.errors import RunError
from eo_keras.metrics.metric import METRICS, Metric

JSON_NAME = "sweep.json"
FLAGS_DIR, LOGS_DIR, TENSORBOARD_DIR = "flags", "logs", "tensorboard"
SCHEMA = 2
KIND = "sweep"

WAITING, INTERRUPTED, FAILED, FINISHED = "waiting", "interrupted", "failed", "finished"


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """Progress and result of a run.

    Attributes:
        name: the run's name.
        settings: its values of the varied flags.
        status: `waiting`, `interrupted`, `failed` or `finished`.
        epochs: number of epochs that are done.
        epoch: the kept epoch, counted from 1.
        score: its score on the validation examples, 0 to 1, see `metric`.
        loss: its cross-entropy on the validation examples, in nats.
        last_score: the same of the last epoch so far.
        last_loss: the same of the last epoch so far.
        seconds: time that the epochs took.
        wall_seconds: time that the whole process took; None where it took several.
        ended: when it reached this status, in seconds of Unix time.
        problem: the reason of a failure.
        metric: name of the score, such as `accuracy` or `miou`.
    """

    name: str
    settings: Mapping[str, Any]
    status: str = WAITING
    epochs: int = 0
    epoch: int | None = None
    score: float | None = None
    loss: float | None = None
    last_score: float | None = None
    last_loss: float | None = None
    seconds: float = 0.0
    wall_seconds: float | None = None
    ended: float | None = None
    problem: str = ""
    metric: str = "accuracy"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """State of a sweep.

    Attributes:
        base: the base's flags by name, without the varied ones.
        data_fingerprint: fingerprint of the records' card.
        validation: on which examples the runs are compared.
        results: one entry a run.
    """

    base: Mapping[str, Any]
    data_fingerprint: str
    validation: str
    results: tuple[RunStatus, ...]

    @property
    def varied(self) -> tuple[str, ...]:
        """Names of the varied flags, the seed last."""
        return tuple(self.results[0].settings)

    @property
    def metric(self) -> str:
        """Name of the score by which the runs are compared."""
        return self.results[0].metric

    @property
    def monitor(self) -> Metric:
        """The score by which the runs are compared."""
        return METRICS[self.metric]


def read_sweep(folder: str | os.PathLike[str]) -> Sweep | None:
    """Reads the state of a sweep; None where the folder holds none.

    Raises:
        RunError: if it cannot be read.
    """
    path = pathlib.Path(folder) / JSON_NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"its layout has version {content['schema']}, this program reads version {SCHEMA}")
        return Sweep(
            content["base"],
            content["data_fingerprint"],
            content["validation"],
            tuple(
                RunStatus(**{field.name: row[field.name] for field in dataclasses.fields(RunStatus)})
                for row in content["runs"]
            ),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            path,
            f"it cannot be read ({type(error).__name__}: {error})",
            "what a sweep wrote",
            "remove the file: the runs are kept, and the sweep finds them again",
        ) from None


def replaced(sweep: Sweep, result: RunStatus) -> Sweep:
    """Returns a sweep in which the status of a run is replaced."""
    return dataclasses.replace(
        sweep, results=tuple(result if one.name == result.name else one for one in sweep.results)
    )
