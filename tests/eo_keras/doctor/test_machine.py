import importlib.metadata
import os
import pathlib
import resource

import pytest

from eo_keras.core import processors
from eo_keras.doctor import machine as doctor
from eo_keras.doctor.machine import NOTE, OK, PROBLEM, WARNING
from eo_keras.errors import SourceError

INTEL = "fpu avx avx2 fma avx512f avx512_bf16 amx_bf16"
AMD = "fpu avx avx2 fma"


def machine(root, *, flags=AMD, free_kb=8_000_000, files=None):
    """A folder that looks like the root of a machine."""
    files = {
        "proc/cpuinfo": f"processor\t: 0\nmodel name\t: Some Processor\nflags\t\t: {flags}\n",
        "proc/meminfo": f"MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:   {free_kb} kB\n",
        **(files or {}),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def levels(findings):
    return [finding.level for finding in findings]


def test_a_probe_that_fails_is_a_finding():
    def fail():
        return {}["no such key"]

    def refuse():
        raise SourceError("a.zip", "it is bad", "a good one")

    (failed,) = doctor.examine("disk", fail)
    assert (failed.area, failed.level) == ("disk", WARNING) and "KeyError: 'no such key'" in failed.what
    (refused,) = doctor.examine("disk", refuse)
    assert refused.level == PROBLEM and refused.what == "a.zip: it is bad; expected a good one"
    empty = pathlib.Path("/no/such/root")
    assert levels(doctor.examine("memory", doctor.memory, empty)) == [WARNING]
    assert PROBLEM not in levels(doctor.examine("processor", doctor.processor, empty))


def test_versions_are_compared_with_the_declared_ranges(monkeypatch):
    declared = ["numpy<3,>=2.0", "keras<3.16,>=3.12", "protobuf>=6", "gone>=1", "other>=1; extra == 'dev'"]
    found = {"numpy": "3.1", "keras": "3.9", "protobuf": "7.0rc1"}

    def version(name):
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(importlib.metadata, "requires", lambda package: declared)
    monkeypatch.setattr(importlib.metadata, "version", version)
    summary, *findings = doctor.versions()
    assert summary.level == OK and summary.what.endswith("as declared: protobuf 7.0rc1")
    # Too old: something is missing. Too new: only untried.
    assert [(finding.level, finding.what.split()[0]) for finding in findings] == [
        (WARNING, "numpy"),
        (PROBLEM, "keras"),
        (PROBLEM, "gone"),
    ]
    (unknown,) = doctor.versions("no-such-package-at-all")
    assert unknown.level == WARNING and "not installed" in unknown.what


def test_this_environment_has_what_is_declared():
    assert PROBLEM not in levels(doctor.versions() + doctor.gdal())


@pytest.fixture
def eight_cores(monkeypatch):
    """A machine of eight cores, all of them for this process: fewer would be warned about."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)


@pytest.mark.skipif(doctor.platform.machine() != "x86_64", reason="instructions of x86")
def test_processors(eight_cores, tmp_path):
    intel = doctor.processor(machine(tmp_path / "intel", flags=INTEL))
    assert intel[0].what.startswith("Some Processor, ") and WARNING not in levels(intel)
    assert "AVX2, FMA, AVX-512, AVX512_BF16, AMX" in [finding.what for finding in intel]
    # Whether bfloat16 pays is measured: instructions alone do not tell.
    assert not any("pays" in finding.what for finding in intel)
    doctor.processor(machine(tmp_path / "amd"))
    assert doctor.has_bfloat16(tmp_path / "intel") and not doctor.has_bfloat16(tmp_path / "amd")
    old = doctor.processor(machine(tmp_path / "old", flags="fpu sse"))
    assert PROBLEM in levels(old) and any("no AVX:" in finding.what for finding in old)


def test_cores_and_memory_of_a_control_group(eight_cores, tmp_path):
    second = {
        "proc/self/cgroup": "0::/some/group\n",
        "sys/fs/cgroup/some/group/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/some/group/memory.max": "3000000000\n",
    }
    first = {
        "proc/self/cgroup": "4:memory:/a\n2:cpu,cpuacct:/a\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    # A batch system's job has the limits, and the group of its task none of its own.
    nested = second | {
        "proc/self/cgroup": "0::/some/group/task\n",
        "sys/fs/cgroup/some/group/task/cpu.max": "max 100000\n",
        "sys/fs/cgroup/some/group/task/memory.max": "max\n",
    }
    limited, free = machine(tmp_path / "2", files=second), machine(tmp_path / "1", files=first)
    task = machine(tmp_path / "task", files=nested)
    assert processors.usable_cores(task) == 1.5 and doctor.usable_memory(task)[2] == 3_000_000_000
    assert processors.usable_cores(limited) == 1.5 and processors.usable_cores(free) == 8
    assert processors.worker_count(limited) == 1 and processors.worker_count(free) == 8
    assert any("may use 1.5 of the 8 cores" in finding.what for finding in doctor.processor(limited))
    assert doctor.usable_memory(limited) == (16_384_000_000, 8_192_000_000, 3_000_000_000)
    assert doctor.usable_memory(free)[2] is None
    assert levels(doctor.memory(limited)) == [OK, NOTE, WARNING] and levels(doctor.memory(free)) == [OK]


def test_open_files(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (64, 4096))
    assert levels(doctor.open_files()) == [WARNING]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert levels(doctor.open_files()) == [OK]


def test_the_disk_is_measured_and_left_as_it_was(tmp_path, monkeypatch):
    (finding,) = doctor.disk(str(tmp_path / "not" / "yet"), bytes_limit=8 << 20)
    assert "MB/s" in finding.what and "over 8 MB" in finding.what and str(tmp_path) in finding.what
    assert list(tmp_path.iterdir()) == []
    assert levels(doctor.disk("memory://records")) == levels(doctor.space("memory://records")) == [NOTE]
    monkeypatch.setattr(doctor, "_SLOW_DISK", float("inf"))
    (slow,) = doctor.disk(f"file://{tmp_path}", bytes_limit=8 << 20)
    assert slow.level == WARNING and "faster disk" in slow.remedy

    def refuse(*arguments, **keywords):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    (refused,) = doctor.disk(str(tmp_path))
    assert refused.level == PROBLEM and "Permission denied" in refused.what


def test_space(tmp_path):
    free = doctor.shutil.disk_usage(tmp_path).free
    assert levels(doctor.space(str(tmp_path))) == [OK]
    for share, level in ((0.1, OK), (0.9, WARNING), (1.5, PROBLEM)):
        (finding,) = doctor.space(str(tmp_path / "new"), int(share * free), "a build of 5 patches")
        assert finding.level == level and finding.what.startswith("a build of 5 patches needs")
