"""The engine on a Dask cluster: a scheduler and two worker processes of this machine, over TCP."""

import subprocess
import sys
import time

import pytest

from eo_keras.core import dask_engine
from eo_keras.core.engine_options import EngineOptions
from eo_keras.errors import EOKerasError, OptionError, SourceError
from tests.harness import dask_units
from tests.harness.building import built, bytes_of
from tests.harness.dask_cluster import ROOT, Cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def engine(cluster):
    with dask_engine.DaskEngine(cluster.address, patience=10) as engine:
        yield engine


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "units").mkdir()
    return tmp_path / "units"


def test_all_units_are_done_by_two_processes_and_reported_in_their_order(engine, folder):
    assert list(engine.run(dask_units.note, str(folder), range(20))) == list(range(20))
    assert {path.name for path in folder.iterdir()} == set(map(str, range(20)))
    assert len({path.read_text() for path in folder.iterdir()}) == 2
    assert list(engine.run(dask_units.note, str(folder), [])) == []


def test_units_are_reported_while_others_wait(engine, folder):
    next(engine.run(dask_units.note, str(folder), range(100)))
    assert len(list(folder.iterdir())) < 100


def test_an_error_keeps_its_kind_and_words_and_nothing_else_is_said(engine, capfd):
    with pytest.raises(SourceError, match="unit 0: it is bad; expected a good one. Fix it"):
        list(engine.run(dask_units.refuse, None, range(5)))
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_run_waits_for_the_units_that_have_begun(cluster, folder):
    with pytest.raises(KeyboardInterrupt), dask_engine.DaskEngine(cluster.address) as engine:
        for position in engine.run(dask_units.take_time, str(folder), range(10)):
            if position == 1:
                raise KeyboardInterrupt
    names = sorted(path.name for path in folder.iterdir())
    begun = [name.removeprefix("begun-") for name in names if name.startswith("begun-")]
    assert 2 <= len(begun) < 10 and names == sorted([f"{word}-{unit}" for unit in begun for word in ("begun", "done")])
    time.sleep(0.2)
    assert len(list(folder.iterdir())) == len(names)


def test_a_build_has_the_same_bytes_as_a_local_one_also_when_a_worker_is_killed(cluster, rgb_zip, tmp_path):
    def kill(stage, done, total):
        if stage == "writing" and cluster.workers[0].poll() is None:
            cluster.kill(cluster.workers[0])

    split = {"split": "random", "shard_mb": 0.02}
    built("eurosat_rgb", rgb_zip, tmp_path / "local", **split)
    expected = bytes_of(tmp_path / "local")
    on_dask = {"engine": "dask", "scheduler": cluster.address} | split
    built("eurosat_rgb", rgb_zip, tmp_path / "whole", **on_dask)
    assert bytes_of(tmp_path / "whole") == expected
    built("eurosat_rgb", rgb_zip, tmp_path / "killed", progress=kill, **on_dask)
    assert cluster.workers[0].poll() is not None
    assert bytes_of(tmp_path / "killed") == expected
    cluster.workers[0] = cluster.start_worker()


def test_lost_workers_and_a_lost_scheduler_end_the_run_with_one_line(folder, tmp_path, capfd):
    with Cluster(tmp_path, workers=0) as cluster, dask_engine.DaskEngine(cluster.address, patience=1) as engine:
        with pytest.raises(
            EOKerasError, match="has been no Dask worker for 1 seconds. Start workers .dask worker tcp:"
        ):
            list(engine.run(dask_units.note, str(folder), range(3)))
        started = [cluster.start_worker(), cluster.start_worker()]
        while len(engine._client.nthreads()) < 2:
            time.sleep(0.05)
        with pytest.raises(EOKerasError, match="has been no Dask worker"):
            for _ in engine.run(dask_units.note, str(folder), range(100)):
                cluster.kill(*started)
        cluster.start_worker()
        while not engine._client.nthreads():
            time.sleep(0.05)
        with pytest.raises(EOKerasError, match="^tcp://127.0.0.1:[0-9]+: the Dask scheduler was lost"):
            for _ in engine.run(dask_units.note, str(folder), range(100)):
                cluster.kill(cluster.scheduler)
        before = time.monotonic()
    assert time.monotonic() - before < 5
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_unit_that_kills_its_workers_ends_the_run(tmp_path):
    with (
        Cluster(tmp_path, workers=2, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1") as cluster,
        dask_engine.DaskEngine(cluster.address, patience=10) as engine,
        pytest.raises(EOKerasError, match="2 Dask workers in turn were lost at one unit, last tcp:.*memory limit"),
    ):
        list(engine.run(dask_units.be_killed, None, [0]))


@pytest.mark.slow
def test_other_versions_on_the_cluster_are_refused(folder, tmp_path):
    other = tmp_path / "other"
    metadata = other / "eo_keras-0.0.9.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: eo-keras\nVersion: 0.0.9\n")
    (other / "sitecustomize.py").write_text("import eo_keras\neo_keras.__version__ = '0.0.9'\n")
    (tmp_path / "scheduler").mkdir()
    message = r"tcp://127.0.0.1:\d+: it has eo-keras 0.0.9; expected .*, as here. Install the same version on all"
    with Cluster(tmp_path / "scheduler", workers=0, path=[other]) as cluster:
        with pytest.raises(EOKerasError, match=f"^the scheduler of {message}"), dask_engine.DaskEngine(cluster.address):
            pass
    with Cluster(tmp_path, workers=0) as cluster, dask_engine.DaskEngine(cluster.address, patience=10) as engine:
        # A worker that comes after the engine has looked compares the versions at each unit.
        cluster.start_worker(path=[other])
        with pytest.raises(EOKerasError, match=f"^worker {message}"):
            list(engine.run(dask_units.note, str(folder), range(3)))
        with pytest.raises(EOKerasError, match=f"^worker .* of {message}"), dask_engine.DaskEngine(cluster.address):
            pass
    assert not list(folder.iterdir())


def test_a_scheduler_that_is_not_there(capfd):
    for address in ("tcp://127.0.0.1:9", "tcp://127.0.0.1", "other://a:1"):
        with pytest.raises(OptionError, match=f"^scheduler: no Dask scheduler answers at {address} "):
            with dask_engine.DaskEngine(address, patience=0.2):
                pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "dask"}, "scheduler: it is not given; expected the address of a Dask scheduler, for `engine=dask`"),
        ({"scheduler": "tcp://a:1"}, "scheduler: it does not apply to `engine=local`; expected `engine=dask`"),
        ({"beam_options": ("--runner=A",)}, "beam_option: it does not apply to `engine=local`; expected `engine=beam`"),
    ],
)
def test_options_that_do_not_fit_the_engine(options, message):
    with pytest.raises(OptionError, match=f"^{message}$"):
        EngineOptions(**options).check_engine(())


def test_the_engine_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "eo_keras.core.dask_engine", None)
    with pytest.raises(OptionError, match=r"distributed is not installed. Install it: pip install 'eo-keras\[dask\]'"):
        EngineOptions(engine="dask", scheduler="tcp://a:1").make_engine()


@pytest.mark.slow
def test_the_command_runs_on_the_cluster(cluster, rgb_zip, tmp_path):
    words = [sys.executable, "-m", "launch.build", "--dataset=eurosat_rgb", f"--source={rgb_zip}", "--engine=dask"]
    words += [f"--scheduler={cluster.address}", f"--output_dir={tmp_path / 'records'}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "fingerprint" in done.stdout, done.stderr
