"""Checkpoints as `torch.save` writes them, made without PyTorch: legacy and zip."""

from __future__ import annotations

import io
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {"<f8": "Double", "<f4": "Float", "<f2": "Half", "<i8": "Long", "|u1": "Byte", "|b1": "Bool"}


class Global:
    """A name that the pickle holds, whether or not its module exists here."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Storage:
    """Reference to the numbers of an array, by a key."""

    def __init__(self, key: str, kind: str, count: int):
        self.key, self.kind, self.count = key, kind, count


class Call:
    """Call of a name with arguments, when the pickle is read."""

    def __init__(self, function: Global, *arguments: Any):
        self.function, self.arguments = function, arguments


class _Writer(pickle._Pickler):
    """Pickler in Python, which writes names of modules that are not installed."""

    def __init__(self, file: io.BytesIO, protocol: int, legacy: bool):
        super().__init__(file, protocol)
        self._legacy = legacy

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        found = ("storage", Global("torch", f"{obj.kind}Storage"), obj.key, "cpu", obj.count)
        return (*found, None) if self._legacy else found

    def save(self, obj: Any, *arguments: Any, **keywords: Any) -> None:
        if isinstance(obj, Global):
            if self.proto >= 4:
                self.save(obj.module)
                self.save(obj.name)
                self.write(pickle.STACK_GLOBAL)
            else:
                self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(tuple(obj.arguments))
            self.write(pickle.REDUCE)
        else:
            super().save(obj, *arguments, **keywords)


def tensor(key: str, array: np.ndarray, kind: str | None = None) -> Call:
    """Returns what `torch.save` writes for an array in C order."""
    strides = tuple(stride // array.itemsize for stride in array.strides)
    storage = Storage(key, kind or STORAGES[array.dtype.str], array.size)
    ordered = Call(Global("collections", "OrderedDict"))
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), storage, 0, array.shape, strides, False, ordered)


def pickled(content: Any, protocol: int = 2, legacy: bool = False) -> bytes:
    """Returns a pickle."""
    file = io.BytesIO()
    _Writer(file, protocol, legacy).dump(content)
    return file.getvalue()


def write_zip(path: pathlib.Path, content: Any, arrays: Mapping[str, bytes | np.ndarray], protocol: int = 2) -> None:
    """Writes a checkpoint in the form since PyTorch 1.6."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled(content, protocol))
        archive.writestr("archive/byteorder", "little")
        for key, array in arrays.items():
            archive.writestr(f"archive/data/{key}", array if isinstance(array, bytes) else array.tobytes())
        archive.writestr("archive/version", "3\n")


def write_legacy(path: pathlib.Path, content: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a checkpoint in the form before PyTorch 1.6."""
    with open(path, "wb") as file:
        for part in (MAGIC, PROTOCOL, {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"int": 4}}):
            file.write(pickle.dumps(part, 2))
        file.write(pickled(content, legacy=True))
        file.write(pickle.dumps(list(arrays), 2))
        for array in arrays.values():
            file.write(struct.pack("<q", array.size) + array.tobytes())


def state(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, Call], dict[str, np.ndarray]]:
    """Returns the content of a checkpoint of named arrays, and these by their keys."""
    arrays = {str(place): np.asarray(array, order="C") for place, array in enumerate(tensors.values())}
    return {name: tensor(key, arrays[key]) for name, key in zip(tensors, arrays, strict=True)}, arrays
