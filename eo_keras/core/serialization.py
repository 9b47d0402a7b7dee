"""Serialization of frozen dataclasses as JSON files with a checksum."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from eo_keras.core import files
from eo_keras.errors import EOKerasError

CHECKSUM = "checksum"
"""Entry of a file: SHA-256 of all other entries. The earliest files lack it."""


_OMITTED = "eo_keras.omitted_at_default"


def later_field(default: Any) -> Any:
    """Declares a field that earlier versions did not write: at its default, it is left out of the file.

    Files of cards that do not need it stay what they were, byte for byte.

    Args:
        default: its default: a value, or a type such as `dict` for an empty one.
    """
    metadata = {_OMITTED: default() if isinstance(default, type) else default}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def to_json(card: Any) -> Any:
    """Converts a card, or any dataclass inside one, to dictionaries, lists and numbers for JSON."""
    if dataclasses.is_dataclass(card):
        values = ((field, getattr(card, field.name)) for field in dataclasses.fields(card))
        return {
            field.name: to_json(value)
            for field, value in values
            if not (_OMITTED in field.metadata and value == field.metadata[_OMITTED])
        }
    if isinstance(card, Mapping):
        return {str(key): to_json(value) for key, value in card.items()}
    if isinstance(card, (list, tuple)):
        return [to_json(value) for value in card]
    return card


def from_json(kind: type, value: Any) -> Any:
    """Builds a dataclass of type `kind` from parsed JSON.

    Raises:
        ValueError: if fields are missing, unknown or of the wrong type.
    """
    origin = typing.get_origin(kind)
    if origin is types.UnionType:
        if value is None:
            return None
        kinds = [one for one in typing.get_args(kind) if one is not type(None)]
        # Of several number types, a value keeps its own: a card that is written again is the same file.
        kind = next((one for one in kinds if type(value) is one), kinds[0])
        return from_json(kind, value)
    if dataclasses.is_dataclass(kind):
        hints = _type_hints(kind)
        if not isinstance(value, dict) or set(value) - set(hints):
            raise ValueError(f"no {kind.__name__}: {str(value)[:80]}")
        try:
            return kind(**{name: from_json(hints[name], item) for name, item in value.items()})
        except TypeError as error:
            raise ValueError(str(error)) from None
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"no list: {str(value)[:80]}")
        return tuple(from_json(typing.get_args(kind)[0], item) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise ValueError(f"no object: {str(value)[:80]}")
        content = typing.get_args(kind)[1]
        return types.MappingProxyType({key: from_json(content, item) for key, item in value.items()})
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{str(value)[:80]!r} is no {kind.__name__}")
    return value


@functools.cache
def _type_hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def signed_bytes(content: Any) -> bytes:
    """Returns a dataclass as JSON with its checksum."""
    value = to_json(content)
    return files.json_bytes(value | {CHECKSUM: _checksum(value)})


def read_signed(
    kind: type,
    folder: str | os.PathLike[str],
    name: str,
    *,
    schema: int,
    error: type[EOKerasError],
    expected: str,
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Any:
    """Reads a dataclass from a file that `signed_bytes` wrote.

    Args:
        kind: the dataclass.
        folder: the folder, or its URL.
        name: name of the file.
        schema: the layout's version; a file of another one is refused instead of misread.
        error: class of the errors.
        expected: the expected kind of folder.
        complete: returns a file's content with the entries that earlier versions did not write.

    Raises:
        EOKerasError: of the class `error`, if the folder or the file is missing, or the file cannot be read.
    """
    path = files.join(folder, name)
    if not files.is_folder(folder):
        raise error(folder, "there is no such folder", expected)
    if not files.exists(path):
        raise error(
            folder,
            f"it holds no {name}, so it is empty, unfinished or something else",
            expected,
            "let the command that makes it finish, or name another folder",
        )
    try:
        value = json.loads(files.read_bytes(path))
        if isinstance(value, dict) and (version := value.get("schema", schema)) != schema:
            raise ValueError(f"its layout has version {version}, this program reads version {schema}")
        checksum = value.pop(CHECKSUM, None) if isinstance(value, dict) else None
        if checksum is not None and checksum != _checksum(value):
            raise ValueError("its content does not agree with its checksum: it is damaged, or was edited by hand")
        return from_json(kind, complete(value) if isinstance(value, dict) else value)
    except (ValueError, OSError, RecursionError) as problem:
        raise error(path, f"it cannot be read ({problem})", "the card as it was written", "make it again") from None


def _checksum(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
