"""Content of TensorBoard's tab HParams for a sweep: one row a run, with its settings and results.

Each run's session is one small file beside the run's own event files, so that a run is listed once. Its tags are its
own: `kept/...` and `last/...` at the epoch that they are of.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from eo_keras.core.output_folders import OutputFolder
from eo_keras.records import tfrecord
from eo_keras.runs import event_files
from eo_keras.runs import folder as runs
from eo_keras.runs.event_files import SESSION, TRAIN, name_of
from eo_keras.sweeps.grid import format_value
from eo_keras.sweeps.state import FAILED, FINISHED, TENSORBOARD_DIR, RunStatus, Sweep

_FILE = "events.out.tfevents.0000000.sweep"


def metrics_of(sweep: Sweep) -> dict[str, tuple[str, str]]:
    """Returns the columns of the table: by tag, the field of `RunStatus` and the title."""
    return {
        f"kept/validation_{sweep.metric}": ("score", f"validation {sweep.monitor.title}, kept epoch"),
        "kept/validation_loss": ("loss", "validation loss, kept epoch"),
        "kept/epoch": ("epoch", "kept epoch"),
        f"last/validation_{sweep.metric}": ("last_score", f"validation {sweep.monitor.title}, last epoch"),
        "last/validation_loss": ("last_loss", "validation loss, last epoch"),
        "minutes": ("minutes", "minutes of training"),
    }


def write(sweep: Sweep, output: OutputFolder) -> None:
    """Writes the experiment, and a session for each finished or failed run; unchanged files are left.

    Raises:
        StorageError: if they cannot be written.
    """
    from tensorboard.plugins.hparams import api as hp

    hparams = [hp.HParam(name, hp.Discrete(_domain(sweep.results, name))) for name in sweep.varied]
    metrics = [
        hp.Metric(tag, display_name=title, dataset_type=hp.Metric.VALIDATION if "validation" in tag else None)
        for tag, (_, title) in metrics_of(sweep).items()
    ]
    _write(output, f"{TENSORBOARD_DIR}/{_FILE}", [(0, hp.hparams_config_pb(hparams, metrics, time_created_secs=0.0))])
    for result in sweep.results:
        if result.status in (FINISHED, FAILED):
            inner, name = f"{TENSORBOARD_DIR}/{result.name}/{_FILE}", name_of(TRAIN, SESSION)
            run = runs.output_folder(output.path(result.name))
            if run.manifest() is None:
                # Of a run that failed before it had a folder.
                run, name = output, inner
            else:
                output.remove([inner])
            _write(run, name, _session(sweep, result))


def _session(sweep: Sweep, result: RunStatus) -> list[tuple[int, Any]]:
    from tensorboard.plugins.hparams import api as hp
    from tensorboard.plugins.hparams import api_pb2, summary

    values = {name: _value(sweep.results, name, value) for name, value in result.settings.items()}
    status = api_pb2.STATUS_SUCCESS if result.status == FINISHED else api_pb2.STATUS_FAILURE
    ended = result.ended or 0.0
    # Named by the run and not by its values, so that the table and the folders have the same names.
    records = [(0, hp.hparams_pb(values, trial_id=result.name, start_time_secs=max(0.0, ended - result.seconds)))]
    records.append((0, summary.session_end_pb(status, end_time_secs=ended)))
    numbers = dataclasses.asdict(result) | {"minutes": result.seconds / 60}
    for tag, (name, _) in metrics_of(sweep).items():
        if numbers[name] is not None:
            epoch = result.epoch if tag.startswith("kept/") else result.epochs
            records.append((epoch or 0, event_files.scalar(tag, numbers[name])))
    return records


def _domain(results: Sequence[RunStatus], name: str) -> list[Any]:
    return list(dict.fromkeys(_value(results, name, result.settings[name]) for result in results))


def _value(results: Sequence[RunStatus], name: str, value: Any) -> Any:
    """Returns a value for TensorBoard: text where a value of the same flag is `none`."""
    return format_value(value) if any(result.settings[name] is None for result in results) else value


def _write(output: OutputFolder, name: str, summaries: Sequence[tuple[int, Any]]) -> None:
    content = [event.SerializeToString(deterministic=True) for event in event_files.messages(summaries)]
    if _content(output.path(name)) != content:
        output.write({name: event_files.begin() + event_files.events(summaries)})


def _content(path: pathlib.Path) -> list[bytes] | None:
    """Returns the events of a file without their times, or None where there is none that can be read."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto import event_pb2

    from eo_keras.errors import RecordsError

    try:
        events = [event_pb2.Event.FromString(record) for record in tfrecord.read_records(path)]
    except (FileNotFoundError, RecordsError, DecodeError):
        return None
    for event in events:
        event.wall_time = 0.0
    return [event.SerializeToString(deterministic=True) for event in events[1:]]
