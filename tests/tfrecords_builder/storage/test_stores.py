"""An object store: what is read and written there, how much is asked for, and how its faults are told."""

import functools
import io
import random
import zipfile

import fsspec
import pytest

from eo_keras.core import files, stores
from eo_keras.errors import StorageError
from eo_keras.inspection import scan_records
from tfrecords_builder import build
from tfrecords_builder.sources import archive as archives
from tfrecords_builder.storage import output

pytest.importorskip("moto")
pytest.importorskip("s3fs")

VARIABLES = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def server():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def store(server, monkeypatch):
    """The store with one bucket, `here`; what the file system of this process is told lies in the environment."""
    for name, value in (VARIABLES | {"AWS_ENDPOINT_URL": server}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    kind = fsspec.get_filesystem_class("s3")
    kind.clear_instance_cache()
    system = kind()
    if not system.exists("here"):
        system.mkdir("here")
    yield system
    kind.clear_instance_cache()


@pytest.fixture
def asked(monkeypatch):
    """The ranges that readers have asked for."""
    found, original = [], stores.RangeReader._hold

    def hold(self, start, end):
        original(self, start, end)
        found.append((self._start, len(self._held)))

    monkeypatch.setattr(stores.RangeReader, "_hold", hold)
    return found


def test_paths_in_a_store_behave_like_local_ones(store):
    folder = "s3://here/a/b"
    files.make_folder(folder)
    path = files.join(folder, "x.json")
    assert not files.exists(path) and not files.is_folder(folder) and files.list_names(folder) == []
    files.write_json(path, {"a": 1})
    # What another process writes is seen at once.
    store.pipe_file("here/a/b/y", b"1")
    assert files.list_names(folder) == ["x.json", "y"] and files.is_folder(folder) and files.size(path) == 13
    with files.open_for_reading(path) as file:
        file.seek(-4, io.SEEK_END)
        assert file.read() == b"1\n}\n"
    files.remove(folder)
    assert not files.exists(path) and not files.is_folder(folder)


def test_a_bucket_whose_name_is_mistyped_is_not_made(store):
    with pytest.raises(StorageError, match=r"s3://heer/x/\S+: there is nothing to write to .*Check its"):
        with output.held("s3://heer/x", overwrite=False) as held:
            held.write({"a": b""})
    assert not store.exists("heer")


def test_members_of_a_zip_are_asked_for_one_by_one_and_neighbours_together(store, asked):
    buffer, chance = io.BytesIO(), random.Random(1)
    contents = {f"{number:03}.jpg": chance.randbytes(3000 + number) for number in range(500)}
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    store.pipe_file("here/a.zip", buffer.getvalue())
    archive = archives.Archive("s3://here/a.zip")
    opened = len(asked)
    assert opened <= 6
    names = chance.sample(list(contents), 50)
    assert [archive.read(name) for name in names] == [contents[name] for name in names]
    # A request for each, and no more bytes than the member and what stands before it in the zip.
    assert len(asked) - opened <= 50
    assert sum(length for _, length in asked[opened:]) <= sum(len(contents[name]) for name in names) + 50 * 4096
    opened = len(asked)
    assert {name: archive.read(name) for name in contents} == contents
    assert len(asked) - opened < 15
    del asked[:]
    assert files.sha256_of_file("s3://here/a.zip") == files.sha256_of_bytes(buffer.getvalue())
    assert len(asked) < 10
    archive.check_unchanged()


def test_records_in_a_store_are_built_inspected_and_verified(store, rgb_zip):
    store.put_file(str(rgb_zip), "here/EuroSAT_RGB.zip")
    options = build.BuildOptions("eurosat_rgb", "s3://here/EuroSAT_RGB.zip", "s3://here/records")
    card = build.build(options).card
    assert scan_records.check_shards(card, "s3://here/records") == len(store.glob("here/records/*.tfrecord-*"))
    assert scan_records.verify(card, "s3://here/records") == 30


def no_credentials(monkeypatch, store):
    for name in VARIABLES:
        monkeypatch.delenv(name)


def no_server(monkeypatch, store):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(type(store), "retries", 1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.mark.parametrize(
    ("prepare", "url", "words"),
    [
        (no_credentials, "s3://here/x", "the store asks for credentials, and none are found .*AWS_ACCESS_KEY_ID and"),
        (no_server, "s3://here/x", "the store cannot be reached .*check the network and .* such as AWS_ENDPOINT_URL"),
        (lambda *nothing: None, "s3://bad_name!/x", "the store cannot do that .*the name of its bucket"),
    ],
)
def test_faults_of_a_store_are_told_with_a_remedy(store, monkeypatch, prepare, url, words):
    prepare(monkeypatch, store)
    type(store).clear_instance_cache()
    for act in (files.exists, files.read_bytes, files.list_names, functools.partial(files.write_bytes, data=b"")):
        with pytest.raises(StorageError, match=f"(?i){words}"):
            act(url)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError("Access Denied"), "the store refuses access .PermissionError: Access Denied.*may do there"),
        (TimeoutError(), r"the store cannot be reached \(TimeoutError\)"),
        (OSError(22, "Bad\nRequest"), "the store cannot do that .OSError: .Errno 22. Bad Request"),
    ],
)
def test_faults_of_any_file_system(monkeypatch, error, words):
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "cat_file", fail)
    with pytest.raises(StorageError, match=words):
        files.read_bytes("memory://a")
