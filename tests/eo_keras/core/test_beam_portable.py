"""Builds through a job service of Apache Beam, by the protocol that Flink's and Spark's job servers speak."""

import socket
import subprocess
import sys
import time

import pytest

from tests.harness.building import built, bytes_of
from tests.harness.dask_cluster import ROOT


@pytest.fixture
def job_service(tmp_path):
    """The address of Beam's own job service in Python."""
    pytest.importorskip("apache_beam")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", f"--port={port}"]
    with open(tmp_path / "service.log", "w") as log:
        service = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert service.poll() is None, (tmp_path / "service.log").read_text()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        service.kill()
        service.wait()


def test_a_build_through_a_job_service_has_the_same_bytes(job_service, rgb_zip, tmp_path):
    beam = ("--runner=PortableRunner", f"--job_endpoint={job_service}", "--environment_type=LOOPBACK")
    words = [sys.executable, "-m", "launch.build", "--dataset=eurosat_rgb", f"--source={rgb_zip}", "--engine=beam"]
    words += [f"--output_dir={tmp_path / 'portable'}", *(f"--beam_option={option}" for option in beam)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    built("eurosat_rgb", rgb_zip, tmp_path / "local")
    assert bytes_of(tmp_path / "portable") == bytes_of(tmp_path / "local")
