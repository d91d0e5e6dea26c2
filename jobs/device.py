"""Device-specific code of training: layout, execution, precision.

A network has one of three executions, with different arithmetic: as written (`eager`), through `torch.compile`
(`compiled`), or replayed from a CUDA graph (`graph`).  Only training uses the latter two; evaluation, and
copies of a network, are eager.  Where the rasteriser reads nothing back, a graph contains the whole step instead.
"""

from __future__ import annotations

import copy
import gc
import logging
import os
import platform
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from model.group_norm import fuse, is_fusible, use_plain_operators
from model.losses.base import Loss
from model.native.accelerate import accelerate
from model.native.tracing import rebuild, signature, tensors_of
from model.rasterizers import capabilities
from model.rasterizers.backend import Check, deferred_checks
from model.scenes import Reconstructor
from results.records.arithmetic import Execution, Precision

log = logging.getLogger(__name__)

#: `auto` captures CUDA graphs on a GPU, `never` runs as written, `always` compiles on any device.
CompileMode = Literal["auto", "never", "always"]

#: The first torch version whose own group norm supports channels last on a GPU; earlier ones transpose every input.
_CHANNELS_LAST_ON_CUDA = (2, 15)

#: Architectures and batch sizes that one process may compile; torch's own limit of 8 is against shapes that vary.
_COMPILED_AT_MOST = 256


class ExecutionError(RuntimeError):
    """A network could not be compiled or captured; there is no silent fallback to another arithmetic."""


def choose_device(wanted: str = "auto") -> torch.device:
    """The torch device of a name; "auto" is the GPU where there is one."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def processor() -> str:
    """The processor's name as reported by the operating system."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def wait_for(device: torch.device) -> None:
    """Waits until a GPU has done all that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class GpuLostError(RuntimeError):
    """A GPU no longer answers this process, after an error such as an access out of bounds; it may answer others."""


def require_gpu() -> None:
    """Raises `GpuLostError` where this process has used a GPU and can no longer; waits for the GPU."""
    if torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            raise GpuLostError(
                f"the GPU no longer answers this process, after a trial failed on it ({error}); "
                "run the same command again, for the other trials"
            ) from error


def prepare(network: Reconstructor, device: torch.device) -> Reconstructor:
    """Move `network` to a device, with the layout and the layers that are fastest there; returns it."""
    network.to(device).to(memory_format=memory_format(device, "eager"))
    if device.type == "cuda":
        fuse(network)
    elif network.main_network is not None and device.type == "cpu":
        accelerate(network.main_network)
    return network


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


def prepare_loss(loss: Loss, device: torch.device, precision: Precision) -> Loss:
    """Move a loss to a device, where its convolutions, if any, have the layout that is fastest; returns it."""
    loss.precision = precision
    if device.type == "cuda":
        # No group norm follows, so channels last are not converted back.
        loss.to(memory_format=torch.channels_last)
    return loss.to(device)


def memory_format(device: torch.device, execution: Execution) -> torch.memory_format:
    """The layout of feature maps and convolution weights that is fastest."""
    transposes = device.type == "cuda" and not is_fusible() and torch_version() < _CHANNELS_LAST_ON_CUDA
    channels_first = transposes and execution != "compiled"
    return torch.contiguous_format if channels_first else torch.channels_last


def torch_version() -> tuple[int, int]:
    """Major and minor version of torch."""
    major, minor, *_ = torch.__version__.split(".")
    return int(major), int(minor)


def share_compiled_code(cache: Path) -> None:
    """Cache compiled code in `cache`, so that trials of one architecture compile once; a user's setting wins."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache / "triton"))


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed what dropout draws from: a hundredth of the time of `torch.manual_seed`, which asks every kind of device."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


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


Inputs = TypeVar("Inputs")
Outcome = TypeVar("Outcome")


class CapturedStep(Generic[Inputs, Outcome]):
    """A training step as one CUDA graph, captured anew for each signature of its inputs.

    The first steps of a signature run as written, so that libraries choose their algorithms; the last of these runs
    without waiting for the device.  Where that fails, steps stay as written, and a warning says so once.  Capturing
    runs nothing, and replays read all inputs from the tensors that were captured.  Dropout stays a function of the seed
    that is set before a call: replays read the generator's state from the device.

    Where a call of the rasteriser may lack room, the host looks after each step; a step that lacked it changes no
    weights, and is repeated with more.
    """

    #: steps of a signature that run as written
    WARM_UP = 3

    def __init__(self, step: Callable[[Inputs], Outcome], device: torch.device) -> None:
        """`step` changes tensors only in place, and updates weights only `where_room_sufficed`."""
        self._step, self._device = step, device
        self._stream = torch.cuda.Stream(device)
        self._signature: Hashable = None
        self._inputs: Inputs
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outcome: Outcome
        self._checks: list[Check] = []
        self._run, self._is_capturable = 0, True

    def __call__(self, inputs: Inputs) -> Outcome:
        if not self._is_capturable:
            return self._step(inputs)
        found = signature(inputs)
        if found != self._signature:
            self._signature, self._graph, self._run = found, None, 0
            self._inputs = rebuild(inputs, (torch.empty_like(tensor) for tensor in tensors_of(inputs)))
        torch._foreach_copy_(tensors_of(self._inputs), tensors_of(inputs))
        while True:
            self._checks = []
            if self._run < self.WARM_UP - 1:
                outcome = self._as_written()
            elif self._run < self.WARM_UP:
                outcome = self._rehearsed()
            else:
                outcome = self._replayed()
            self._run += 1
            lacking = [check for check in self._checks if check.lacked_room]  # the host waits where there are checks
            if not lacking:
                return outcome
            for check in lacking:
                check.make_room()
            self._graph, self._run = None, 0
            seed_dropout(torch.initial_seed(), self._device)

    def _as_written(self) -> Outcome:
        # On the stream of the capture: gradients are accumulated on the stream where a weight was first used.
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outcome = self._step(self._inputs)
        current.wait_stream(self._stream)
        return outcome

    def _rehearsed(self) -> Outcome:
        """Run as written, but fail where the host would wait, without which a capture could not be ended properly."""
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with deferred_checks() as self._checks:
                return self._as_written()
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            log.warning("steps are not captured as one CUDA graph, and run as written: %s", error)
            self._is_capturable = False
        finally:
            torch.cuda.set_sync_debug_mode(mode)
        self._checks = []
        seed_dropout(torch.initial_seed(), self._device)
        return self._as_written()

    def _replayed(self) -> Outcome:
        if self._graph is None:
            self._capture()
        assert self._graph is not None
        self._graph.replay()
        self._checks = self._captured_checks
        return self._outcome

    def _capture(self) -> None:
        state = torch.cuda.get_rng_state(self._device)
        graph = torch.cuda.CUDAGraph()
        try:
            with deferred_checks() as self._checks, torch.cuda.graph(graph, stream=self._stream):
                self._outcome = self._step(self._inputs)
        except RuntimeError as error:
            raise ExecutionError(f"the step cannot be captured; run.compile: never does without: {error}") from error
        self._captured_checks = self._checks
        torch.cuda.set_rng_state(state, self._device)
        self._graph = graph


def _in_float32(result: Any) -> Any:
    return result.float() if isinstance(result, Tensor) and result.dtype == torch.bfloat16 else result


Drawn = TypeVar("Drawn")


class DrawnAhead(Generic[Drawn]):
    """The inputs of steps by iteration.  On a GPU the next ones are copied and resampled during the current step."""

    def __init__(self, draw: Callable[[int], Drawn], device: torch.device, end: int) -> None:
        """`draw` returns the inputs of an iteration below `end`, with tensors on `device`."""
        self._draw, self._end = draw, end
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))  # which may still copy what `draw` reads
        self._ready: tuple[int, Drawn] | None = None

    def take(self, iteration: int) -> Drawn:
        """The inputs of an iteration."""
        if self._stream is None:
            return self._draw(iteration)
        if self._ready is None or self._ready[0] != iteration:
            self._ready = (iteration, self._drawn(iteration))
        _, inputs = self._ready
        current = torch.cuda.current_stream()
        current.wait_stream(self._stream)
        for tensor in tensors_of(inputs):
            tensor.record_stream(current)
        self._ready = None
        return inputs

    def prepare(self, iteration: int) -> None:
        """Starts drawing the inputs of an iteration, once the current step is launched."""
        if self._stream is not None and iteration < self._end:
            self._ready = (iteration, self._drawn(iteration))

    def _drawn(self, iteration: int) -> Drawn:
        with torch.cuda.stream(self._stream):
            return self._draw(iteration)


@contextmanager
def steady_memory(device: torch.device) -> Iterator[None]:
    """Excludes existing objects from garbage collection, on a GPU: a full collection stalls the kernel launches."""
    if device.type != "cuda":
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
