"""Signals request a stop after a checkpoint."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.run.stop import Stop, request_stop, signal_handlers_kept, stop_on_signals, stop_requested
from sweep.terminal import Terminal
from tests.processes import PATIENCE_S


@pytest.fixture(autouse=True)
def _a_terminal_that_can_close() -> Iterator[None]:
    """Under `nohup` tests would inherit that SIGHUP is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_the_first_request_counts(tmp_path: Path) -> None:
    request_stop(tmp_path / "stop", "disk", "no space left")
    request_stop(tmp_path / "stop", "request", "by SIGTERM")
    assert stop_requested(tmp_path / "stop") == Stop("disk", "no space left")


@pytest.mark.parametrize(
    ("content", "reason"), [("", "PLACE was there"), ("no room\n", "no room"), ("[1]", "[1]"), ("{}", "{}")]
)
def test_a_file_made_by_hand_or_on_a_full_disk_is_a_request(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "stop"
    path.write_text(content)
    assert stop_requested(path) == Stop("request", reason.replace("PLACE", str(path)))


def test_threads_leave_signals_alone(tmp_path: Path) -> None:
    """A sweep may run in a thread of a program, where Python refuses to set handlers."""
    done: list[bool] = []

    def run() -> None:
        with stop_on_signals(tmp_path / "stop", Terminal(file=io.StringIO())), signal_handlers_kept():
            pass
        done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_for_a_stop(tmp_path: Path, number: signal.Signals) -> None:
    stream = io.StringIO()
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with stop_on_signals(tmp_path / "stop", Terminal(file=stream)):
        send(number)
        asked = stop_requested(tmp_path / "stop")
    assert asked is not None
    assert asked.reason == f"by {number.name}"
    again = "" if number == signal.SIGHUP else "; interrupt again to stop at once"
    assert stream.getvalue() == f"Stopping after a checkpoint{again}.\n"
    after = {each: signal.getsignal(each) for each in before}
    assert after == before | ({signal.SIGHUP: signal.SIG_IGN} if number == signal.SIGHUP else {})


def test_a_second_interrupt_ends_at_once_and_a_closed_terminal_never_does(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGHUP)
    with stop_on_signals(tmp_path / "stop", Terminal(file=io.StringIO())):
        send(signal.SIGHUP)
        send(signal.SIGHUP)
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGTERM)
    signal.signal(signal.SIGHUP, before)


def test_an_interrupt_that_also_ends_the_reader_of_a_pipe_asks_for_a_stop(tmp_path: Path) -> None:
    """As in `splatsweep run sweep.yaml | tee log`: both get the interrupt of the keyboard."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        terminal = Terminal(file=stream)
        with stop_on_signals(tmp_path / "stop", terminal):
            os.close(reader)
            send(signal.SIGINT)
        terminal.print("the report")
    assert stop_requested(tmp_path / "stop") == Stop("request", "by SIGINT")


def test_under_nohup_a_closed_terminal_is_no_reason_to_stop(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals(tmp_path / "stop", Terminal(file=io.StringIO())):
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert stop_requested(tmp_path / "stop") is None


@pytest.mark.parametrize("is_logged", [False, True])
def test_what_is_written_behind_a_closed_terminal_raises_nothing(tmp_path: Path, is_logged: bool) -> None:
    """Where the errors go to a file, they still arrive there."""
    script = tmp_path / "closed.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from sweep.run.stop import stop_on_signals\n"
        "from sweep.terminal import Terminal\n"
        "folder = Path(sys.argv[1])\n"
        "terminal = Terminal()\n"
        "with stop_on_signals(folder / 'stop', terminal):\n"
        "    (folder / 'ready').touch()\n"
        "    while not (folder / 'stop').exists():\n"
        "        time.sleep(0.05)\n"
        "terminal.print('the report')\n"
        "print('and more', file=sys.stderr)\n"
        "(folder / 'done').touch()\n"
    )
    leader, follower = pty.openpty()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)],
            stdin=follower,
            stdout=follower,
            stderr=log if is_logged else follower,
            start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
        )
    os.close(follower)
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
    os.close(leader)  # closes the terminal: the kernel sends SIGHUP
    assert process.wait(timeout=PATIENCE_S) == 0
    assert (tmp_path / "done").exists()
    assert (tmp_path / "log").read_text() == ("and more\n" if is_logged else "")
