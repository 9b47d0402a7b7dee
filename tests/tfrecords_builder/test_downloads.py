import hashlib
import http.server
import resource
import signal
import threading

import pytest

from eo_keras.core import files
from eo_keras.core.output_folders import FILES, OutputFolder
from eo_keras.errors import SourceError, StorageError
from tests.kept import contents
from tfrecords_builder import downloads

CONTENT = bytes(range(256)) * 4000


class Server(http.server.BaseHTTPRequestHandler):
    """Gives CONTENT; what it does besides is set on the server."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if self.path != "/file.zip":
            return self.send_error(404)
        if self.server.answers:
            return self.send_error(self.server.answers.pop(0))
        first = int(asked[6:-1]) if asked and self.server.knows_ranges else 0
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        end = self.server.cuts.pop(0) if self.server.cuts else len(CONTENT)
        self.wfile.write(CONTENT[first:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.ranges, running.cuts, running.answers, running.knows_ranges = [], [], [], True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def published(server, name="file.zip", content=CONTENT):
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    return downloads.PublishedFile("a.zip", url, len(CONTENT), hashlib.md5(content).hexdigest())


def left_behind(folder, content):
    """What a download that was cut off leaves."""
    output = OutputFolder(folder, FILES)
    (output.scratch(downloads.PARTIAL_FOLDER) / "a.zip").write_bytes(content)


def test_what_looks_like_a_part_of_it_stays(server, tmp_path):
    for name in (".partial-a.zip", ".partial/a.zip"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
    before = contents(tmp_path)
    with pytest.raises(SourceError, match=".partial: this program did not make it"):
        downloads.download(published(server), tmp_path)
    assert contents(tmp_path) == before
    (tmp_path / ".partial" / "a.zip").unlink()
    downloads.download(published(server), tmp_path)
    assert contents(tmp_path) == {".partial-a.zip": b"mine", "a.zip": CONTENT}


def test_a_file_is_fetched_once(server, tmp_path):
    told = []
    path = downloads.download(published(server), tmp_path, progress=lambda *args: told.append(args))
    assert path.read_bytes() == CONTENT
    assert told[-1] == ("downloading", len(CONTENT), len(CONTENT))
    downloads.download(published(server), tmp_path)
    assert server.ranges == [None]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]


def test_a_cut_connection_is_continued(server, tmp_path):
    server.cuts = [300_000, 700_000]
    path = downloads.download(published(server), tmp_path, pause_seconds=0)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=700000-"]


def test_an_earlier_run_is_continued(server, tmp_path):
    left_behind(tmp_path, CONTENT[:1000])
    assert downloads.download(published(server), tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.knows_ranges = False
    left_behind(tmp_path, b"x" * 1000)
    assert downloads.download(published(server), tmp_path).read_bytes() == CONTENT


def test_another_file_is_refused_and_removed(server, tmp_path):
    with pytest.raises(SourceError, match="its MD5 is .* as published"):
        downloads.download(published(server, content=b"other"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_that_is_there_is_not_overwritten(server, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"mine")
    with pytest.raises(SourceError, match="it has 4 bytes.*Move it away"):
        downloads.download(published(server), tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == b"mine" and server.ranges == []


def test_what_the_server_does_not_have(server, tmp_path):
    with pytest.raises(SourceError, match="responds with 404"):
        downloads.download(published(server, name="gone.zip"), tmp_path)


def test_no_network(tmp_path):
    file = downloads.PublishedFile("a.zip", "http://127.0.0.1:9/a.zip", 5, "0" * 32)
    with pytest.raises(SourceError, match="cannot be fetched.*continues where it stopped"):
        downloads.download(file, tmp_path, pause_seconds=0)


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.answers = [503, 429]
    assert downloads.download(published(server), tmp_path, pause_seconds=0).read_bytes() == CONTENT
    server.answers = [503] * downloads.ATTEMPTS
    with pytest.raises(SourceError, match="responds with 503"):
        downloads.download(published(server), tmp_path / "other", pause_seconds=0)


def test_a_partial_file_that_the_server_refuses_is_fetched_again(server, tmp_path):
    left_behind(tmp_path, b"x" * 1000)
    server.answers = [416]
    assert downloads.download(published(server), tmp_path, pause_seconds=0).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-", None]


def test_two_downloads_at_once(server, tmp_path):
    with files.FolderLock(tmp_path, SourceError), pytest.raises(SourceError, match="another process"):
        downloads.download(published(server), tmp_path)


def test_a_full_disk_is_no_network_error(server, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(StorageError, match="no room is left"):
            downloads.download(published(server), tmp_path, pause_seconds=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(server.ranges) == 1
