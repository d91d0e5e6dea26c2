"""The output of `splatsweep bench`; `tests/sweep/bench` has the benchmarks."""

from __future__ import annotations

from typer.testing import CliRunner

from sweep.bench import BENCHES
from sweep.bench.measure import BenchResult
from sweep.cli import app


def measured(_: bool) -> BenchResult:
    return BenchResult("x", {"cpus": 2, "gpu": None, "GFLOP/s": 132.41192}, [{"case": "a", "ms": 0.123456}])


def test_numbers_have_three_digits_also_those_of_the_machine(monkeypatch) -> None:
    monkeypatch.setitem(BENCHES, "x", f"{__name__}:measured")
    output = CliRunner().invoke(app, ["bench", "x"]).output
    assert "cpus 2, GFLOP/s 132\n" in output
    assert "0.123\n" in output
