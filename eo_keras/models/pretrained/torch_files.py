"""Reader of PyTorch checkpoints (zip and legacy) and of safetensors: tensors as arrays, and nothing that runs.

A checkpoint is a pickle: a program for a stack machine that may call any function of Python. Here its opcodes are
interpreted one by one, and only what builds numbers, texts, containers and tensors is known. No name in it is imported
or called, and a name that is not known is refused. PyTorch is not needed.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import json
import math
import mmap
import os
import pickletools
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eo_keras.core import inflation
from eo_keras.errors import SourceError

FORMS = "tensors saved by torch.save, or safetensors"

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""First numbers of a legacy checkpoint."""

_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
_SAFETENSORS = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
"""Dtypes of NumPy by PyTorch's names, and by those of safetensors; bfloat16 is returned as float32."""

_LONGEST_HEADER = 100 << 20
"""Most bytes of a safetensors header, which is that of its own library."""

_DEEPEST = 8
"""Deepest nesting of dictionaries that tensors are looked for in."""


class _Damaged(ValueError):
    """What is wrong with a file, in words."""


@dataclasses.dataclass(frozen=True)
class _Name:
    """A name of a module that is known, and stands for itself."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Numbers that tensors are views of: key in the file, dtype, and how many."""

    key: str
    dtype: str
    count: int


@dataclasses.dataclass(frozen=True)
class _View:
    """A tensor: numbers of a storage from an offset on."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Inert:
    """An object of a known class without tensors; its content is dropped."""


def is_torch_file(path: str | os.PathLike[str]) -> bool:
    """Tells whether a file looks like one of these: by its first bytes, or its name."""
    if os.fspath(path).lower().endswith((".pth", ".pt", ".ckpt", ".safetensors")):
        return True
    if zipfile.is_zipfile(path):
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
        return False
    with open(path, "rb") as file:
        return file.read(14)[4:] == _MAGIC.to_bytes(10, "little")


def read_tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads all tensors of a checkpoint.

    Args:
        path: a file of `torch.save`, as PyTorch has written since 2018 (legacy) or since 1.6 (zip), or `.safetensors`.

    Returns:
        Arrays by name; those of nested dictionaries have the keys joined by dots, such as
        `state_dict.layer1.0.conv1.weight`. They may be views of the file, and are not to be written to.

    Raises:
        SourceError: if the file cannot be read, is damaged, holds other objects than tensors, texts and numbers, or
            declares more than the file could hold.
    """
    path = os.fspath(path)
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise _Damaged("it is empty")
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if content[4:14] == _MAGIC.to_bytes(10, "little"):
            return _read_legacy(content, path)
        return _read_safetensors(content, path)
    except _Damaged as error:
        raise SourceError(
            path, str(error), FORMS, "save the weights alone: torch.save(model.state_dict(), FILE)"
        ) from None
    except (*inflation.UNREADABLE, IndexError, TypeError) as error:
        raise SourceError(
            path, f"it cannot be read ({type(error).__name__}: {error})", FORMS, "it may be damaged: fetch it again"
        ) from error


def _read_zip(path: str) -> dict[str, np.ndarray]:
    inflation.check_archive(path)
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise _Damaged("a zip without a checkpoint of PyTorch in it")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise _Damaged("its numbers are big-endian")
        views = _views(_interpret(io.BytesIO(archive.read(pickles[0]))), path)
        return _arrays(views, lambda storage: archive.read(f"{folder}data/{storage.key}"))


def _read_legacy(content: mmap.mmap, path: str) -> dict[str, np.ndarray]:
    if (_interpret(content), _interpret(content)) != (_MAGIC, _PROTOCOL):
        raise _Damaged("a checkpoint of another version of PyTorch's format")
    if _interpret(content).get("little_endian") is not True:
        raise _Damaged("its numbers are big-endian")
    views = _views(_interpret(content), path)
    used = {view.storage.key: view.storage for view in views.values()}
    keys, places = _interpret(content), {}
    position = content.tell()
    for key in keys:
        # Storages that no tensor shows have an unknown dtype: what lies after them cannot be found.
        if key not in used:
            raise _Damaged(f"numbers '{key}' that belong to no tensor")
        size = _item_size(used[key].dtype) * used[key].count
        if int.from_bytes(content[position : position + 8], "little") != used[key].count:
            raise _Damaged(f"another number of numbers '{key}' than their tensors say")
        places[key] = (position + 8, size)
        position += 8 + size
    whole = memoryview(content)
    return _arrays(views, lambda storage: whole[places[storage.key][0] :][: places[storage.key][1]])


def _read_safetensors(content: mmap.mmap, path: str) -> dict[str, np.ndarray]:
    length = int.from_bytes(content[:8], "little")
    if content[8:9] != b"{" or not 0 < length <= min(_LONGEST_HEADER, len(content) - 8):
        raise _Damaged("neither a checkpoint of PyTorch nor safetensors")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    views, places = {}, {}
    for name, entry in header.items():
        shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
        if entry["dtype"] not in _SAFETENSORS:
            raise _Damaged(f"'{name}' has dtype {entry['dtype']}")
        storage = _Storage(name, _SAFETENSORS[entry["dtype"]], _count(shape))
        if not 0 <= start <= end or end - start != storage.count * _item_size(storage.dtype):
            raise _Damaged(f"the bytes of '{name}' are not as many as its shape says")
        views[name] = _View(storage, 0, shape, _contiguous(shape))
        places[name] = (8 + length + start, end - start)
    _check_total(views, path)
    whole = memoryview(content)
    return _arrays(views, lambda storage: whole[places[storage.key][0] :][: places[storage.key][1]])


# The pickle.


def _interpret(file: Any) -> Any:
    """Runs one pickle from a file on, by the opcodes of `_OPCODES` alone."""
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "STOP":
            return machine.pop()
        handler = _OPCODES.get(opcode.name)
        if handler is None:
            raise _Damaged(f"the opcode {opcode.name} of pickle, which no tensors need")
        handler(machine, argument)
    raise _Damaged("a pickle without an end")


class _Machine:
    """Stack and memo of a pickle."""

    def __init__(self):
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        """Puts a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Takes the uppermost value, which lies above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise _Damaged("a pickle that takes more than it put on its stack")
        return self.stack.pop()

    def pop_marked(self) -> list[Any]:
        """Takes all values above the last mark."""
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def remember(self, place: int | None = None) -> None:
        """Remembers the uppermost value."""
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def extend(self, values: Sequence[Any]) -> None:
        """Appends values to the list below them."""
        if not isinstance(self.stack[-1], list):
            raise _Damaged("a pickle that appends to what is no list")
        self.stack[-1].extend(values)

    def update(self, values: Sequence[Any]) -> None:
        """Puts keys and values into the dictionary below them."""
        if not isinstance(self.stack[-1], dict):
            raise _Damaged("a pickle that sets items of what is no dictionary")
        self.stack[-1].update(zip(values[::2], values[1::2], strict=True))

    def name(self, module: str, name: str) -> None:
        """Puts a known name on the stack."""
        if (module, name) not in _KNOWN and not (module in ("torch", "torch.cuda") and name in _STORAGES):
            raise _Damaged(f"it holds {module}.{name}, which is no tensor")
        self.push(_Name(module, name))

    def call(self) -> None:
        """Makes what a known name makes of its arguments."""
        arguments, name = self.pop(), self.pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise _Damaged("a pickle that calls what is no known name")
        make = _KNOWN.get((name.module, name.name))
        if make is None:
            raise _Damaged(f"it calls {name}")
        self.push(make(*arguments))

    def build(self) -> None:
        """Drops the state of an object: attributes of a dictionary, or of what is inert."""
        self.pop()
        if not isinstance(self.stack[-1], (dict, _Inert)):
            raise _Damaged("a pickle that changes what is neither a dictionary nor known")

    def storage(self) -> None:
        """Puts a storage on the stack."""
        match self.pop():
            case ("storage", _Name(name=kind), str(key), str(), int(count), *views) if kind in _STORAGES:
                if any(view is not None for view in views):
                    raise _Damaged("views of storages, as PyTorch wrote them before 1.0")
                self.push(_Storage(key, _STORAGES[kind], count))
            case other:
                raise _Damaged(f"a reference that is no storage ({str(other)[:80]})")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _View:
    if not isinstance(storage, _Storage) or not all(map(_is_whole, (offset, *shape, *strides))):
        raise _Damaged("a tensor of what is no storage")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    count = _count(shape)
    if count and (last >= storage.count or count > storage.count):
        raise _Damaged(f"a tensor of shape {tuple(shape)} of {storage.count:,} numbers")
    return _View(storage, offset, tuple(shape), tuple(strides))


def _parameter(view: Any, *_: Any) -> Any:
    if not isinstance(view, _View):
        raise _Damaged("a parameter of what is no tensor")
    return view


def _ordered(items: Sequence[Any] = ()) -> dict:
    return dict(items)


def _inert(*_: Any) -> _Inert:
    return _Inert()


_KNOWN: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): _ordered,
    ("torch", "Size"): lambda sizes: tuple(sizes),
    ("torch", "device"): _inert,
    ("argparse", "Namespace"): _inert,
}
"""What known names make of their arguments. Options of a training, in a Namespace, are dropped."""


def _pushes(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, argument: machine.push(value)


def _push_argument(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


def _push_tuple(count: int) -> Callable[[_Machine, Any], None]:
    def push(machine: _Machine, argument: Any) -> None:
        machine.push(tuple([machine.pop() for _ in range(count)][::-1]))

    return push


def _append(machine: _Machine, argument: Any) -> None:
    value = machine.pop()
    machine.extend([value])


def _set_item(machine: _Machine, argument: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.update([key, value])


def _stack_global(machine: _Machine, argument: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.name(str(module), str(name))


_OPCODES: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, argument: None,
    "FRAME": lambda machine, argument: None,
    "NONE": _pushes(None),
    "NEWTRUE": _pushes(True),
    "NEWFALSE": _pushes(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"), _push_argument),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _push_argument),
    **dict.fromkeys(("SHORT_BINSTRING", "BINSTRING"), _push_argument),
    "EMPTY_DICT": lambda machine, argument: machine.push({}),
    "EMPTY_LIST": lambda machine, argument: machine.push([]),
    "EMPTY_TUPLE": _pushes(()),
    "TUPLE1": _push_tuple(1),
    "TUPLE2": _push_tuple(2),
    "TUPLE3": _push_tuple(3),
    "MARK": lambda machine, argument: machine.marks.append(len(machine.stack)),
    "TUPLE": lambda machine, argument: machine.push(tuple(machine.pop_marked())),
    "APPEND": _append,
    "APPENDS": lambda machine, argument: machine.extend(machine.pop_marked()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, argument: machine.update(machine.pop_marked()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda machine, argument: machine.remember(argument)),
    "MEMOIZE": lambda machine, argument: machine.remember(),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, argument: machine.push(machine.memo[argument])),
    "GLOBAL": lambda machine, argument: machine.name(*argument.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, argument: machine.call(),
    "NEWOBJ": lambda machine, argument: machine.call(),
    "BUILD": lambda machine, argument: machine.build(),
    "BINPERSID": lambda machine, argument: machine.storage(),
}
"""Opcodes of pickle that `torch.save` writes for tensors, and what they do; protocols 2 to 5."""


# The tensors.


def _views(content: Any, path: str) -> dict[str, _View]:
    """Returns the tensors of nested dictionaries by the keys joined by dots."""
    found: dict[str, _View] = {}
    waiting, seen = collections.deque([("", content, 0)]), set()
    while waiting:
        prefix, values, depth = waiting.popleft()
        if not isinstance(values, dict) or id(values) in seen or depth > _DEEPEST:
            continue  # A dictionary in itself would have no end.
        seen.add(id(values))
        for key, value in values.items():
            if isinstance(value, _View):
                found[f"{prefix}{key}"] = value
            elif isinstance(value, dict):
                waiting.append((f"{prefix}{key}.", value, depth + 1))
    if not found:
        raise _Damaged("there are no tensors in it")
    _check_total(found, path)
    return found


def _check_total(views: Mapping[str, _View], path: str) -> None:
    """Checks what all tensors take before any is made."""
    inflation.check(sum(_count(view.shape) * _item_size(view.storage.dtype) for view in views.values()), path)


def _arrays(views: Mapping[str, _View], read: Callable[[_Storage], Any]) -> dict[str, np.ndarray]:
    """Returns tensors as arrays; `read` returns the bytes of a storage."""
    storages: dict[str, np.ndarray] = {}
    found = {}
    for name, view in views.items():
        if view.storage.key not in storages:
            storages[view.storage.key] = _numbers(view.storage, read(view.storage))
        numbers = storages[view.storage.key][view.offset :]
        strides = [stride * numbers.itemsize for stride in view.strides]
        array = np.lib.stride_tricks.as_strided(numbers, view.shape, strides, writeable=False)
        found[name] = array if _count(view.shape) else np.empty(view.shape, numbers.dtype)
    return found


def _numbers(storage: _Storage, content: Any) -> np.ndarray:
    size = _item_size(storage.dtype)
    if len(content) < storage.count * size:
        raise _Damaged(f"the numbers '{storage.key}' are cut off")
    if storage.dtype == "bfloat16":
        return (np.frombuffer(content, "<u2", storage.count).astype("<u4") << 16).view("<f4")
    return np.frombuffer(content, storage.dtype, storage.count)


def _item_size(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _is_whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _count(shape: Sequence[int]) -> int:
    if not all(map(_is_whole, shape)):
        raise _Damaged(f"a tensor of shape {tuple(shape)}")
    return math.prod(shape)


def _contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))
