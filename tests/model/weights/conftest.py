"""A local hub with the part of the Hugging Face hub's protocol that its client needs to download a repository."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator

import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"

#: Endings of the files that the hub keeps as large ones.
LARGE = (".safetensors", ".bin", ".pth")


class Hub(http.server.ThreadingHTTPServer):
    """Serves `files` as a repository of any name; the linked ETag of large files (`LARGE`) is their SHA-256."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files: dict[str, bytes] = {}
        #: sent instead of the true content
        self.damaged: dict[str, bytes] = {}
        self.sent: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        if "/resolve/" in self.path:
            self._file(head=False)
        else:
            self._repository()

    def do_HEAD(self) -> None:
        self._file(head=True)

    def _repository(self) -> None:
        files = self.server.files
        if "/tree/" in self.path:
            answer: object = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in files.items()]
        else:
            answer = {"id": "some/model", "sha": REVISION, "siblings": [{"rfilename": name} for name in files]}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, *, head: bool) -> None:
        name = self.path.rsplit("/", 1)[1]
        if name not in self.server.files:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        true = self.server.files[name]
        content = self.server.damaged.get(name, true)
        self.send_response(200)
        self.send_header("X-Repo-Commit", REVISION)
        if name.endswith(LARGE):
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(true).hexdigest()}"')
            self.send_header("X-Linked-Size", str(len(true)))
        self.send_header("ETag", f'"{hashlib.sha1(true).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not head:
            self.server.sent.append(name)
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[Hub]:
    """A running hub that the client uses instead of the real one, with an empty cache."""
    from huggingface_hub import constants

    running = Hub()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", running.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    yield running
    running.shutdown()
    running.server_close()
