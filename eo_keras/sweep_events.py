"""What TensorBoard's tab HParams shows of a sweep: one row a run, with its settings and what it came to.

The runs' own event files are left alone. Here each run has a folder of its own with one small file, written without
TensorFlow's writer, which would take hold of the devices that the runs need.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from eo_keras import tfrecord
from eo_keras.output_folders import OutputFolder
from eo_keras.sweep_grid import format_value
from eo_keras.sweeps import FAILED, FINISHED, TENSORBOARD_DIR, TITLES, Result, Sweep

_FILE = "events.out.tfevents.0000000.sweep"
_VERSION = "brain.Event:2"  # The first record of every event file, or TensorBoard warns.


def metrics_of(found: Sweep) -> dict[str, tuple[str, str]]:
    """Returns what is shown of each run: by tag, the field of `Result` and the column's title."""
    return {
        f"kept/validation_{found.metric}": ("score", f"validation {TITLES[found.metric]}, kept epoch"),
        "kept/validation_loss": ("loss", "validation loss, kept epoch"),
        "kept/epoch": ("epoch", "kept epoch"),
        f"epoch/validation_{found.metric}": ("last_score", f"validation {TITLES[found.metric]}, last epoch"),
        "epoch/validation_loss": ("last_loss", "validation loss, last epoch"),
        "minutes": ("minutes", "minutes of training"),
    }


def write(found: Sweep, output: OutputFolder) -> None:
    """Writes the experiment, and a session for each run that is finished or failed; what has not changed is left alone.

    Raises:
        StorageError: if they cannot be written.
    """
    from tensorboard.plugins.hparams import api as hp

    hparams = [hp.HParam(name, hp.Discrete(_domain(found.results, name))) for name in found.varied]
    metrics = [
        hp.Metric(tag, display_name=title, dataset_type=hp.Metric.VALIDATION if "validation" in tag else None)
        for tag, (_, title) in metrics_of(found).items()
    ]
    _write(output, f"{TENSORBOARD_DIR}/{_FILE}", [(0, hp.hparams_config_pb(hparams, metrics, time_created_secs=0.0))])
    for result in found.results:
        if result.status in (FINISHED, FAILED):
            _write(output, f"{TENSORBOARD_DIR}/{result.name}/{_FILE}", _session(found, result))


def _session(found: Sweep, result: Result) -> list[tuple[int, Any]]:
    from tensorboard.plugins.hparams import api as hp
    from tensorboard.plugins.hparams import api_pb2, summary
    from tensorboard.plugins.scalar import summary_v2 as scalars

    values = {name: _value(found.results, name, value) for name, value in result.settings.items()}
    status = api_pb2.STATUS_SUCCESS if result.status == FINISHED else api_pb2.STATUS_FAILURE
    ended = result.ended or 0.0
    # Named by the run and not by its values, so that the table and the folders have the same names.
    records = [(0, hp.hparams_pb(values, trial_id=result.name, start_time_secs=max(0.0, ended - result.seconds)))]
    records.append((0, summary.session_end_pb(status, end_time_secs=ended)))
    numbers = dataclasses.asdict(result) | {"minutes": result.seconds / 60}
    for tag, (name, _) in metrics_of(found).items():
        if numbers[name] is not None:
            records.append((result.epochs, scalars.scalar_pb(tag, numbers[name])))
    return records


def _domain(results: Sequence[Result], name: str) -> list[Any]:
    return list(dict.fromkeys(_value(results, name, result.settings[name]) for result in results))


def _value(results: Sequence[Result], name: str, value: Any) -> Any:
    """Returns a value as TensorBoard can show it: where one is `none`, all are words."""
    return format_value(value) if any(result.settings[name] is None for result in results) else value


def _write(output: OutputFolder, name: str, summaries: Sequence[tuple[int, Any]]) -> None:
    from tensorboard.compat.proto import event_pb2

    buffer = io.BytesIO()
    content = [event_pb2.Event(step=step) for step, _ in summaries]
    for event, (_, summary) in zip(content, summaries, strict=True):
        # TensorBoard's classes and TensorFlow's are not the same, but say the same in bytes.
        event.summary.ParseFromString(summary.SerializeToString())
    earlier = _content(output.path(name))
    if earlier == [event.SerializeToString(deterministic=True) for event in content]:
        return
    now = time.time()
    for event in (event_pb2.Event(file_version=_VERSION), *content):
        event.wall_time = now
        tfrecord.write_record(buffer, event.SerializeToString(deterministic=True))
    output.write({name: buffer.getvalue()})


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
