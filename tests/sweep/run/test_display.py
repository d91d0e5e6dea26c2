"""The progress display: correct in a pipe, with the reason for waiting, and quiet at a breakpoint."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from results.records.home import trial_folder
from results.records.journal import Journal
from results.records.monitor import Monitor
from sweep.run import display
from sweep.run.display import Display
from sweep.run.executors.queue import FixedQueue
from sweep.terminal import Terminal
from tests.processes import wait_for
from tests.works import trial_of


def test_lines_in_a_pipe_show_the_reason_for_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_REFRESH_S", 0.02)
    monkeypatch.setattr(display, "_REMINDER_S", 0.05)
    stream = io.StringIO()
    shown = Display(Terminal(file=stream, width=80), Monitor(tmp_path))
    trial = trial_of(1)
    with shown.follow(FixedQueue([trial]), at_once=1):
        shown.wait_for("1 GPU on one node; free: 0 of 2 GPUs")
        wait_for(lambda: stream.getvalue().count("waiting for") > 1, "a reminder")
        shown.wait_for(None)
        shown.say("Node 10.0.0.2 has left the cluster")
        with Journal(trial_folder(tmp_path, trial.key)) as journal:
            journal.start(0)
            journal.failed("[/lpips] is nan")
    text = stream.getvalue()
    assert "waiting for 1 GPU on one node; free: 0 of 2 GPUs, " in text
    assert "Node 10.0.0.2 has left the cluster" in text
    assert "trial 1: failed  [/lpips] is nan" in text
    assert "0 of 1 done, 1 failed" in text


@pytest.mark.parametrize("ending", ["failed", "pruned"])
def test_totals_follow_each_ending_in_a_pipe(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_REFRESH_S", 0.02)
    stream = io.StringIO()
    trial = trial_of(1)
    shown = Display(Terminal(file=stream, width=80), Monitor(tmp_path))
    with shown.follow(FixedQueue([trial]), at_once=1), Journal(trial_folder(tmp_path, trial.key)) as journal:
        journal.start(0)
        getattr(journal, ending)("behind")
    assert stream.getvalue().endswith(f"0 of 1 done, 1 {ending}\n")


def test_a_breakpoint_finds_a_quiet_terminal_at_its_own_line(tmp_path: Path) -> None:
    script = tmp_path / "debugged.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from results.records.monitor import Monitor\n"
        "from sweep.run.display import Display\n"
        "from sweep.run.executors.queue import FixedQueue\n"
        "from sweep.terminal import Terminal\n"
        "from tests.works import trial_of\n"
        "shown = Display(Terminal(), Monitor(Path(sys.argv[1])))\n"
        "def trial():\n"
        "    answer = 42\n"
        "    breakpoint()\n"
        "    return answer\n"
        "with shown.follow(FixedQueue([trial_of(1)]), 1):\n"
        "    trial()\n"
        "print('quiet', shown._quiet.is_set())\n"
        "before = sys.breakpointhook\n"
        "assert before is sys.__breakpointhook__\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("PYTHONBREAKPOINT", None)  # Ray sets it
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        input="p answer\np trial.__name__\ncontinue\n",
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "(Pdb) 42" in done.stdout
    assert "quiet True" in done.stdout


def test_threads_of_the_display_end_with_it(tmp_path: Path) -> None:
    with Display(Terminal(file=io.StringIO()), Monitor(tmp_path)).follow(FixedQueue([]), 1):
        assert any(thread.name == "progress" for thread in threading.enumerate())
    assert not any(thread.name == "progress" for thread in threading.enumerate())
