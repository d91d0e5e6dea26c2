"""The report's benchmark fills stores that the package `results` can read, and measures every case on them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from results.load import read_evidence
from sweep.bench import report, report_cases, report_fill, report_stores

SIZE = report_fill.Size(runs=6, objects=4, steps=3)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    report_fill.fill(folder, SIZE, report_fill.Place.in_home(folder))
    return folder


def assert_whole(home: Path, uri: str | None) -> None:
    evidence = read_evidence(SimpleNamespace(name=report_cases.SWEEP, tracking=SimpleNamespace(uri=uri)), home)
    assert [record.state for record in evidence.records] == ["finished"] * 6
    assert len(evidence.results()) == 6 * 4 * 2 * 3
    assert len(evidence.results(report.METRICS)) == 6 * 4 * 2 * len(report.METRICS)
    curves = evidence.curves(["train/loss", "val/psnr"])
    assert curves.groupby("metric", observed=True).size().to_dict() == {"train/loss": 6 * 3, "val/psnr": 6}


def test_the_store_is_read_like_one_that_trials_filled(home: Path) -> None:
    assert_whole(home, None)


def test_every_kind_of_store_is_filled_with_the_same(
    postgres, empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgres.uri(postgres.create(template=empty_database))
    monkeypatch.setenv(report_stores.DATABASE_VARIABLE, database)
    with report_stores.filled_stores(tmp_path, SIZE) as stores:
        assert [store.name for store in stores] == ["SQLite", "postgresql", "server"]
        for store in stores:
            assert_whole(store.home, store.uri)


def test_a_case_is_measured_in_a_process_of_its_own(home: Path) -> None:
    took = report.in_process("load_results", report_stores.Store("SQLite", home))
    assert took["processor s"] > 0
    assert 50 < took["peak MiB"] < report.TARGET_MIB
    assert took["requests"] == 4  # three tables, and whether the file can be opened


def test_both_ways_load_the_same_runs(home: Path) -> None:
    per_metric = 6 * 4 * len(report.VIEW_KINDS)
    assert report_cases.load_results(home, None) == 3 * per_metric
    assert report_cases.load_by_mlflow(home, None) == len(report.METRICS) * per_metric


def test_the_command_is_what_is_measured(home: Path) -> None:
    took = report.in_process("splatsweep report", report_stores.Store("SQLite", home))
    assert took["seconds"] > 0
    assert "baseline" in (home / "reports" / report_cases.SWEEP / "auto.md").read_text()
