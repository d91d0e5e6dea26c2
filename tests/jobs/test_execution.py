"""The executions of a network in training, as far as a CPU can test them."""

from __future__ import annotations

import copy
import functools
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from jobs import execution as executions
from jobs.batch import draw_batch
from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.data.prepare import prepare as prepare_dataset
from jobs.data.store import Store
from jobs.device import prepare
from jobs.execution import (
    ExecutionError,
    captures_steps,
    choose_execution,
    prepare_training,
    share_compiled_code,
    twin_of,
)
from jobs.flat import backward, flatten_parameters
from jobs.precision import products
from jobs.reconstructor import build_reconstructor
from model.losses import LOSSES
from model.native.tracing import tensors_of
from model.registry import resolve
from model.types import Context, Views
from model.weights import WeightStore
from tests.cuda_graphs import CudaGraphs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL = {"base_dim": 8, "num_blocks": 1, "channel_mult": [1], "attention_resolutions": [16]}


def configuration(**sections: Any) -> TrialConfig:
    options = {"train": 2, "val": 1, "test": 1, "views": 4, "image_size": 16}
    data = {"name": "chairs", "resolution": 16, "options": options}
    model = {**SMALL, **sections.pop("model", {})}
    train = {"batch_size": 2, "views_per_object": 2, **sections.pop("train", {})}
    return TrialConfig.model_validate({"data": data, "model": model, "train": train, **sections})


def stages(iterations: int) -> dict[str, Any]:
    return {"stages": [{"iterations": iterations, "lr": 1e-3, "losses": {"l2": 1.0}}]}


@pytest.mark.parametrize(
    ("mode", "device", "expected"),
    [
        ("auto", CPU, "eager"),
        ("auto", CUDA, "graph"),
        ("never", CUDA, "eager"),
        ("always", CPU, "compiled"),
        ("always", CUDA, "compiled"),
    ],
)
def test_execution_is_chosen_by_device(mode, device, expected):
    assert choose_execution(device, mode) == expected


@pytest.mark.parametrize(
    ("execution", "backend", "device", "expected"),
    [
        ("graph", "capturable", CUDA, True),
        ("compiled", "capturable", CUDA, True),
        ("graph", "reads back", CUDA, False),
        ("graph", None, CUDA, False),
        ("eager", "capturable", CUDA, False),
        ("compiled", "capturable", CPU, False),
    ],
)
def test_steps_are_captured_where_nothing_is_read_back(execution, backend, device, expected, monkeypatch):
    monkeypatch.setattr(executions, "capabilities", lambda name: SimpleNamespace(capturable=name == "capturable"))
    assert captures_steps(execution, backend, device) == expected


def reconstructor(**model: Any) -> Any:
    return build_reconstructor(configuration(model=model), {}, WeightStore("nowhere"))


def opened(config: TrialConfig, path: Path) -> Store:
    prepare_dataset(config.data.name, config.data.options, path)
    return open_dataset(config.data.name, config.data.options, path)


def placed(network: Any, source: Views, seed: int = 3) -> list[Tensor]:
    """Gaussians of a network, and the gradients of its weights."""
    torch.manual_seed(seed)
    gaussians = network(source, Context()).gaussians
    parts = [gaussians.means, gaussians.scales, gaussians.rotations, gaussians.opacities, gaussians.sh]
    loss = sum((part.square().sum() for part in parts), torch.zeros(()))
    return [*parts, *torch.autograd.grad(loss, list(network.parameters()))]


def outcome(network: nn.Module, images: Tensor, seed: int = 3) -> list[Tensor]:
    torch.manual_seed(seed)
    maps = network(images, Context())
    return [maps, *torch.autograd.grad(maps.square().sum(), list(network.parameters()))]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    for a, e in zip(actual, expected, strict=True):
        assert (a - e).norm() <= tolerance * e.norm() + 1e-7


def test_a_twin_shares_parameters_and_has_no_stand_ins():
    unet = prepare(reconstructor(base_dim=16), CPU).main_network
    twin = twin_of(unet)
    assert all(a is b for a, b in zip(unet.parameters(), twin.parameters(), strict=True))
    assert "forward" not in twin.__dict__
    assert twin is not unet


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, ...]]:
    """Replaces CUDA graphs: a capture draws random numbers, like a warm-up, and returns the module."""
    seen: list[tuple[Tensor, ...]] = []

    def make(module: nn.Module, samples: tuple[Tensor, ...], allow_unused_input: bool) -> nn.Module:
        assert allow_unused_input
        assert isinstance(module, nn.Module)  # parameters of a plain function would get no gradient
        # A history would lead gradients from the stream of the capture to another one.
        assert all(tensor.is_leaf for tensor in (*samples, *tensors_of(vars(module)["_given"])))
        torch.rand(5)
        seen.append(samples)
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda _device: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, _device: torch.set_rng_state(state))
    return seen


def test_a_graph_is_captured_once_a_signature_and_draws_nothing(captures):
    network = reconstructor()
    unet, images = network.main_network.train(), torch.rand(2, 3, 16, 16)
    expected = outcome(unet, images)
    assert prepare_training(network, CPU, "graph", "float32") == "graph"
    for _ in range(2):
        assert_close(outcome(unet, images), expected)
    assert len(captures) == 1
    assert captures[0][0].data_ptr() != images.data_ptr()
    outcome(unet, images[:1])
    assert len(captures) == 2


def test_the_placing_of_gaussians_is_captured_too(captures, tmp_path):
    """Unless a graph contains the whole step."""
    config = configuration()
    store = opened(config, tmp_path)
    network, source = reconstructor().train(), draw_batch(store, store.split("train"), config, 0).source
    expected = placed(network, source)
    for in_captured_step, graphs in ((True, 0), (False, 2)):
        captured = reconstructor().train()
        prepare_training(captured, CPU, "graph", "float32", in_captured_step=in_captured_step)
        for _ in range(2):
            assert_close(placed(captured, source), expected)
        assert len(captures) == graphs
    captured.eval()(source, Context())
    assert len(captures) == 2


def test_replayed_gaussians_and_gradients_equal_those_as_written(monkeypatch, tmp_path):
    """Torch's own captured functions run, with stand-ins for the graphs alone; data and weights change."""
    graphs = CudaGraphs(monkeypatch)
    config = configuration()
    store = opened(config, tmp_path)
    network, captured = reconstructor().train(), reconstructor().train()
    prepare_training(captured, CPU, "graph", "float32")
    for iteration in range(3):
        source = draw_batch(store, store.split("train"), config, iteration).source
        expected = placed(network, source, seed=iteration)
        assert_close(placed(captured, source, seed=iteration), expected)
        with torch.no_grad():
            for parameter in (*network.parameters(), *captured.parameters()):
                parameter.mul_(1.1)
    forward_and_backward = 2
    assert [graph.replays for graph in graphs.graphs] == [3] * 2 * forward_and_backward, "network and placing"


def test_a_capture_leaves_batch_statistics_as_they_are(monkeypatch):
    """They would be of the first batch alone, also where a training continues."""
    CudaGraphs(monkeypatch)
    norm, images = nn.BatchNorm1d(2), torch.randn(5, 2) + 3
    expected = copy.deepcopy(norm)
    captured = executions._Graphed(norm, CPU, in_bf16=False)
    for _ in range(2):
        torch.testing.assert_close(captured(images), expected(images))
        torch.testing.assert_close(norm.running_mean, expected.running_mean)
        assert norm.num_batches_tracked == expected.num_batches_tracked


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("execution", ["eager", "graph"])
def test_on_a_gpu_gaussians_and_gradients_are_those_of_a_cpu(execution, tmp_path, monkeypatch):
    """Without dropout, whose random numbers differ; the second call of a graph is a replay."""
    monkeypatch.setattr("model.methods.splatter_image.backbones.unet.DROPOUT", 0.0)
    config = configuration()
    store = opened(config, tmp_path)
    source = draw_batch(store, store.split("train"), config, 0).source
    expected = placed(reconstructor().train(), source)
    network = prepare(reconstructor(), CUDA).train()
    prepare_training(network, CUDA, execution, "float32")
    for _ in range(2):
        with products("float32"):
            found = placed(network, source.to("cuda"))
        assert_close([tensor.cpu() for tensor in found], expected, tolerance=1e-4)


def test_only_training_is_captured(captures):
    network = reconstructor()
    prepare_training(network, CPU, "graph", "float32")
    unet, images = network.main_network, torch.rand(2, 3, 16, 16)
    unet.eval()(images, Context())
    with torch.no_grad():
        unet.train()(images, Context())
    outcome(copy.deepcopy(unet).train(), images)
    assert not captures


def test_weights_that_change_are_seen(captures):
    network = reconstructor()
    prepare_training(network, CPU, "graph", "float32")
    unet, images = network.main_network.eval().train(), torch.rand(2, 3, 16, 16)
    weights = flatten_parameters(network)
    first = outcome(unet, images)[0]
    with torch.no_grad():
        weights.mul_(1.5)
    assert not torch.allclose(outcome(unet, images)[0], first)
    assert len(captures) == 1


@pytest.mark.usefixtures("captures")
def test_a_failed_capture_is_an_error(monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fail)
    network = reconstructor()
    prepare_training(network, CPU, "graph", "float32")
    with pytest.raises(ExecutionError, match=r"cannot be captured; run.compile: never .*stream is capturing"):
        outcome(network.main_network.train(), torch.rand(2, 3, 16, 16))


def test_a_compiled_network_agrees_for_twenty_steps(monkeypatch):
    """Traced into one graph for each direction, which run without Inductor's code; without dropout, whose random
    numbers differ.
    """
    monkeypatch.setattr("model.methods.splatter_image.backbones.unet.DROPOUT", 0.0)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch.manual_seed(0)
    images, losses = torch.rand(2, 3, 16, 16), {}
    for execution in ("eager", "compiled"):
        network = reconstructor()
        unet = network.main_network.train()
        prepare_training(network, CPU, execution, "float32")
        optimizer = torch.optim.Adam([flatten_parameters(network)], lr=1e-3)
        losses[execution] = []
        for _ in range(20):
            loss = (unet(images, Context()) - 1).square().mean()
            optimizer.zero_grad(set_to_none=False)
            loss.backward()
            optimizer.step()
            losses[execution].append(loss.item())
    assert losses["compiled"] == pytest.approx(losses["eager"], rel=1e-4)
    assert losses["eager"][-1] < losses["eager"][0]


def test_inductor_compiles_a_group_norm_in_plain_operators():
    """Its code for this processor; a whole network takes it a minute."""
    torch.manual_seed(0)
    norm, images = nn.GroupNorm(2, 4), torch.randn(2, 4, 8, 8)
    found = []
    for run in (executions._Eager(norm, CPU, False), executions._Compiled(norm, CPU, False)):
        output = run(images)
        found.append((output, *torch.autograd.grad(output.square().sum(), list(norm.parameters()))))
    for ours, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_the_placing_of_gaussians_is_compiled_for_training_on_a_gpu(monkeypatch):
    """Evaluation and copies run it as written."""
    seen: list[str] = []

    def compiled(function: Any, **options: Any) -> Any:
        assert options["fullgraph"]
        return lambda *arguments: seen.append(function.__name__) or function(*arguments)

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(executions, "_Compiled", executions._Eager)
    network = reconstructor()
    written = network.geometry
    prepare_training(network, CUDA, "compiled", "float32")
    maps, frustums = {"depth": torch.zeros(1, 1, 1, 8, 8)}, SimpleNamespace()
    for trains in (True, False):
        network.train(trains)
        with pytest.raises(AttributeError, match="far"):  # `place` itself was reached
            network.geometry(maps, frustums)
    assert seen == ["place"]
    assert copy.deepcopy(network).geometry is written
    network = reconstructor()
    prepare_training(network, CPU, "compiled", "float32")
    assert network.geometry is written


def test_a_worker_compiles_the_networks_of_many_trials(monkeypatch):
    """Torch refuses to compile one function for more than `recompile_limit` shapes, however many networks have it."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **_: compiled(module, backend="eager", dynamic=False))
    with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        for size in (2, 3, 4):
            assert executions._Compiled(nn.Linear(size, 1), CPU, in_bf16=False)(torch.ones(size)).shape == (1,)


def test_a_failed_compilation_is_an_error(monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError("no compiler found"), None)

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    network = reconstructor()
    prepare_training(network, CPU, "compiled", "float32")
    with pytest.raises(ExecutionError, match=r"(?s)torch.compile failed; run.compile: never .*no compiler found"):
        outcome(network.main_network.train(), torch.rand(2, 3, 16, 16))


def test_a_network_as_written_trains_in_bfloat16_on_a_gpu(monkeypatch):
    monkeypatch.setattr(executions, "_Eager", lambda _, device, in_bf16: lambda *__: (device, in_bf16))
    network = reconstructor()
    assert prepare_training(network, CUDA, "eager", "bf16") == "eager"
    assert network.main_network.train()(None) == (CUDA, True)


def test_bfloat16_is_the_gpus_alone():
    network = reconstructor()
    expected = outcome(network.main_network.train(), torch.rand(2, 3, 16, 16))[0]
    assert prepare_training(network, CPU, "eager", "bf16") == "eager"
    assert expected.dtype == torch.float32
    assert "forward" not in network.main_network.__dict__


def test_a_network_in_bfloat16_returns_float32():
    network = reconstructor()
    images = torch.rand(2, 3, 16, 16)
    expected = outcome(network.main_network.train(), images)[0]
    maps = executions._Eager(network.main_network, CPU, in_bf16=True)(images, Context())
    assert maps.dtype == torch.float32
    assert not torch.equal(maps, expected)
    assert (maps - expected).norm() < 0.1 * expected.norm() + 1e-3


def test_a_method_without_a_backbone_runs_as_written():
    network = nn.Identity()
    network.main_network = network.geometry = None
    assert prepare_training(network, CPU, "graph", "float32") == "eager"
    assert "forward" not in network.__dict__


def test_a_graph_casts_the_weights_anew_in_each_replay():
    """Weights that were cast once would stay those of the capture."""
    seen, images = [], torch.rand(2, 3)

    def network(images: Tensor) -> Tensor:
        seen.append((torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()))
        return images

    executions._OfTensors(network, ((images,), {}), CPU, in_bf16=True)(images)
    assert seen == [(True, False)]


def test_the_result_of_a_capture_keeps_no_history():
    images = torch.rand(2, 3, requires_grad=True)
    function = executions._OfTensors(lambda images: {"maps": 2 * images}, ((images,), {}), CPU, in_bf16=False)
    (maps,) = function(images)
    assert maps.requires_grad
    assert not function.result["maps"].requires_grad


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_a_training_on_a_gpu_has_the_layout_of_its_execution_and_the_fastest_convolutions(device, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    asked = []
    monkeypatch.setattr(executions, "memory_format", lambda *found: asked.append(found) or torch.channels_last)
    network = reconstructor()
    prepare_training(network, device, "graph", "float32")
    kernels = [part.weight for part in network.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
    assert kernels
    is_on_gpu = device == CUDA
    assert {kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels} == {is_on_gpu}
    assert torch.backends.cudnn.benchmark == is_on_gpu
    assert asked == ([(CUDA, "graph")] if is_on_gpu else [])


@pytest.mark.parametrize(("device", "options"), [(CPU, None), (CUDA, {"force_layout_optimization": True})])
def test_a_network_is_compiled_as_a_whole_for_its_shapes(device, options, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda _, **found: asked.append(found))
    executions._Compiled(nn.Linear(2, 1), device, in_bf16=False)
    assert asked == [{"fullgraph": True, "dynamic": False, "options": options}]


@pytest.mark.parametrize("own", ["TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"])
def test_compiled_code_lies_in_the_cache_unless_its_place_is_set(own, monkeypatch, tmp_path):
    folders = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"), "TRITON_CACHE_DIR": str(tmp_path / "triton")}
    for name in folders:
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setenv(own, "elsewhere")
    share_compiled_code(tmp_path)
    assert {name: os.environ[name] for name in folders} == folders | {own: "elsewhere"}


class HostReads(TorchFunctionMode):
    """Records calls that make the host wait for a GPU: reading numbers, and creating tensors from numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        reads = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy", "nonzero", "equal"}
        made = {"tensor", "new_tensor", "as_tensor", "asarray"}
        if name in reads or name in made:
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", [{}, {"input_views": 2, "camera_embedding": True}], ids=["one view", "two views"])
def test_a_step_has_no_host_reads(tmp_path, model):
    """This covers network, placing of Gaussians, losses, guard and averages, but not the rasteriser."""
    from jobs.nonfinite import NonFiniteGuard
    from jobs.training import Averages
    from model.types import Rendering

    config = configuration(model=model)
    store = opened(config, tmp_path)
    weights = WeightStore(tmp_path)
    network = build_reconstructor(config, {}, weights).train()
    parameter = flatten_parameters(network)
    guard, averages = NonFiniteGuard("stop", CPU), Averages()
    losses = {name: resolve(LOSSES, name, "loss") for name in LOSSES}
    losses = {name: loss(weights) for name, loss in losses.items() if not loss.weights}
    assert {"l2", "edge", "ssim", "tv"} <= set(losses)
    mode = HostReads()
    for iteration in range(2):
        batch = draw_batch(store, store.split("train"), config, iteration)
        mode.seen.clear()  # constants are made in the first step, once
        with mode:
            scene = network(batch.source, Context())
            images = batch.seen.images + 0 * scene.gaussians.means.mean()
            terms = {name: loss(Rendering(images), batch.target, scene) for name, loss in losses.items()}
            total = torch.stack([0.1 * term for term in terms.values()]).sum()
            backward(total, network, parameter)
            averages.add({"loss": total, **terms}, guard.watch(iteration, terms, parameter), 0.1)
    assert mode.seen == []
