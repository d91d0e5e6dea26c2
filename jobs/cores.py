"""The processor cores that this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may run on: on Linux those that it is bound to, elsewhere all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
