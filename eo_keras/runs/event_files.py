"""TensorBoard's event files as bytes, without TensorFlow's writer, which initializes devices and names the files.

What a summary holds is described by TensorBoard's plugins; a file is a TFRecord file of `Event` messages.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from typing import Any

from eo_keras.records import tfrecord

TENSORBOARD_DIR = "tensorboard"

TRAIN, VALIDATION = "train", "validation"
"""Folders inside a run's `tensorboard/`, the names of runs in TensorBoard."""

# TensorBoard reads the files of a folder in the order of their names.
STEPS, EPOCH = "events.out.tfevents.{:07d}.0-steps", "events.out.tfevents.{:07d}.1-epoch"
SESSION = "events.out.tfevents.9999999.sweep"
"""Name of a sweep's event file with the result of a run, see `eo_keras.sweeps.tensorboard`."""

_VERSION = "brain.Event:2"  # The first record of every event file, or TensorBoard warns.


def name_of(run: str, file: str, epoch: int = 0) -> str:
    """Returns the path of an event file in a run folder."""
    return f"{TENSORBOARD_DIR}/{run}/{file.format(epoch)}"


def scalar(tag: str, value: float) -> Any:
    """Returns the summary of a number."""
    from tensorboard.plugins.scalar import summary_v2

    return summary_v2.scalar_pb(tag, value)


def text(tag: str, content: str) -> Any:
    """Returns the summary of a text in Markdown."""
    from tensorboard.plugins.text import summary_v2

    return summary_v2.text_pb(tag, content)


def image(tag: str, png: bytes, width: int, height: int) -> Any:
    """Returns the summary of a picture, PNG bytes and size."""
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.image import metadata
    from tensorboard.util import tensor_util

    content = [str(width).encode(), str(height).encode(), png]
    described = metadata.create_summary_metadata(display_name=None, description="")
    summary = summary_pb2.Summary()
    value = summary.value.add(tag=tag, metadata=described)
    value.tensor.CopyFrom(tensor_util.make_tensor_proto(content))
    return summary


def begin() -> bytes:
    """Returns the first record of a file."""
    from tensorboard.compat.proto import event_pb2

    return _records([event_pb2.Event(file_version=_VERSION)])


def events(summaries: Iterable[tuple[int, Any]]) -> bytes:
    """Returns summaries, each with its step, as records of a file."""
    return _records(messages(summaries))


def messages(summaries: Iterable[tuple[int, Any]]) -> list[Any]:
    """Returns summaries, each with its step, as messages without a time."""
    from tensorboard.compat.proto import event_pb2

    found = []
    for step, summary in summaries:
        event = event_pb2.Event(step=step)
        # TensorBoard's classes and TensorFlow's are not the same, but say the same in bytes.
        event.summary.ParseFromString(summary.SerializeToString())
        found.append(event)
    return found


def _records(found: Iterable[Any]) -> bytes:
    buffer, now = io.BytesIO(), time.time()
    for event in found:
        event.wall_time = now
        tfrecord.write_record(buffer, event.SerializeToString(deterministic=True))
    return buffer.getvalue()
