"""`splatsweep bench step`, in small."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from sweep.cli import app


@pytest.fixture(scope="module")
def report():
    result = CliRunner().invoke(app, ["bench", "step", "--quick", "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_case_is_measured(report):
    assert {row["case"] for row in report["rows"]} == {
        "network, stock",
        "network, channels last",
        "network, ours",
        "step",
        "batch",
        "step with midas_small, input",
        "step with midas_small, xattn",
    }
    assert all(row["ms"] > 0 for row in report["rows"])


def test_rates_follow_from_times(report):
    networks = [row for row in report["rows"] if row["case"].startswith("network")]
    for row in networks:
        assert row["gflop_per_s"] == pytest.approx(1e3 * row["gflop"] / row["ms"])
        assert row["of_peak"] == pytest.approx(row["gflop_per_s"] / row["peak_gflop_per_s"])


def test_an_unknown_benchmark_is_refused():
    result = CliRunner().invoke(app, ["bench", "stpe"])
    assert isinstance(result.exception, ValueError)
    assert "did you mean 'step'" in str(result.exception)
