"""CUDA graphs on a CPU, for tests: a capture records the operations on tensors, a replay repeats these alone.

As on a GPU, a capture changes no tensor that existed before, a replay runs no Python of the captured code and works
on the addresses of the capture, random numbers come from the generator's state at the replay, and reading a value to
the host raises.  Kernels of Triton, under its interpreter, are recorded where `record_launches` wraps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

_READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.unique_dim.default,
    torch.ops.aten._unique2.default,
}


class NoHostReads(TorchDispatchMode):
    """Raises, as PyTorch's sync debug mode does, where the host would wait for a GPU."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _READS:
            raise RuntimeError(f"called a synchronizing CUDA operation: {function}")
        return function(*args, **(kwargs or {}))


class Graph:
    """Takes the place of `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.replays = 0

    def replay(self) -> None:
        """Repeats the recorded operations on the tensors of the capture."""
        self.replays += 1
        with torch.no_grad():
            for call in self.calls:
                call()


class Recorder(NoHostReads):
    """Records operations into a graph, and undoes their effects on tensors that existed before."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph
        self._created: set[int] = set()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in _written(function, args, kwargs):
            self._keep(tensor)
        result = super().__torch_dispatch__(function, types, args, kwargs)
        given = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        fresh = [_address(tensor) not in given for tensor in made]
        self._created |= {_address(tensor) for tensor, is_fresh in zip(made, fresh, strict=True) if is_fresh}

        def repeat() -> None:
            again = [leaf for leaf in tree_leaves(function(*args, **kwargs)) if isinstance(leaf, Tensor)]
            for tensor, value, is_fresh in zip(made, again, fresh, strict=True):
                if is_fresh:
                    tensor.copy_(value)

        self._graph.calls.append(repeat)
        return result

    def launch(self, call: Callable[[], None]) -> None:
        """Record a kernel, which writes only to tensors that were created during the capture."""
        with _disable_current_modes():  # the interpreter's own operations
            call()
        self._graph.calls.append(call)

    def _keep(self, tensor: Tensor) -> None:
        address = _address(tensor)
        if address not in self._created and address not in self._before:
            whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
            self._before[address] = (whole, whole.clone())

    def undo(self) -> None:
        """Restore the tensors that existed before."""
        with torch.no_grad():
            for whole, before in self._before.values():
                whole.copy_(before)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _written(function: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    for position, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor))


class CudaGraphs:
    """Takes the place of what `torch.cuda` offers for graphs; `graphs` are those that were captured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.graphs: list[Graph] = []
        self._recorder: Recorder | None = None
        self._no_reads: NoHostReads | None = None
        stream = SimpleNamespace(wait_stream=lambda _: None)
        for name, value in {
            "CUDAGraph": Graph,
            "graph": self._capture,
            "Stream": lambda *_: stream,
            "current_stream": lambda *_: stream,
            "stream": lambda _: nullcontext(),
            "get_rng_state": lambda _device: torch.get_rng_state(),
            "set_rng_state": lambda state, _device: torch.set_rng_state(state),
            "synchronize": lambda: None,
            "get_sync_debug_mode": lambda: 0,
            "set_sync_debug_mode": self._set_sync_debug_mode,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch.cuda.graphs, "graph_pool_handle", lambda: None)
        self._monkeypatch = monkeypatch

    def record_launches(self, module: ModuleType, *names: str) -> None:
        """Make the launches of a module's Triton kernels part of captures."""
        for name in names:
            self._monkeypatch.setattr(module, name, _Launches(self, getattr(module, name)))

    def launch(self, call: Callable[[], None]) -> None:
        """Run a kernel, and record it during a capture."""
        if self._recorder is None:
            call()
        else:
            self._recorder.launch(call)

    @contextmanager
    def _capture(self, graph: Graph, **_: object) -> Iterator[None]:
        self._recorder = Recorder(graph)
        try:
            with self._recorder:
                yield
            self._recorder.undo()
            self.graphs.append(graph)
        finally:
            self._recorder = None

    def _set_sync_debug_mode(self, mode: str | int) -> None:
        if mode == "error":
            self._no_reads = NoHostReads()
            self._no_reads.__enter__()
        elif self._no_reads is not None:
            self._no_reads.__exit__(None, None, None)
            self._no_reads = None


class _Launches:
    def __init__(self, graphs: CudaGraphs, kernel: Any) -> None:
        self._graphs, self._kernel = graphs, kernel

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: self._graphs.launch(lambda: self._kernel[grid](*args, **kwargs))
