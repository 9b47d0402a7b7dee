"""Errors of worker processes: the error of a lost worker, and errors encoded as text inside other messages."""

from __future__ import annotations

import base64
import json
import re

from eo_keras import errors
from eo_keras.errors import EOKerasError

_CODED = re.compile(r"<eo_keras:([A-Za-z0-9+/=]+)>")


def worker_lost(how: str = "") -> EOKerasError:
    """Returns the error of a worker process that was ended; `how` adds details."""
    return EOKerasError(
        "worker processes",
        f"one of them was ended from outside{how and f' ({how})'}",
        remedy="check the memory left on the machine, or use fewer workers with `num_workers`",
    )


def encode_error(error: EOKerasError) -> str:
    """Returns an error as text from which it can be restored, even inside another message."""
    fields = [type(error).__name__, *map(str, error.args)]
    return f"<eo_keras:{base64.b64encode(json.dumps(fields).encode()).decode()}>"


def decode_error(text: str) -> EOKerasError | None:
    """Returns the error that a message holds, or None."""
    match = _CODED.search(text)
    if match is None:
        return None
    name, *arguments = json.loads(base64.b64decode(match[1]))
    return getattr(errors, name)(*arguments)
