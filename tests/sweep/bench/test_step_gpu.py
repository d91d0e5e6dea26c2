"""The parts of the GPU's step benchmark that a CPU can run."""

from __future__ import annotations

import warnings
import weakref
from types import SimpleNamespace

import pytest
import torch

from jobs.data.prepare import open_dataset, prepare
from jobs.execution import ExecutionError
from model.rasterizers import render
from sweep.bench import step_gpu
from sweep.bench.step_gpu import (
    Case,
    GpuSize,
    busy_share,
    bytes_of_graphs,
    cases_of,
    count_synchronisations,
    device_spans,
    make_step,
    measured_row,
    relative_to,
    render_one_by_one,
)

CPU = torch.device("cpu")
TINY = GpuSize("tiny", 16, 8, 1, 8, batch=2, views=2)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home, config = tmp_path_factory.mktemp("home"), TINY.config("cpu", "tf32")
    prepare(config.data.name, config.data.options, home, workers=1)
    return home


@pytest.fixture(scope="module")
def store(home):
    config = TINY.config("cpu", "tf32")
    return open_dataset(config.data.name, config.data.options, home)


def test_busy_share_counts_overlaps_once():
    assert busy_share([]) == 0
    assert busy_share([(0, 4)]) == 1
    assert busy_share([(6, 8), (0, 2), (1, 3)]) == pytest.approx(5 / 8)
    assert busy_share([(0, 10), (2, 3)]) == 1


def test_labels_on_a_gpus_timeline_are_no_work():
    """torch labels the whole step of its own optimisers, which only the published style uses."""
    kernel, label, call = (
        SimpleNamespace(device_type=device, is_user_annotation=is_label, time_range=SimpleNamespace(start=0.0, end=end))
        for device, is_label, end in (
            (torch.autograd.DeviceType.CUDA, False, 1.0),
            (torch.autograd.DeviceType.CUDA, True, 9.0),
            (torch.autograd.DeviceType.CPU, False, 8.0),
        )
    )
    assert device_spans([kernel, label, call]) == [(0, 1)]


def test_the_memory_of_graphs_is_that_of_their_pools(monkeypatch):
    pools = [{"total_size": 5, "segment_pool_id": (0, 0)}, {"total_size": 7, "segment_pool_id": (0, 1)}]
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: pools)
    assert bytes_of_graphs() == 7


def test_synchronisations_are_warnings_of_the_debug_mode(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def step():
        for _ in range(3):
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    assert count_synchronisations(step) == 3
    assert modes == [1, 0]


def test_the_published_style_is_first_then_every_backend_and_precision():
    cases = cases_of(TINY, ["gsplat", "inria"], compiled=True)
    assert (cases[0].published, cases[0].backend, cases[0].execution) == (True, "inria", "eager")
    ours = {(case.backend, case.execution, case.precision) for case in cases[1:]}
    assert ours == {
        (backend, execution, precision)
        for precision in ("tf32", "bf16")
        for backend, execution in (
            ("gsplat", "graph"),
            ("inria", "graph"),
            ("gsplat", "eager"),
            ("gsplat", "compiled"),
        )
    }
    assert not any(case.execution == "compiled" for case in cases_of(TINY, ["triton"], compiled=False))


def test_a_call_a_render_draws_the_same(store):
    network, seen = [], []
    case = Case(TINY, "cpu", "eager", "tf32", published=True)

    def recorded(gaussians, cameras, background, backend):
        network.append(gaussians)
        seen.append((cameras, background))
        return one_by_one(gaussians, cameras, background, backend)

    one_by_one = step_gpu.render_one_by_one
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(step_gpu, "render_one_by_one", recorded)
        make_step(case, store, CPU)()
    (gaussians,), ((cameras, background),) = network, seen
    assert torch.equal(
        render_one_by_one(gaussians, cameras, background, "cpu"), render(gaussians, cameras, background, "cpu")
    )


def test_rows_compare_with_the_published_style():
    rows = [{"ms": 40.0}, {"ms": 10.0}, {"ms": None}]
    assert [relative_to(rows[0], row)["of published"] for row in rows] == [1, 0.25, None]
    assert relative_to({"ms": None}, {"ms": 10.0})["of published"] is None


def test_a_case_that_does_not_fit_has_no_figures(home, monkeypatch):
    def too_large(*_):
        raise torch.OutOfMemoryError

    case = Case(TINY, "cpu", "eager", "bf16")
    row = measured_row(case, home, rounds=2, device=CPU)
    assert row["ms"] > 0
    monkeypatch.setattr(step_gpu, "make_step", too_large)
    without = measured_row(case, home, rounds=2, device=CPU)
    assert without["ms"] is None
    assert without.keys() == row.keys()


def test_a_case_leaves_nothing_in_memory_to_the_next(home, monkeypatch):
    """A step and its graph refer to each other."""
    steps = []

    class Step:
        def __init__(self, *_):
            self.itself = self
            steps.append(weakref.ref(self))

        def __call__(self):
            pass

    monkeypatch.setattr(step_gpu, "make_step", Step)
    measured_row(Case(TINY, "cpu", "graph", "tf32"), home, rounds=1, device=CPU)
    assert [step() for step in steps] == [None]


def test_a_case_that_fails_says_why_and_costs_no_other(home, monkeypatch):
    def fails(*_):
        raise ExecutionError("the step cannot be captured")

    monkeypatch.setattr(step_gpu, "make_step", fails)
    row = measured_row(Case(TINY, "cpu", "graph", "tf32"), home, rounds=2, device=CPU)
    assert row["ms"] is None
    assert row["fails"] == "ExecutionError: the step cannot be captured"


def test_the_published_style_runs_in_a_process_of_its_own(monkeypatch):
    """Our steps switch on `cudnn.benchmark`, which would choose the convolutions of the published style as well."""
    here = []

    def recorded(case, store, device):
        here.append(case)
        return make_step(case, store, device)

    monkeypatch.setattr(step_gpu, "make_step", recorded)
    monkeypatch.setattr(step_gpu, "CUDA_BACKENDS", ("cpu",))
    eager = [Case(TINY, "cpu", "eager", "tf32", published=True), Case(TINY, "cpu", "eager", "tf32")]
    monkeypatch.setattr(step_gpu, "cases_of", lambda *_, **__: eager)
    rows = list(step_gpu.gpu_step_rows(1, compiled=False, sizes=(TINY,), device=CPU))
    assert [row["case"] for row in rows] == ["published style", "ours"]
    assert here == [eager[1]]


def test_without_a_backend_there_is_nothing_to_measure(monkeypatch):
    monkeypatch.setattr(step_gpu, "is_available", lambda _name: False)
    assert list(step_gpu.gpu_step_rows(1, compiled=False)) == []
