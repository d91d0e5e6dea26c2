"""Benchmark of building a report from many runs: time and memory, compared with MLflow's own calls.

The same runs are read from a SQLite file, from a tracking server on this machine, and from PostgreSQL where
$SPLATSWEEP_BENCH_DATABASE is the address of an empty database.  Every case runs in its own process, so that its imports
and its peak memory are included.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from sweep.bench.measure import BenchResult, machine
from sweep.bench.report_cases import CASES
from sweep.bench.report_fill import METRICS, VIEW_KINDS, Size
from sweep.bench.report_stores import DATABASE_VARIABLE, Store, filled_stores

TARGET_SECONDS, TARGET_MIB = 10.0, 1024.0
_MEASURED = ("seconds", "processor s", "peak MiB", "requests")


def run(quick: bool) -> BenchResult:
    """The whole report, its loading alone, and MLflow's way of loading the same scores, from each kind of store."""
    size = Size(runs=40, objects=10, steps=20) if quick else Size(runs=2000, objects=100, steps=60)
    rounds = 1 if quick else 3
    samples: dict[tuple[str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="splatsweep-bench-") as folder, filled_stores(Path(folder), size) as stores:
        for _ in range(rounds):
            for store in stores:
                for case in CASES:
                    samples.setdefault((store.name, case), []).append(in_process(case, store))
    rows = [
        {
            "store": store,
            "case": case,
            "runs": size.runs,
            "metrics": len(VIEW_KINDS) * len(METRICS),
            "objects": size.objects,
            **{name: median(sample[name] for sample in found) for name in _MEASURED},
        }
        for (store, case), found in samples.items()
    ]
    notes = [
        f"Target of splatsweep report: below {TARGET_SECONDS:g} s and {TARGET_MIB:g} MiB. Of a fresh process, from its "
        "start to its end; "
        "processor s counts all of its threads, and not a server; requests are SQL statements or HTTP requests.",
    ]
    if len(stores) < 3:
        notes.append(f"PostgreSQL: not measured; set {DATABASE_VARIABLE} to the address of an empty database.")
    return BenchResult("report", machine(), rows, notes)


def in_process(case: str, store: Store) -> dict[str, float]:
    """Seconds, peak resident memory and requests of one case; only cases named `... again` keep cached downloads."""
    if not case.endswith("again"):
        shutil.rmtree(store.home / "cache", ignore_errors=True)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "sweep.bench.report_cases", case, str(store.home), *([store.uri] if store.uri else [])],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": time.monotonic() - began, **found}
