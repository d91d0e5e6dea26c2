"""A training whose steps are replayed from CUDA graphs equals one whose steps run as written."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.adam import FlatAdam
from jobs.captured_step import CapturedStep
from jobs.checkpoint import CheckpointFolder
from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.data.prepare import prepare as prepare_dataset
from jobs.execution import ExecutionError, captures_steps, prepare_training
from jobs.features import ContextReader
from jobs.memory import is_out_of_memory
from jobs.nonfinite import NonFiniteError, NonFiniteGuard
from jobs.reconstructor import build_reconstructor
from jobs.training import Pace, train
from model.losses import LOSSES
from model.methods.splatter_image.predictor import GaussianPredictor
from model.rasterizers.backend import Check, deferred, where_room_sufficed
from model.registry import resolve
from model.scenes import GaussianScene, PictureScene
from model.types import Cameras, Gaussians
from model.weights import WeightStore
from tests.cuda_graphs import CudaGraphs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIZE = 16


def draw(gaussians: Gaussians, cameras: Cameras, background: Tensor, *_: Any) -> Tensor:
    """Takes the place of a rasteriser: adds up the colours of all Gaussians with weights that fall with distance."""
    points = cameras.world_to_camera[:, :, None, :3, :3] @ gaussians.means[:, None, :, :, None]
    points = points.squeeze(-1) + cameras.world_to_camera[:, :, None, :3, 3]  # (B, V, N, 3)
    pixels = points[..., :2] / points[..., 2:] * cameras.focal[:, :, None] + cameras.principal[:, :, None]
    along = torch.arange(SIZE) + 0.5
    distances = (pixels[..., None] - along).square()  # (B, V, N, 2, SIZE)
    weights = (
        gaussians.opacities[:, None] * (-distances.sum(-2) / (2 + gaussians.scales.sum(2)[:, None, :, None])).exp()
    )
    rows = weights / (1 + weights.sum(2, keepdim=True))
    images = torch.einsum("bvny,bnc->bvcy", rows, gaussians.sh.sum(2))[..., None, :].expand(-1, -1, -1, SIZE, -1)
    return images + background[:, None, :, None, None]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CudaGraphs:
    monkeypatch.setattr("model.scenes.render", draw)
    return CudaGraphs(monkeypatch)


def configuration(stages: list[dict[str, Any]], **train: Any) -> TrialConfig:
    """A network with dropout."""
    return TrialConfig.model_validate(
        {
            "data": {
                "name": "chairs",
                "resolution": SIZE,
                "options": {"train": 3, "val": 1, "test": 1, "views": 4, "image_size": SIZE},
            },
            "model": {"base_dim": 8, "num_blocks": 1, "channel_mult": [1], "attention_resolutions": [SIZE]},
            "train": {"batch_size": 2, "views_per_object": 3, "stages": stages, **train},
        }
    )


class Metrics:
    """Keeps what a training records."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []

    def start(self, step: int) -> None:
        del step

    def metrics(self, step: int, values: Any) -> None:
        self.seen.append((step, dict(values)))


def trained(config: TrialConfig, folder: Path, *, captured: bool, log_every: int = 5) -> tuple[Tensor, Metrics]:
    """All weights after a training, and its metrics."""
    prepare_dataset(config.data.name, config.data.options, folder)
    store, weights = open_dataset(config.data.name, config.data.options, folder), WeightStore(folder)
    torch.manual_seed(1)
    network = build_reconstructor(config, {}, weights)
    prepare_training(network, CPU, "graph" if captured else "eager", "float32", in_captured_step=captured)
    names = {name for stage in config.train.stages for name in stage.losses}
    journal = Metrics()
    judged, *_ = train(
        network,
        ContextReader(config, store, weights, folder),
        {name: resolve(LOSSES, name, "loss")(weights) for name in names},
        store,
        config,
        journal=journal,
        checkpoints=CheckpointFolder(folder / f"checkpoints-{captured}"),
        validate=lambda _: pytest.fail("there is nothing to validate"),
        device=CPU,
        pace=Pace(log_every, 1000, lambda: False),
        captures_steps=captured,
    )
    return torch.cat([parameter.detach().flatten() for parameter in judged.parameters()]), journal


def test_replayed_steps_equal_steps_as_written(graphs, tmp_path):
    """With a late loss that grows, views drawn anew, a moving average, and two stages of different losses and rates."""
    late = {"weight": 0.4, "start": 5, "ramp": 3, "views": 1}
    stages = [
        {"iterations": 10, "lr": 1e-3, "losses": {"l2": {"weight": 0.8, "ramp": 4}, "tv": late}},
        {"iterations": 5, "lr": 1e-4, "losses": {"l1": 1.0, "edge": {"weight": 0.1, "views": 1}}},
    ]
    config = configuration(stages, ema={"every": 2, "start": 1})
    expected, expected_metrics = trained(config, tmp_path, captured=False)
    weights, metrics = trained(config, tmp_path, captured=True)
    assert torch.equal(weights, expected)
    assert metrics.seen == expected_metrics.seen
    # One graph for each set of losses; 3 steps of each ran as written.
    assert [graph.replays for graph in graphs.graphs] == [5 - 3, 5 - 3, 5 - 3]
    assert all(graph.calls for graph in graphs.graphs)


class Toy:
    """A step on two numbers: the squared error to the inputs, which may be truncated to `room` of them."""

    def __init__(self, policy: Any = "stop", captured: bool = True) -> None:
        self.weights = nn.Parameter(torch.ones(2))
        self.weights.grad = torch.zeros(2)
        self.optimizer = FlatAdam(self.weights, lr=0.1, eps=1e-8)
        self.guard = NonFiniteGuard(policy, CPU)
        self.room, self.calls = 1, 0
        self.step: Any = CapturedStep(self.as_written, CPU) if captured else self.as_written

    def as_written(self, inputs: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        loss = (self.weights * F.dropout(inputs["x"], 0.5) - self.draw(inputs["count"])).square().sum()
        self.weights.grad.zero_()
        loss.backward()
        counts = self.guard.watch(inputs["iteration"], {"l2": loss}, self.weights)
        self.optimizer.step(where_room_sufficed(counts))
        return loss

    def draw(self, count: Tensor) -> Tensor:
        """`count`, with the checks of a rasteriser that has room for `self.room` of them."""
        return count.clamp(max=10)

    def run(self, values: list[float], counts: list[float] | None = None) -> list[float]:
        """The losses of one step for each value."""
        losses = []
        for iteration, value in enumerate(values):
            torch.manual_seed(iteration)
            inputs = {
                "x": torch.tensor([value, 1.0]),
                "count": torch.tensor(counts[iteration] if counts else 1.0),
                "iteration": torch.tensor(iteration),
            }
            losses.append(float(self.step(inputs).detach()))
        return losses


class Cramped(Toy):
    """Draws what fits, and a check tells whether that was all."""

    def draw(self, count: Tensor) -> Tensor:
        def make_room() -> None:
            self.room = int(count)

        while True:
            check = Check(count > self.room, make_room)
            later = deferred()
            if later is not None:
                later.append(check)
            elif check.lacked_room:
                make_room()
                continue
            return count.clamp(max=self.room)


def test_capturing_runs_nothing_and_a_replay_no_python(graphs):
    toy, expected = Toy(), Toy(captured=False)
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert toy.run(values) == expected.run(values)
    assert torch.equal(toy.weights, expected.weights)
    assert toy.calls == CapturedStep.WARM_UP + 1
    assert [graph.replays for graph in graphs.graphs] == [3]


@pytest.mark.parametrize("policy", ["stop", "skip", "ignore"])
@pytest.mark.usefixtures("graphs")
def test_a_value_that_is_not_finite_is_found_in_a_replay(policy):
    values = [1.0, 2.0, 3.0, 4.0, math.nan, 5.0, 6.0]
    toy, expected = Toy(policy), Toy(policy, captured=False)
    assert toy.run(values) == pytest.approx(expected.run(values), nan_ok=True)
    torch.testing.assert_close(toy.weights, expected.weights, rtol=0, atol=0, equal_nan=True)
    assert toy.weights.isfinite().all() == (policy != "ignore")
    if policy == "stop":
        with pytest.raises(NonFiniteError, match="iteration 4: loss 'l2' is nan; pictures"):
            toy.guard.raise_if_bad(PictureScene(None))


def test_a_step_that_lacked_room_is_repeated_with_more(graphs):
    """Once in a rehearsal and once in a replay; the outcome is that of a step with enough room."""
    values, counts = [1.0] * 9, [1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 4.0, 4.0, 3.0]
    toy, expected = Cramped(), Toy(captured=False)
    assert toy.run(values, counts) == expected.run(values, counts)
    assert torch.equal(toy.weights, expected.weights)
    assert toy.optimizer.state["step"] == len(values)
    assert toy.room == 4
    assert [graph.replays for graph in graphs.graphs] == [2]


def test_a_step_that_reads_to_the_host_runs_as_written_with_one_warning(graphs, monkeypatch, caplog):
    toy, expected = Toy(), Toy(captured=False)
    monkeypatch.setattr(toy, "draw", lambda count: count.clamp(max=float(count + 9)))
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    with caplog.at_level(logging.WARNING, "jobs.captured_step"):
        assert toy.run(values) == expected.run(values)
    (record,) = caplog.records
    assert "steps are not captured as one CUDA graph, and run as written" in record.message
    assert "_local_scalar_dense" in record.message
    assert torch.equal(toy.weights, expected.weights)
    assert not graphs.graphs


@pytest.mark.usefixtures("graphs")
def test_room_that_lacked_before_a_step_read_to_the_host_repeats_no_step():
    values, counts = [1.0] * 5, [1.0, 1.0, 2.0, 2.0, 4.0]
    toy, expected = Reading(), Toy(captured=False)
    assert toy.run(values, counts) == expected.run(values, counts)
    assert torch.equal(toy.weights, expected.weights)
    assert toy.optimizer.state["step"] == len(values)


class Reading(Cramped):
    """Reads to the host once it has drawn."""

    def draw(self, count: Tensor) -> Tensor:
        drawn = super().draw(count)
        assert float(count) > 0
        return drawn


@pytest.mark.parametrize("call", [1, CapturedStep.WARM_UP])
@pytest.mark.usefixtures("graphs")
def test_an_error_of_a_step_is_raised_as_it_is(call, monkeypatch):
    toy = Toy()

    def draw(count: Tensor) -> Tensor:
        if toy.calls == call:
            raise RuntimeError("shapes do not match")
        return count

    monkeypatch.setattr(toy, "draw", draw)
    with pytest.raises(RuntimeError, match=r"^shapes do not match$"):
        toy.run([1.0, 2.0, 3.0, 4.0])
    assert toy.calls == call


@pytest.mark.usefixtures("graphs")
def test_steps_before_a_capture_run_on_its_stream_between_others_work(monkeypatch):
    order: list[str] = []
    side = SimpleNamespace(wait_stream=lambda _: order.append("the step waits for earlier work"))
    main = SimpleNamespace(wait_stream=lambda _: order.append("later work waits for the step"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: main)
    toy = Toy()
    monkeypatch.setattr(toy, "draw", lambda count: order.append("step") or count)
    toy.run([1.0])
    assert order == ["the step waits for earlier work", "step", "later work waits for the step"]


@pytest.mark.usefixtures("graphs")
def test_a_failed_capture_is_an_error(monkeypatch):
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", fail)
    with pytest.raises(ExecutionError, match=r"cannot be captured; run.compile: never .*stream is capturing"):
        Toy().run([1.0, 2.0, 3.0, 4.0])


@pytest.mark.usefixtures("graphs")
def test_out_of_memory_in_a_capture_is_recognised(monkeypatch):
    def fail(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(torch.cuda, "graph", fail)
    with pytest.raises(ExecutionError) as caught:
        Toy().run([1.0, 2.0, 3.0, 4.0])
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(ExecutionError("something else"))


@pytest.mark.parametrize(
    ("execution", "backend", "device", "expected"),
    [
        ("graph", "triton", CUDA, True),
        ("compiled", "triton", CUDA, True),
        ("eager", "triton", CUDA, False),
        ("graph", "reference", CUDA, False),
        ("graph", None, CUDA, False),
        ("graph", "triton", CPU, False),
    ],
)
def test_whole_steps_are_captured_where_the_rasteriser_reads_nothing_back(execution, backend, device, expected):
    if backend == "triton":
        pytest.importorskip("triton", reason="torch brings Triton on Linux alone")
    assert captures_steps(execution, backend, device) is expected


def test_gaussians_that_a_cpu_does_not_draw_are_a_bad_step(tmp_path, monkeypatch):
    predict, steps = GaussianPredictor.forward, iter(range(10))

    def forward(*arguments: Any) -> GaussianScene:
        scene = predict(*arguments)
        scales = scene.gaussians.scales.clone()
        scales[0, 0, 0] = math.inf if next(steps) == 1 else 0.1
        return replace(scene, gaussians=replace(scene.gaussians, scales=scales))

    monkeypatch.setattr(GaussianPredictor, "forward", forward)
    stages = [{"iterations": 3, "lr": 1e-3, "losses": {"l2": 1.0}}]
    weights, metrics = trained(configuration(stages, nonfinite="skip"), tmp_path, captured=False)
    assert weights.isfinite().all()
    assert metrics.seen[-1][1]["train/skipped"] == pytest.approx(1 / 3)
    assert math.isfinite(metrics.seen[-1][1]["train/l2"])
    steps = iter(range(10))
    (tmp_path / "checkpoints-False").rename(tmp_path / "skipped")
    with pytest.raises(NonFiniteError, match=r"iteration 1: scales: 1 of .* values are NaN or infinite; .*\.\.inf"):
        trained(configuration(stages, nonfinite="stop"), tmp_path, captured=False)
    steps = iter(range(10))
    trained(configuration(stages, nonfinite="ignore"), tmp_path, captured=False)
