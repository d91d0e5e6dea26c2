"""Runs many layers in one call of the compiled library, for forward and for backward, as one differentiable function.

The layers of a small network take less time than Python and autograd need to call them one by one.  All intermediate
results of a run lie in one memory arena.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.native.layers import Operator
from model.native.library import Run, Step, check, gomp_parallel, interpreter, load_library
from model.native.recorder import Recorder, Shape4

#: The layout of feature maps and convolution weights.
FORMAT = torch.channels_last
#: Type and place of all tensors, whatever torch's defaults are.
_HOST: Any = {"dtype": torch.float32, "device": "cpu"}
_LINE = 16  # float32 numbers in a cache line, to which buffers are aligned


class GraphExecutor:
    """Executes a sequence of operators.

    It holds numbers of values, not tensors: every run receives inputs, parameters and constants.
    """

    def __init__(
        self, operators: Sequence[Operator], shapes: Mapping[int, Shape4], inputs: Sequence[int], outputs: Sequence[int]
    ) -> None:
        """`inputs`: feature maps that exist before; `outputs`: results; every map contributes to an output."""
        recorder = Recorder(shapes, inputs)
        for operator in operators:
            operator.record(recorder)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.parameters, self.constants = tuple(recorder.parameters), tuple(recorder.constants)
        self.output_shapes = [shapes[value] for value in outputs]
        self.dropouts = recorder.dropouts
        buffers, maps = recorder.buffers, recorder.maps
        self._count = len(buffers)
        self._steps = (Step * len(recorder.steps))(*recorder.steps)
        self._largest = max(buffers[number].numbers for number in maps.values())
        self._input_buffers = [maps[value] for value in inputs]
        self._output_buffers = np.array([maps[value] for value in outputs], np.int64)
        self._parameter_buffers = list(recorder.parameters.values())
        self._constant_buffers = list(recorder.constants.values())
        outer = {*self._input_buffers, *self._output_buffers.tolist()}
        self._inner = {n: b for n, b in enumerate(buffers) if b.numbers and n not in outer}
        self._inner_maps = {n: buffers[n] for n in maps.values() if n not in outer}
        outputs_read = [buffers[n] for n in self._output_buffers.tolist()]
        #: for each output: whether a step reads it, and whether the backward pass does
        self.outputs_read = [b.read > b.written for b in outputs_read]
        self.outputs_kept = [b.kept for b in outputs_read]

    def run(self, inputs: Sequence[Tensor], parameters: Sequence[Tensor], constants: Sequence[Tensor]) -> list[Tensor]:
        """Runs the operators and returns their outputs; all tensors must have the recorded shapes."""
        saves = torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *parameters))
        return list(_Run.apply(self, saves, constants, *inputs, *parameters))

    @functools.cached_property
    def saving(self) -> Placement:
        """Memory layout when gradients are needed."""
        end = len(self._steps)
        return Placement.of({n: (b.numbers, b.written, end if b.kept else b.read) for n, b in self._inner.items()})

    @functools.cached_property
    def passing(self) -> Placement:
        """Memory layout without gradients."""
        return Placement.of({n: (b.numbers, b.written, b.read) for n, b in self._inner.items()})

    @functools.cached_property
    def gradients(self) -> Placement:
        """Memory layout of the gradients of inner maps, which have the same lifetimes as the maps."""
        return Placement.of({n: (b.numbers, b.written, b.read) for n, b in self._inner_maps.items()})

    def addresses(
        self,
        placement: Placement,
        arena: Tensor,
        inputs: Iterable[Tensor],
        outputs: Iterable[Tensor | None],
        parameters: Iterable[Tensor | None],
        constants: Sequence[Tensor] = (),
    ) -> Any:
        """Addresses of all buffers by number; 0 where there is no tensor."""
        addresses = np.zeros(self._count, np.int64)
        addresses[placement.numbers] = arena.data_ptr() + placement.offsets * arena.element_size()
        addresses[self._parameter_buffers] = [_address(p) for p in parameters]
        if constants:
            addresses[self._constant_buffers] = [_address(c) for c in constants]
        addresses[self._input_buffers] = [_address(x) for x in inputs]
        addresses[self._output_buffers] = [_address(y) for y in outputs]
        return addresses

    def call(self, addresses: Any, keys: Tensor) -> Run:
        """The argument of the compiled functions; valid as long as `addresses` and `keys` live."""
        return Run(
            count=len(self._steps),
            threads=torch.get_num_threads() if gomp_parallel() else 1,
            buffer_count=self._count,
            largest_map=self._largest,
            output_count=len(self._output_buffers),
            steps=ctypes.addressof(self._steps),
            buffers=addresses.ctypes.data,
            keys=keys.data_ptr(),
            outputs=self._output_buffers.ctypes.data,
            parallel=gomp_parallel(),
            interpreter=interpreter(),
        )


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, executor: GraphExecutor, saves: bool, constants: Sequence[Tensor], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        split = len(executor.inputs)
        inputs = [x.contiguous(memory_format=FORMAT) for x in tensors[:split]]
        parameters = [p.contiguous(memory_format=FORMAT) if p.dim() == 4 else p.contiguous() for p in tensors[split:]]
        constants = [c.contiguous() for c in constants]
        placement = executor.saving if saves else executor.passing
        arena = torch.empty(placement.total, **_HOST)
        outputs = [torch.empty(shape, memory_format=FORMAT, **_HOST) for shape in executor.output_shapes]
        # Dropout depends on torch's default generator and on the element, not on the number of threads.
        keys = torch.randint(1 << 62, (executor.dropouts,), device="cpu")
        addresses = executor.addresses(placement, arena, inputs, outputs, parameters, constants)
        check(load_library().layers_forward(executor.call(addresses, keys)))
        ctx.executor = executor
        kept = [y for y, is_kept in zip(outputs, executor.outputs_kept, strict=True) if is_kept]
        ctx.save_for_backward(arena, keys, *inputs, *parameters, *kept)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        executor: GraphExecutor = ctx.executor
        arena, keys, *rest = ctx.saved_tensors
        split, end = len(executor.inputs), len(executor.inputs) + len(executor.parameters)
        inputs, parameters, kept = rest[:split], rest[split:end], iter(rest[end:])
        outputs = [next(kept) if is_kept else None for is_kept in executor.outputs_kept]
        grads = [
            # Copied if a step reads the output, since its backward pass adds to the gradient.
            (g.clone(memory_format=FORMAT) if is_read else g.contiguous(memory_format=FORMAT))
            for g, is_read in zip(grad_outputs, executor.outputs_read, strict=True)
        ]
        wanted = ctx.needs_input_grad[3:]
        grad_inputs = [torch.empty_like(x) for x in inputs]
        grad_parameters = [torch.empty_like(p) if w else None for p, w in zip(parameters, wanted[split:], strict=True)]
        grad_maps = torch.empty(executor.gradients.total, **_HOST)
        addresses = executor.addresses(executor.saving, arena, inputs, outputs, parameters)
        gradients = executor.addresses(executor.gradients, grad_maps, grad_inputs, grads, grad_parameters)
        check(load_library().layers_backward(executor.call(addresses, keys), gradients.ctypes.data))
        for_inputs = (g if w else None for g, w in zip(grad_inputs, wanted[:split], strict=True))
        return (None, None, None, *for_inputs, *grad_parameters)


@dataclass(frozen=True)
class Placement:
    """Offsets in one arena of buffers that are not all needed at the same time."""

    numbers: Any
    #: in units of float32
    offsets: Any
    total: int

    @classmethod
    def of(cls, spans: dict[int, tuple[int, int, int]]) -> Placement:
        """spans: length of each buffer, and the first and last step that need it.  Each is placed in the first gap."""
        offsets: dict[int, int] = {}
        taken: list[tuple[int, int, int]] = []  # (offset, end, last step), by offset
        total = 0
        for number, (length, first, last) in sorted(spans.items(), key=lambda item: item[1][1]):
            length = -(-length // _LINE) * _LINE
            taken = [place for place in taken if place[2] >= first]
            offset = 0
            for start, end, _ in taken:
                if offset + length <= start:
                    break
                offset = max(offset, end)
            offsets[number] = offset
            taken = sorted([*taken, (offset, offset + length, last)])
            total = max(total, offset + length)
        return cls(np.array(list(offsets), np.int64), np.array(list(offsets.values()), np.int64), total)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
