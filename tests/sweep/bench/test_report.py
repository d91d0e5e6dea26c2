"""The report's benchmark fills a store that results can read, and measures every case on it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from results.load import read_evidence
from sweep.bench import report


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    report.fill(folder, report.Size(runs=6, objects=4, steps=3))
    return folder


def test_the_store_is_read_like_one_that_trials_filled(home: Path) -> None:
    evidence = read_evidence(SimpleNamespace(name=report.SWEEP, tracking=SimpleNamespace(uri=None)), home)
    assert [record.state for record in evidence.records] == ["finished"] * 6
    assert len(evidence.results()) == 6 * 4 * 2 * 3
    assert len(evidence.results(report.METRICS)) == 6 * 4 * 2 * len(report.METRICS)
    curves = evidence.curves(["train/loss", "val/psnr"])
    assert curves.groupby("metric", observed=True).size().to_dict() == {"train/loss": 6 * 3, "val/psnr": 6}


def test_a_case_is_measured_in_a_process_of_its_own(home: Path) -> None:
    took = report.in_process("load_results", home)
    assert took["processor s"] > 0
    assert 50 < took["peak MiB"] < report.TARGET_MIB


def test_both_ways_load_the_same_runs(home: Path) -> None:
    per_metric = 6 * 4 * len(report.VIEW_KINDS)
    assert report.CASES["load_results"](home) == 3 * per_metric
    assert report.CASES["mlflow.search_runs and download_artifacts"](home) == len(report.METRICS) * per_metric
