"""Checks of the machine before a build or a training run: versions, processor, memory, devices, disk.

Every probe returns checks and is run by `examine`, so that a probe that fails is itself a finding.
`eo_keras.doctor.tensorflow` has the checks of TensorFlow and of the options of a training run.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from eo_keras.core import control_groups, files
from eo_keras.core.control_groups import ROOT, text_of
from eo_keras.core.processors import usable_cores, worker_count
from eo_keras.errors import EOKerasError

OK, NOTE, WARNING, PROBLEM = LEVELS = ("ok", "note", "warning", "problem")

_PACKAGE = "eo-keras"
_GB = 1e9

TEST_BYTES = 256 << 20
TEST_SECONDS = 2.0
_TEST_BLOCK = 4 << 20
_SLOW_DISK = 50e6  # Bytes a second: below it, writing 16 MB shards takes longer than making them.
_LEAST_MEMORY = 4e9  # TensorFlow and ResNet50 with its optimizer and a batch of 64 patches.
_LEAST_FILES = 256


@dataclasses.dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        area: its subject, such as `disk`.
        level: one of `LEVELS`. `problem`: something will not work. `warning`: it works, but slowly or untested.
        what: the finding.
        remedy: an instruction for the user; empty where there is none.
    """

    area: str
    level: str
    what: str
    remedy: str = ""


def examine(area: str, probe: Callable[..., Sequence[Check]], *arguments: Any) -> list[Check]:
    """Runs a probe and returns its checks; an exception becomes a check."""
    try:
        return list(probe(*arguments))
    except EOKerasError as error:
        return [Check(area, PROBLEM, str(error))]
    except Exception as error:  # Probes read system files, and every system lacks some of them.
        return [Check(area, WARNING, f"it could not be examined ({type(error).__name__}: {error})")]


def versions(package: str = _PACKAGE) -> list[Check]:
    """Compares Python and the installed packages with the ranges that this package's metadata declare."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    area, findings, fitting = "versions", [], []
    reinstall = f"pip install --upgrade {package}"
    try:
        metadata = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        return [Check(area, WARNING, f"{package} is not installed, so no range is known", "pip install -e .")]
    wanted = SpecifierSet(metadata.get("Requires-Python") or "")
    python = platform.python_version()
    if not wanted.contains(python, prereleases=True):
        findings.append(Check(area, PROBLEM, f"Python {python}; declared {wanted}", "use another Python"))
    for text in importlib.metadata.requires(package) or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            findings.append(Check(area, PROBLEM, f"{wanted.name} is not installed", reinstall))
            continue
        missed = [limit for limit in wanted.specifier if not limit.contains(installed, prereleases=True)]
        if not missed:
            fitting.append(f"{wanted.name} {installed}")
            continue
        # A version below the range lacks something; one above it is untested.
        level = WARNING if all(limit.operator in ("<", "<=") for limit in missed) else PROBLEM
        findings.append(Check(area, level, f"{wanted.name} {installed}; declared {wanted.specifier}", reinstall))
    summary = f"Python {python}, {package} {metadata['Version']}; as declared: {', '.join(fitting)}"
    return [Check(area, OK, summary), *findings]


def gdal() -> list[Check]:
    """Reports the versions of the libraries inside rasterio."""
    import rasterio

    return [Check("versions", OK, f"GDAL {rasterio.__gdal_version__}, PROJ {rasterio.__proj_version__}, in rasterio")]


def processor(root: pathlib.Path = ROOT) -> list[Check]:
    """Reports the processor's name and instructions, and how many cores this process may use."""
    area = "processor"
    name, instructions = _cpuinfo(root)
    cores, usable = os.cpu_count() or 1, usable_cores(root)
    findings = [Check(area, OK, f"{name or platform.machine()}, {cores} cores")]
    if usable < cores:
        findings.append(
            Check(
                area,
                WARNING,
                f"this process may use {usable:g} of the {cores} cores",
                f"launch.build starts {worker_count(root)} processes by default; to use all cores, raise the limit "
                "(the process's affinity, or the container's quota of processors)",
            )
        )
    if platform.machine() not in ("x86_64", "AMD64"):
        return [*findings, Check(area, NOTE, "no x86 processor: AVX and AMX do not exist on it")]
    if not instructions:
        return [*findings, Check(area, NOTE, "its instructions are not known (no flags in /proc/cpuinfo)")]
    avx512 = "AVX-512" if "avx512f" in instructions else "no AVX-512"
    has = [title if name in instructions else f"no {title}" for name, title in (("avx2", "AVX2"), ("fma", "FMA"))]
    has += [avx512, *(_BFLOAT16[name] if name in instructions else f"no {_BFLOAT16[name]}" for name in _BFLOAT16)]
    if "avx" not in instructions:
        remedy = "use another processor, or build TensorFlow from source"
        findings.append(Check(area, PROBLEM, "no AVX: TensorFlow's published packages end at once on it", remedy))
    else:
        level = OK if "avx2" in instructions else WARNING
        findings.append(Check(area, level, ", ".join(has)))
    return findings


_BFLOAT16 = {"avx512_bf16": "AVX512_BF16", "amx_bf16": "AMX"}


def has_bfloat16(root: pathlib.Path = ROOT) -> bool:
    """Reports whether the processor is known to have instructions for bfloat16."""
    return bool(_cpuinfo(root)[1] & set(_BFLOAT16))


def _cpuinfo(root: pathlib.Path) -> tuple[str, set[str]]:
    text = text_of(root / "proc/cpuinfo")
    name, flags = (re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE) for key in ("model name", "flags"))
    return name[1] if name else "", set(flags[1].split()) if flags else set()


def usable_memory(root: pathlib.Path = ROOT) -> tuple[int, int, int | None]:
    """Returns bytes of memory: all, free for new programs, and the control groups' limit or None."""
    lines = dict(line.split(":", 1) for line in text_of(root / "proc/meminfo").splitlines())
    total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limits = [text for (text,) in control_groups.texts(root, "", "memory.max")]
    limits += [text for (text,) in control_groups.texts(root, "memory", "memory.limit_in_bytes")]
    # Version 1 has a number larger than any memory for "no limit".
    limit = min((int(text) for text in limits if text.isdigit() and int(text) < total), default=None)
    return total, free, limit


def memory(root: pathlib.Path = ROOT) -> list[Check]:
    """Reports the memory, how much of it is free, and whether the control group allows less."""
    area = "memory"
    total, free, limit = usable_memory(root)
    findings = [Check(area, OK, f"{total / _GB:.1f} GB, {free / _GB:.1f} GB free")]
    if limit is not None:
        findings.append(
            Check(
                area,
                NOTE,
                f"the control group allows {limit / _GB:.1f} GB; a process that needs more is killed without a message",
                "keep `cache_gb` and `num_workers` below that",
            )
        )
    if (free := min(free, limit or free)) < _LEAST_MEMORY:
        what = f"{free / _GB:.1f} GB free: little for training, which needs about {_LEAST_MEMORY / _GB:.0f} GB"
        findings.append(Check(area, WARNING, what, "end other programs; give `cache_gb=0` and a smaller `batch_size`"))
    return findings


def open_files() -> list[Check]:
    """Reports how many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _LEAST_FILES:
        return [Check("limits", WARNING, f"{soft} open files", f"ulimit -n {_LEAST_FILES * 4} (at most {hard})")]
    return [Check("limits", OK, f"{'any number of' if soft < 0 else f'{soft:,}'} open files")]


def _existing(folder: str) -> pathlib.Path | None:
    """Returns a local folder, or the nearest one above it that exists; None for other file systems."""
    here = files.local(folder)
    if here is None:
        return None
    here = here.absolute()
    while not here.exists():
        here = here.parent
    return here if here.is_dir() else here.parent


def disk(folder: str, *, bytes_limit: int | None = None, seconds: float = TEST_SECONDS) -> list[Check]:
    """Measures how fast the file system of a folder writes and reads, by a file that is removed again.

    Args:
        folder: a folder, which need not exist yet.
        bytes_limit: size of the file; None for `TEST_BYTES`. Less where little is free.
        seconds: time limit of writing, and of reading.
    """
    area, here = "disk", _existing(folder)
    if here is None:
        return [Check(area, NOTE, f"{folder} is on another file system: its speed was not measured")]
    bytes_limit = min(bytes_limit or TEST_BYTES, shutil.disk_usage(here).free // 10)
    if bytes_limit < _TEST_BLOCK:
        return [Check(area, PROBLEM, f"{here} is full", "free some space or choose another folder")]
    block = os.urandom(_TEST_BLOCK)  # Some file systems compress, or leave out zeros.
    try:
        with tempfile.NamedTemporaryFile(dir=here, prefix=f"{files.TEMPORARY_PREFIX}doctor-", buffering=0) as file:
            started, written = time.monotonic(), 0
            while written + _TEST_BLOCK <= bytes_limit and time.monotonic() - started < seconds:
                written += file.write(block)
            os.fsync(file.fileno())
            writing = written / (time.monotonic() - started)
            dropped = hasattr(os, "posix_fadvise")
            if dropped:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            started, read = time.monotonic(), 0
            while time.monotonic() - started < seconds and (count := len(file.read(_TEST_BLOCK))):
                read += count
            reading = read / (time.monotonic() - started)
    except OSError as error:
        remedy = "choose a folder that may be written to"
        return [Check(area, PROBLEM, f"{here} cannot be written to ({error.strerror})", remedy)]
    cached = "after it was dropped from the cache" if dropped else "perhaps from the cache"
    what = f"{here}: writes {writing / 1e6:,.0f} MB/s (fsync at the end), reads {reading / 1e6:,.0f} MB/s ({cached})"
    slow = min(writing, reading) < _SLOW_DISK
    remedy = "put records on a faster disk; `cache_gb` keeps them in memory while training" if slow else ""
    return [Check(area, WARNING if slow else OK, f"{what}, over {written / 1e6:,.0f} MB", remedy)]


def space(folder: str, needed: int | None = None, subject: str = "") -> list[Check]:
    """Reports how much is free where a folder is, or will be.

    Args:
        folder: a folder, which need not exist yet.
        needed: bytes that shall be written there, if known.
        subject: their name in the message, such as a data set.
    """
    area, here = "space", _existing(folder)
    if here is None:
        return [Check(area, NOTE, f"{folder} is on another file system: its free space is not known")]
    free = shutil.disk_usage(here).free
    if needed is None:
        return [Check(area, OK, f"{free / _GB:,.1f} GB free in {here}")]
    what = f"{subject} needs {needed / _GB:,.2f} GB, {free / _GB:,.1f} GB free in {here}"
    if free < needed:
        return [Check(area, PROBLEM, what, "free some space or choose another folder")]
    if free < 1.5 * needed:
        return [Check(area, WARNING, f"{what}: it just fits", "keep space for the runs that will follow")]
    return [Check(area, OK, what)]
