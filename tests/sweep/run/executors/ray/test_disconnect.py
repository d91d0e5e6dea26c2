"""The end of the connection to Ray, beside threads that free objects of Ray's."""

from __future__ import annotations

import os
import subprocess
import sys

# Another thread drops references in cycles, which only garbage collection frees: after every object that it makes.
SCRIPT = """
import gc, threading, time
import ray
from sweep.run.executors.ray.cluster import disconnect

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


def test_garbage_of_another_thread_does_not_end_the_process() -> None:
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert found.stdout.startswith("lives on"), found.stdout + found.stderr
