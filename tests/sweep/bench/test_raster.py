"""The rasterisers' benchmark measures the workload that it describes."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from model.rasterizers.reference import alpha_maps, project, select
from model.types import Gaussians
from sweep.bench import raster, raster_gpu
from sweep.bench.raster_cases import PAPER_STEP, WORKLOADS, Workload, make_task
from sweep.bench.raster_gpu import GPU_WORKLOADS, captured, gpu_rows
from sweep.bench.raster_profile import PARTS, profile
from tests.cuda_graphs import CudaGraphs


def test_quick_run_has_a_row_for_every_case_here():
    result = raster.run(quick=True)
    cases = {(row["workload"], row["backend"], row["threads"]) for row in result.rows}
    assert {("32 px", name, threads) for name in ("cpu", "reference") for threads in (1, 2)} <= cases
    assert all(row["forward ms"] > 0 < row["both ms"] for row in result.rows)
    assert len({tuple(row) for row in result.rows}) == 1
    dense, ours = (min(row["both ms"] for row in result.rows if row["backend"] == b) for b in ("reference", "cpu"))
    assert dense > 3 * ours
    assert result.machine["matmul GFLOP/s with 1"] > 0
    assert [row["part"] for row in result.details] == list(PARTS)
    assert all(row.keys() == {"part", "32 px, 1", "32 px, 2"} for row in result.details)


def test_workload_is_the_one_of_the_targets():
    """About 41 Gaussians contribute to each pixel of the surface, at any resolution."""
    for size in (16, 32):
        task = make_task(Workload("", 1, 1, size, (1, 1)))
        splats = project(select(Gaussians(*task.leaves), 0), select(task.cameras, 0, 0), False)
        counts = (alpha_maps(splats, size, size) > 0).sum(dim=0).float()
        assert 30 < counts[size // 2 - 2 : size // 2 + 2].mean() < 55


def test_both_returns_gradients_and_backends_agree():
    task = make_task(Workload("", 2, 2, 8, (1, 1)))
    for gradient, expected in zip(task.both("cpu"), task.both("reference"), strict=True):
        assert torch.linalg.norm(gradient - expected) < 1e-3 * torch.linalg.norm(expected)


def test_dense_torch_is_limited_to_cases_that_fit():
    backends = {workload.name: {case.backend for case in raster.cases_of(workload)} for workload in WORKLOADS}
    assert "reference" in backends["64 px"]
    assert "reference" not in backends["128 px"]
    assert math.isclose(WORKLOADS[3].targets[0], 36)


def test_backends_of_a_gpu_stand_beside_each_other():
    """A stopwatch replaces CUDA events, and the CPU replaces the GPU."""
    calls = []

    def stopwatch(call):
        images_or_gradients = call()
        calls.append(type(images_or_gradients))
        return float(len(calls))

    workloads = (Workload("tiny", 2, 2, 4), Workload("small", 1, 1, 8))
    rows = gpu_rows(["cpu", "reference"], 2, workloads, device="cpu", stopwatch=stopwatch)
    assert [(row["workload"], row["backend"]) for row in rows] == [
        (workload.name, backend) for workload in workloads for backend in ("cpu", "reference")
    ]
    assert len(calls) == 2 * 2 * 2 * (3 + 2), "backends, columns, workloads, rounds with those that warm up"
    assert rows[0]["forward ms"] == (13 + 17) / 2, "what warms up is not counted"
    assert all(row["times inria"] is None for row in rows)


def test_a_call_is_replayed_as_a_graph(monkeypatch):
    graphs, calls = CudaGraphs(monkeypatch), torch.zeros(())
    replay = captured(lambda: calls.add_(1))
    assert calls == 3, "those that warm up; a capture runs nothing"
    replay()
    assert calls == 4
    assert [graph.replays for graph in graphs.graphs] == [1]


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_graph_may_contain_has_a_row_as_one(monkeypatch, caplog, fails):
    def stopwatch(call):
        call()
        return 1.0

    def stand_in(call):
        if fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        return call

    monkeypatch.setattr(raster_gpu, "captured", stand_in)
    capturable = {"cpu": True, "reference": False}
    monkeypatch.setattr(raster_gpu, "capabilities", lambda name: SimpleNamespace(capturable=capturable[name]))
    rows = gpu_rows(list(capturable), 1, [Workload("tiny", 1, 1, 4)], device="cpu", stopwatch=stopwatch)
    expected = [("cpu", "eager"), ("cpu", "graph"), ("reference", "eager")]
    assert [(row["backend"], row["execution"]) for row in rows] == [e for e in expected if e[1] != "graph" or not fails]
    assert ("not permitted" in caplog.text) == fails


def test_a_backend_that_fails_costs_no_other(caplog):
    rows = gpu_rows(["gsplat", "cpu"], 1, [Workload("tiny", 1, 1, 4)], device="cpu", stopwatch=lambda _: 1.0)
    assert [row["backend"] for row in rows] == ["cpu"]
    assert "gsplat is not timed" in caplog.text


def test_a_gpu_draws_what_the_paper_trains_on():
    assert PAPER_STEP in GPU_WORKLOADS
    assert (PAPER_STEP.scenes, PAPER_STEP.views, PAPER_STEP.size) == (8, 4, 128)


def test_profile_adds_up():
    row = profile(Workload("small", 1, 1, 16, (1, 1)), threads=1, rounds=5)
    parts = [row[part] for part in PARTS if part != "all"]
    assert math.isclose(sum(parts), row["all"])
    assert all(ms > 0 for ms in parts[:-1])  # the rest is a difference
    assert row["rasterise backward"] < row["all"]
    assert row["checks"] < row["all"]
