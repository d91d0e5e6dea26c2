"""What a report needs of a sweep file, from a process that ends before the report is made.

Checking a sweep needs torch: half a gigabyte, and seconds that the report's own imports can take at the same time.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportedTracking:
    """Where the runs are; null means the home's own store."""

    uri: str | None


@dataclass(frozen=True)
class ReportedSweep:
    """The part of a sweep that `results` knows of."""

    name: str
    tracking: ReportedTracking
    tables: tuple[str, ...]


@contextmanager
def reading(path: Path) -> Iterator[Future[ReportedSweep]]:
    """Read and check a sweep file beside the body; the future raises what `load_sweep` does."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        yield process.submit(_read, path)


def _read(path: Path) -> ReportedSweep:
    from sweep.spec import load_sweep

    sweep = load_sweep(path)
    return ReportedSweep(sweep.name, ReportedTracking(sweep.tracking.uri), sweep.tables)
