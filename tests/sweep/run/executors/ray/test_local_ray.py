"""Ray on this machine: workers start under any path, and its end disturbs no other thread."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Another thread drops references in cycles, which only garbage collection frees: after every object that it makes.
DISCONNECTION = """
import gc, threading, time
import ray
from sweep.run.executors.ray.connection import disconnect

class Holder:
    def __init__(self, held):
        self.held, self.itself = held, self

ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
held = [ray.put(number) for number in range(5_000)]

def drop():
    while held:
        Holder(held.pop())
        time.sleep(3e-4)

gc.freeze()
gc.set_threshold(1, 10_000, 10_000)
thread = threading.Thread(target=drop, daemon=True)
thread.start()
disconnect()
print("lives on, with", len(held))
held.clear()
"""

CONNECTION = """
import sys
import ray
from sweep.run.executors.ray.connection import connect, disconnect

class Worker:
    def python(self):
        return sys.executable

connect()
worker = ray.remote(Worker).options(runtime_env={"env_vars": {"AS_TUNE": "sets some"}}).remote()
print(ray.get(worker.python.remote(), timeout=100))
disconnect()
"""


def output_of(script: str, python: Path | str = sys.executable, **variables: str) -> str:
    """The output of a script in a process of its own, followed by its errors."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **variables}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, env=environment, timeout=300)
    return done.stdout + done.stderr


def test_garbage_of_another_thread_does_not_end_the_process() -> None:
    found = output_of(DISCONNECTION)
    assert found.startswith("lives on"), found


def test_workers_start_where_the_path_of_python_has_spaces(tmp_path: Path) -> None:
    """Ray would wait forever for workers that a shell could not start."""
    environment = tmp_path / "My Drive" / "it's"
    environment.parent.mkdir()
    environment.symlink_to(sys.prefix)
    python = environment / "bin" / "python"
    assert output_of(CONNECTION, python).splitlines()[0] == str(python)


def test_a_home_directory_that_cannot_be_written_does_not_keep_ray_from_starting(tmp_path: Path) -> None:
    nobodys = tmp_path / "home"
    nobodys.touch()  # not even root can make a folder in it
    assert output_of(CONNECTION, HOME=str(nobodys)).splitlines()[0] == sys.executable
