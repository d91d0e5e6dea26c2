"""The execution of a network in training: as written, compiled, or replayed from CUDA graphs.

A network has one of three executions, with different arithmetic: as written (`eager`), through `torch.compile`
(`compiled`), or replayed from a CUDA graph (`graph`).  Only training uses the latter two; evaluation, and
copies of a network, are eager.  Where the rasteriser reads nothing back, a graph contains the whole step instead
(`jobs.captured_step`).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from jobs.device import memory_format
from model.group_norm import use_plain_operators
from model.native.tracing import rebuild, signature, tensors_of
from model.rasterizers import capabilities
from model.scenes import Reconstructor
from results.records.arithmetic import Execution, Precision

#: `auto` captures CUDA graphs on a GPU, `never` runs as written, `always` compiles on any device.
CompileMode = Literal["auto", "never", "always"]

#: Architectures and batch sizes that one process may compile; torch's own limit of 8 is against shapes that vary.
_COMPILED_AT_MOST = 256


class ExecutionError(RuntimeError):
    """A network could not be compiled or captured; there is no silent fallback to another arithmetic."""


def choose_execution(device: torch.device, mode: CompileMode) -> Execution:
    """Chooses the execution for training a network on a device: with `auto`, a graph on a GPU and `eager` on a CPU.

    At the paper's size a step of compiled code takes about as long as a graph with fused norms (TF32, on an H200), and
    compiling takes minutes.
    """
    if mode == "always":
        return "compiled"
    return "graph" if mode == "auto" and device.type == "cuda" else "eager"


def captures_steps(execution: Execution, backend: str | None, device: torch.device) -> bool:
    """Whether a CUDA graph replays whole steps of a training: with a rasteriser that reads nothing back to the host.

    `backend` is resolved, and None where no Gaussians are drawn.
    """
    if device.type != "cuda" or execution == "eager" or backend is None:
        return False
    return capabilities(backend).capturable


def prepare_training(
    network: Reconstructor,
    device: torch.device,
    execution: Execution,
    precision: Precision,
    *,
    in_captured_step: bool = False,
) -> Execution:
    """Set up `network` for training on a device; returns the execution, which is `eager` without a backbone.

    `in_captured_step`: the network needs no graph of its own.
    bfloat16 is used only on a GPU and within the backbone: Gaussians, rendering, losses and weights stay in float32.
    """
    in_bf16 = precision == "bf16" and device.type == "cuda"
    module: nn.Module = network if network.main_network is None else network.main_network
    if network.main_network is None:
        execution = "eager"
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # shapes stay the same for thousands of steps
        network.to(memory_format=memory_format(device, execution))
    if execution != "eager" or in_bf16:
        ways: dict[Execution, Callable[..., Callable[..., Any]]]
        ways = {"eager": _Eager, "compiled": _Compiled, "graph": _Eager if in_captured_step else _Graphed}
        module.forward = _InTraining(module, ways[execution](module, device, in_bf16), module.forward)
    if network.geometry is not None:
        geometry: Callable[..., Any] | None = None
        if execution == "compiled" and device.type == "cuda":
            geometry = torch.compile(network.geometry, fullgraph=True, dynamic=False)
        elif execution == "graph" and not in_captured_step:
            geometry = _Graphed(network.geometry, device, in_bf16=False)
        if geometry is not None:
            network.geometry = _InTraining(network, geometry, network.geometry)
    return execution


def share_compiled_code(cache: Path) -> None:
    """Cache compiled code in `cache`, so that trials of one architecture compile once; a user's setting wins."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache / "triton"))


class _InTraining:
    """Replaces a function of a module, in training mode only."""

    def __init__(self, module: nn.Module, run: Callable[..., Any], as_written: Callable[..., Any]) -> None:
        self._module, self._run, self._as_written = module, run, as_written

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._as_written, memo)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        trains = self._module.training and torch.is_grad_enabled()
        return (self._run if trains else self._as_written)(*arguments, **keywords)


class _Eager:
    """The module as written, in bfloat16 if requested."""

    def __init__(self, module: nn.Module, device: torch.device, in_bf16: bool) -> None:
        self._forward, self._device, self._in_bf16 = module.forward, device, in_bf16

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._in_bf16):
            return _in_float32(self._forward(*arguments, **keywords))


class _Compiled:
    """The module through `torch.compile`, with group norms that can be fused; specialised to its input shapes."""

    def __init__(self, module: nn.Module, device: torch.device, in_bf16: bool) -> None:
        self._device, self._in_bf16 = device, in_bf16
        twin = twin_of(module)
        use_plain_operators(twin)
        # Inductor's heuristics leave a U-Net in channels first.
        options: dict[str, Any] | None = {"force_layout_optimization": True} if device.type == "cuda" else None
        torch._dynamo.config.recompile_limit = _COMPILED_AT_MOST  # a worker compiles the networks of many trials
        # fullgraph: an error instead of falling back to eager code.
        self._run = torch.compile(twin, fullgraph=True, dynamic=False, options=options)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        try:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._in_bf16):
                return _in_float32(self._run(*arguments, **keywords))
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ExecutionError(f"torch.compile failed; run.compile: never does without it: {error}") from error


class _Graphed:
    """Forward and backward pass of a module or function as CUDA graphs, captured at the first call of each signature.

    Dropout stays a function of the seed set before a call: replays read the generator's state from the device.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device, in_bf16: bool) -> None:
        self._twin = twin_of(function) if isinstance(function, nn.Module) else function
        self._device, self._in_bf16 = device, in_bf16
        self._graphs: dict[Hashable, Callable[..., Any]] = {}

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        given = (arguments, keywords)
        tensors, key = tensors_of(given), signature(given)
        if key not in self._graphs:
            self._graphs[key] = self._capture(given, tensors)
        return self._graphs[key](*tensors)

    def _capture(self, given: Any, tensors: list[Tensor]) -> Callable[..., Any]:
        # Without a history, whose gradients would wait for another stream than that of the capture.
        samples = tuple(torch.empty_like(t).copy_(t.detach()).requires_grad_(t.requires_grad) for t in tensors)
        function = _OfTensors(self._twin, rebuild(given, iter(samples)), self._device, self._in_bf16)
        # Warm-up and capture draw random numbers and update batch statistics, which must not affect the following step.
        state, buffers = torch.cuda.get_rng_state(self._device), [(b, b.clone()) for b in function.buffers()]
        try:
            replay: Callable[..., Any] = torch.cuda.make_graphed_callables(function, samples, allow_unused_input=True)
        except RuntimeError as error:
            raise ExecutionError(f"the network cannot be captured; run.compile: never does without: {error}") from error
        torch.cuda.set_rng_state(state, self._device)
        for buffer, before in buffers:
            buffer.copy_(before)

        def run(*now: Tensor) -> Any:
            results = replay(*now)
            return rebuild(function.result, iter(results))

        return run


class _OfTensors(nn.Module):
    """A module or function as a function of the tensors in its arguments; all else in them is fixed.

    It returns the tensors of the result, whose structure is that of `result`.
    """

    def __init__(self, function: Callable[..., Any], given: Any, device: torch.device, in_bf16: bool) -> None:
        super().__init__()
        self.function, self._given, self._device, self._in_bf16 = function, given, device, in_bf16
        self.result: Any = None

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        arguments, keywords = rebuild(self._given, iter(tensors))
        # No cache: a graph would keep using the weights that were cast during its capture.
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._in_bf16, cache_enabled=False):
            result = _in_float32(self.function(*arguments, **keywords))
        found = tensors_of(result)
        self.result = rebuild(result, (tensor.detach() for tensor in found))
        return tuple(found)


def twin_of(module: nn.Module) -> nn.Module:
    """A copy of the module's structure that shares parameters and buffers, with the original `forward` of each part."""
    shared: dict[int, Any] = {id(t): t for t in (*module.parameters(), *module.buffers())}
    twin = copy.deepcopy(module, shared)
    for part in twin.modules():
        part.__dict__.pop("forward", None)
    return twin


def _in_float32(result: Any) -> Any:
    return result.float() if isinstance(result, Tensor) and result.dtype == torch.bfloat16 else result
