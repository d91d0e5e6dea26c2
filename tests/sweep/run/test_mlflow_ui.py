"""The MLflow UI is served quietly, on the page of a sweep's experiment, and ends with its command."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from results.address import default_uri, experiment_page, run_page, sqlite_path, sqlite_uri
from sweep.run import mlflow_ui
from tests.processes import PATIENCE_S, free_port

#: a stand-in of MLflow's server: it answers the check of its health, prints a line, and sends its parent SIGNAL twice,
#: or ends where that is none, once the file OPENED exists
_SERVER = """
import http.server, os, signal, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
def send():
    while not os.path.exists(OPENED):
        time.sleep(0.1)
    if SIGNAL is None:
        os._exit(0)
    for _ in range(2):
        os.kill(os.getppid(), SIGNAL)
print("noise of the server of", os.environ["MLFLOW_BACKEND_STORE_URI"], flush=True)
threading.Thread(target=send).start()
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    uri = sqlite_uri(tmp_path_factory.mktemp("store") / "mlflow.db")
    client = MlflowClient(uri)
    client.create_experiment("renamed by hand", tags={"splatsweep.experiment": "s"})
    return uri


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_prints_the_page_and_ends_on_a_signal(uri, monkeypatch, capfd, tmp_path, number) -> None:
    file = tmp_path / "opened"
    server = _SERVER.replace("SIGNAL", str(int(number))).replace("OPENED", repr(str(file)))
    monkeypatch.setattr(mlflow_ui, "SERVER", (sys.executable, "-c", server))
    monkeypatch.setattr(mlflow_ui.webbrowser, "open", file.write_text)
    monkeypatch.setattr(mlflow_ui, "_PATIENCE_S", PATIENCE_S)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")  # nobody listens there
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies of its first use
    port, said = free_port(), []
    before = signal.signal(number, lambda *_: None)  # not the default, which would end the tests
    try:
        with mlflow_ui.ended_by_signals():
            mlflow_ui.serve(uri, port, "s", said.append, opens=True)
    finally:
        signal.signal(number, before)
    address = f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning"
    assert said == ["Starting MLflow's UI; this takes some seconds.", f"MLflow: {address}", "Ctrl-C ends it."]
    assert file.read_text() == address
    assert "noise" not in "".join(capfd.readouterr())
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port))


def test_it_shows_its_own_store_and_reports_a_server_that_ends_by_itself(uri, monkeypatch, tmp_path) -> None:
    file = tmp_path / "opened"
    file.touch()
    server = _SERVER.replace("SIGNAL", "None").replace("OPENED", repr(str(file)))
    monkeypatch.setattr(mlflow_ui, "SERVER", (sys.executable, "-c", server))
    monkeypatch.setattr(mlflow_ui, "wait_until_healthy", lambda server, _: server.wait() or None)
    monkeypatch.setattr(mlflow_ui.webbrowser, "open", lambda _: pytest.fail("it opens no browser"))
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "sqlite:////another.db")
    port, said = free_port(), []
    with pytest.raises(mlflow_ui.UiError, match=f"ended by itself: noise of the server of {uri}"):
        mlflow_ui.serve(uri, port, None, said.append, opens=False)
    assert f"MLflow: http://127.0.0.1:{port}/#/experiments?workflowType=machine_learning" in said


def test_an_experiment_that_was_not_recorded_yet_has_no_page(uri) -> None:
    assert mlflow_ui._experiment_id(uri, "another") is None


_DATABASE_ERROR = "Traceback:\n(psycopg.OperationalError) connection refused\n[SQL: SELECT 1]\n(Background: ...)"


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("raise SystemExit('usage\\nno such thing')", "does not start: no such thing"),
        (f"raise SystemExit({_DATABASE_ERROR!r})", "does not start: .*connection refused$"),
        ("raise SystemExit(3)", "does not start: it printed nothing"),
        ("import time; time.sleep(600)", "did not answer within 0 s: it printed nothing"),
    ],
)
def test_a_server_that_does_not_start_is_reported_with_the_decisive_line(uri, monkeypatch, program, problem) -> None:
    monkeypatch.setattr(mlflow_ui, "SERVER", (sys.executable, "-c", program))
    monkeypatch.setattr(mlflow_ui, "_PATIENCE_S", 0.2 if "sleep" in program else PATIENCE_S)
    with pytest.raises(mlflow_ui.UiError, match=problem):
        mlflow_ui.serve(uri, free_port(), None, lambda _: None, opens=False)


def test_a_port_whose_last_connections_are_being_closed_is_free(uri, monkeypatch) -> None:
    monkeypatch.setattr(mlflow_ui, "SERVER", (sys.executable, "-c", "raise SystemExit('as if')"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
    with pytest.raises(mlflow_ui.UiError, match="as if"):
        mlflow_ui.serve(uri, port, None, lambda _: None, opens=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_one_signal_interrupts_and_others_leave_the_cleaning_up_alone(number) -> None:
    handler = lambda *_: pytest.fail("the former handler")  # noqa: E731
    before = signal.signal(number, handler)
    try:
        with mlflow_ui.ended_by_signals():
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_as_under_nohup_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with mlflow_ui.ended_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_taken_port_is_refused(uri) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(mlflow_ui.UiError, match=rf"port {port} of 127.0.0.1 cannot be used.*--port"):
            mlflow_ui.serve(uri, port, None, lambda _: None, opens=False)


def test_addresses_name_the_view_of_trainings() -> None:
    assert experiment_page("http://h:1/", None) == "http://h:1/#/experiments?workflowType=machine_learning"
    server = run_page("https://user:secret@mlflow.lab/", "2", "abc")
    assert server.endswith("mlflow.lab/#/experiments/2/runs/abc?workflowType=machine_learning")
    assert "secret" not in server


def locations(uri: str) -> list[str]:
    return [found.artifact_location for found in MlflowClient(uri).search_experiments(filter_string="name = 'a'")]


def test_a_store_that_may_not_be_written_is_shown_as_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, said = tmp_path / "home #1", list[str]()
    home.mkdir()
    former = (tmp_path / "former" / "artifacts").as_uri()
    uri = default_uri(home)
    MlflowClient(uri).create_experiment("a", former, tags={"splatsweep.experiment": "a"})
    monkeypatch.setattr(mlflow_ui, "may_write", lambda _: False)
    with mlflow_ui.writable_store(uri, home, said.append) as shown:
        assert locations(shown) == [(home / "artifacts").as_uri()]
        copy = Path(str(sqlite_path(shown)))
    assert not copy.exists()
    assert locations(uri) == [former]
    (line,) = said
    assert line.startswith(f"{home / 'mlflow.db'} may not be written, so a copy of it is shown")
    monkeypatch.undo()
    with mlflow_ui.writable_store(uri, tmp_path, said.append):
        assert locations(uri) == [former], "the store is not that home's own"
    with mlflow_ui.writable_store(uri, home, said.append) as shown:
        assert shown == uri
    assert locations(uri) == [(home / "artifacts").as_uri()]


def test_a_store_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database, but as long as the header of one" * 9)
    with (
        pytest.raises(mlflow_ui.UiError, match="cannot be written: file is not a database"),
        mlflow_ui.writable_store(default_uri(tmp_path), tmp_path, lambda _: None),
    ):
        pass
