"""Downloads from a local server that breaks off, stalls and sends wrong data."""

import http.server
import threading

import pytest

from model.weights import download as module
from model.weights.download import download

CONTENT = bytes(range(256)) * 40


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges = True
        self.breaks_after: int | None = None
        self.stalls = threading.Event()
        self.stalls.set()
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file-00000000.pth"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.server.stalls.wait(10)
        self.wfile.write(CONTENT[start : self.server.breaks_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield running
    running.stalls.set()
    running.shutdown()
    running.server_close()


def test_a_whole_file(server, tmp_path):
    download(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interrupted_download_resumes(server, tmp_path):
    server.breaks_after = 5000
    with pytest.raises(OSError, match="broke off after 5000 of 10240 bytes"):
        download(server.url, tmp_path / "file")
    assert not (tmp_path / "file").exists()
    server.breaks_after = None
    download(server.url, tmp_path / "file")
    assert server.asked == [None, "bytes=5000-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_of_it_again(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"x" * 100)
    server.ranges = False
    download(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_that_is_complete_is_the_file(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    download(server.url, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_that_falls_silent_is_not_waited_for(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    server.stalls.clear()
    with pytest.raises(OSError, match="timed out"):
        download(server.url, tmp_path / "file")
