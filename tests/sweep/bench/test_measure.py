"""The tools that the benchmarks measure with."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.rasterizers.packages import BackendUnavailableError
from sweep.bench.measure import (
    PEAK_SHAPES,
    Convolution,
    fastest_convolution,
    interleaved,
    matmul_gflops,
    torch_threads,
    why_without_figures,
)


def test_cases_run_in_turn_and_warm_up_uncounted():
    calls = []
    times = interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2, warmup=1)
    assert "".join(calls) == "ababab"
    assert {name: len(ms) for name, ms in times.items()} == {"a": 2, "b": 2}
    assert all(ms >= 0 for case in times.values() for ms in case)


@pytest.mark.parametrize(("cases", "rounds"), [({}, 3), ({"a": int}, 0)])
def test_nothing_to_measure_is_an_error(cases, rounds):
    with pytest.raises(ValueError, match="measure nothing"):
        interleaved(cases, rounds)


def test_threads_are_put_back():
    with torch_threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1


def test_flop_of_the_peak_are_those_that_torch_counts():
    convolution = Convolution(channels=16, side=8, batch=2)
    call = convolution.case()
    with FlopCounterMode(display=False) as counter:
        call()
    assert counter.get_total_flops() == pytest.approx(1e9 * convolution.gflop)


def test_rates_are_plausible():
    assert 0.1 < matmul_gflops(1, size=128) < 1e5
    peak = fastest_convolution(batch=1, rounds=1)
    assert (peak.channels, peak.side) in PEAK_SHAPES
    assert torch.get_num_threads() == 1


def test_what_is_not_installed_is_no_failure():
    assert why_without_figures(BackendUnavailableError("no gsplat")) == {"lacks": "BackendUnavailableError: no gsplat"}
    assert why_without_figures(RuntimeError("an illegal access")) == {"fails": "RuntimeError: an illegal access"}
