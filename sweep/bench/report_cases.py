"""The cases of the benchmark `report`, each run by itself: `python -m sweep.bench.report_cases CASE HOME [URI]`.

They are separate from `sweep.bench.report`, whose import of torch would count as theirs.
"""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SWEEP = "bench"
# Thousands of progress bars would add to the time.
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"


def report(home: Path, uri: str | None) -> None:
    """The command: tables, figures and the page."""
    from sweep.cli import main

    path = home / f"{SWEEP}.yaml"
    path.write_text(json.dumps({"name": SWEEP, "tracking": {"uri": uri}}))
    sys.argv = ["splatsweep", "report", str(path), "--home", str(home)]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise


def load_results(home: Path, uri: str | None) -> int:
    """Loads the tidy frame of the tables' metrics."""
    from results.load import load_results

    return len(load_results(_sweep(uri), home))


def load_by_mlflow(home: Path, uri: str | None) -> int:
    """Loads the same with MLflow alone: finds the runs, then downloads each run's scores."""
    import mlflow
    import pandas as pd

    mlflow.set_tracking_uri(uri or f"sqlite:///{home / 'mlflow.db'}")
    runs = mlflow.search_runs(search_all_experiments=True)
    frames = [
        pd.read_parquet(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="per_object.parquet"))
        for run_id in runs["run_id"]
    ]
    return len(pd.concat(frames, keys=runs["run_id"]))


#: in this order, since the second loading reads from the home what the first one downloaded from a server
CASES: dict[str, Callable[[Path, str | None], object]] = {
    "splatsweep report": report,
    "load_results": load_results,
    "load_results again": load_results,
    "mlflow.search_runs and download_artifacts": load_by_mlflow,
}


def _sweep(uri: str | None) -> SimpleNamespace:
    return SimpleNamespace(name=SWEEP, tracking=SimpleNamespace(uri=uri))


def count_requests() -> Counter[str]:
    """Counts SQL statements and HTTP requests from now on."""
    import requests
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    counted: Counter[str] = Counter()
    send = requests.Session.send

    def counting(*arguments: Any, **options: Any) -> requests.Response:
        counted["http"] += 1
        return send(*arguments, **options)

    connect = sqlite3.connect

    def tracing(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda _: counted.update(["sql"]))
        return connection

    requests.Session.send = counting  # type: ignore[method-assign]
    sqlite3.connect = tracing  # type: ignore[assignment]  # the home's own store is read without SQLAlchemy, which does not use this name
    event.listen(Engine, "before_cursor_execute", lambda *_: counted.update(["sql"]))
    return counted


def main(case: str, home: Path, uri: str | None = None) -> None:
    """Runs one case and prints its measurements as JSON."""
    counted = count_requests()
    CASES[case](home, uri)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    took = {
        "processor s": usage.ru_utime + usage.ru_stime,
        "peak MiB": _peak_kib() / 1024,
        "requests": counted.total(),
    }
    print(json.dumps(took))


def _peak_kib() -> int:
    """The most memory this program had; the figure of `getrusage` begins with that of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
