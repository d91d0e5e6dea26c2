"""Many layers in one call of our compiled kernels each way, as one differentiable function.

A small network's layers take less time than Python and autograd need to call them.  So a stretch of a network that
consists of the functions of `model.ops` alone is recorded once, by running it on a `Recorded` in place of a tensor, and
then run from the record.  Both compute the same, from the same modules.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from model.ops.fused import FORMAT, Shape, check, kernel_for, kernel_of, layer_sizes
from model.ops.native import Kind, Layer, Run, Step, load_library, parallel

#: Pixels up to which attention keeps its weights, as many as the square of that.
_MAX_ATTENDED = 1024
_LINE = 16  # numbers in a cache line, to which buffers are aligned


class NotRecordableError(TypeError):
    """A stretch of a network does something that only tensors can do."""


@dataclass
class _Buffer:
    """Numbers that a step writes, and when they are needed; a parameter has an owner instead."""

    numbers: int
    written: int
    #: the last step that reads them
    read: int
    #: whether the backward pass reads them
    kept: bool = False
    #: of a parameter: the module, and the attribute's name
    owner: tuple[nn.Module, str] | None = None


@dataclass(frozen=True, eq=False)
class Recorded:
    """A feature map (B, C, H, W) that is yet to be computed."""

    recorder: Recorder
    buffer: int
    shape: tuple[int, int, int, int]

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        raise NotRecordableError(f"{function} cannot be recorded")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotRecordableError(f"Tensor.{name} cannot be recorded")

    def _operator(self, *_: object) -> NoReturn:
        raise NotRecordableError("operators cannot be recorded")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = _operator
    __matmul__ = __rmatmul__ = __neg__ = __getitem__ = __lt__ = __le__ = __gt__ = __ge__ = _operator


class Recorder:
    """Takes down steps in order.  Their buffers are numbered, and number 0 is none."""

    def __init__(self, given: Sequence[Tensor] = ()) -> None:
        self.steps: list[Step] = []
        self.buffers = [_Buffer(0, 0, 0)]
        self.maps: list[int] = []
        #: tensors that are read as they are, and the numbers of their buffers
        self.given = [(tensor, self._buffer(0)) for tensor in given]
        self.dropouts = 0

    def input(self, shape: torch.Size) -> Recorded:
        """What everything is a function of."""
        batch, channels, height, width = shape
        return self._map((batch, channels, height, width))

    def layer(
        self,
        shape: Shape,
        x: Recorded,
        norm: nn.GroupNorm | None = None,
        conv: nn.Conv2d | None = None,
        residual: Recorded | None = None,
    ) -> Recorded:
        """`fused_layer` of the parameters of `norm` and `conv`."""
        batch, inputs, height, width = x.shape
        outputs, side = (inputs, 0) if conv is None else (conv.out_channels, conv.kernel_size[0])
        y_shape = (batch, outputs, height, width)
        _require(norm is None or (norm.affine and norm.num_channels == inputs), "a norm without, or of other, channels")
        _require(conv is None or conv.weight.shape == (outputs, inputs, side, side), "an unusual convolution")
        _require(residual is None or residual.shape == y_shape, "a residual of another shape")
        sizes = layer_sizes(_kernel(inputs, outputs, side=side), shape, x.shape, outputs, side)
        normed = norm is not None
        self._read(x, kept=normed or side == 1)
        numbers = {"x": x.buffer}
        if residual is not None:
            self._read(residual)
            numbers["other"] = residual.buffer
        for module, names in ((norm, ("gain", "offset")), (conv, ("weight", "bias"))):
            if module is not None:
                numbers |= {n: self._parameter(module, a) for n, a in zip(names, ("weight", "bias"), strict=True)}
        if shape.dropout:
            numbers["key"] = self.dropouts
            self.dropouts += 1
        if normed:
            numbers["moments"] = self._buffer(batch * shape.groups * 2, kept=True)
        if conv is not None:
            pad = 2 * (side // 2)
            padded = batch * (height + pad) * (width + pad) * inputs
            numbers["active"] = self._buffer(padded, kept=True) if normed or pad else x.buffer
        y = self._map(y_shape)
        numbers.setdefault("active", y.buffer)
        self._step(Kind.LAYER, sizes, y=y.buffer, **numbers)
        return y

    def halve(self, x: Recorded) -> Recorded:
        """The mean of 2x2 pixels."""
        batch, channels, height, width = x.shape
        return self._between(Kind.HALVE, x, (batch, channels, height // 2, width // 2))

    def repeat(self, x: Recorded) -> Recorded:
        """Every pixel four times."""
        batch, channels, height, width = x.shape
        return self._between(Kind.REPEAT, x, (batch, channels, 2 * height, 2 * width))

    def join(self, x: Recorded, other: Recorded) -> Recorded:
        """The channels of both."""
        batch, channels, height, width = x.shape
        rest = other.shape[1]
        _require(other.shape == (batch, rest, height, width), "maps of different sizes")
        self._read(other)
        return self._between(Kind.JOIN, x, (batch, channels + rest, height, width), other=other.buffer)

    def attend(self, qkv: Recorded) -> Recorded:
        """Self-attention over the pixels; output channels 3c, 3c+1, 3c+2 are query, key and value of channel c."""
        batch, channels, height, width = qkv.shape
        pixels = height * width
        _require(channels % 3 == 0 and pixels <= _MAX_ATTENDED, "attention that takes too much memory")
        kernel = _kernel(channels // 3, pixels)
        active = self._buffer(batch * pixels * pixels, kept=True)
        shape = (batch, channels // 3, height, width)
        return self._between(Kind.ATTEND, qkv, shape, kernel=kernel, kept=True, active=active)

    def read(self, query: Recorded, numbers: Tensor, norm: nn.GroupNorm, key_value: nn.Conv2d) -> Recorded:
        """Cross-attention to one of the tensors that are given, (B, 1, ...), as `model.ops.read`."""
        batch, channels, *_ = query.shape
        count = numbers[0].numel()
        _require(norm.affine and norm.num_channels == 1, "a norm of several maps")
        _require(key_value.weight.shape == (2 * channels, 1, 1, 1), "keys and values of another width")
        _require(key_value.bias is not None and len(numbers) == batch, "attention to other images")
        place = [buffer for tensor, buffer in self.given if tensor.data_ptr() == numbers.data_ptr()]
        _require(bool(place) and numbers.is_contiguous(), "attention to what is not given")
        buffers = {
            "gain": self._parameter(norm, "weight"),
            "offset": self._parameter(norm, "bias"),
            "weight": self._parameter(key_value, "weight"),
            "bias": self._parameter(key_value, "bias"),
            "moments": self._buffer(3 * math.prod(query.shape) // channels, kept=True),
        }
        kernel = _kernel(channels, count)
        return self._between(
            Kind.READ, query, query.shape, Shape(eps=norm.eps), kernel=kernel, kept=True, other=place[0], count=count,
            **buffers,
        )  # fmt: skip

    def _between(
        self,
        kind: Kind,
        x: Recorded,
        y_shape: tuple[int, int, int, int],
        shape: Shape = Shape(),  # noqa: B008 - frozen
        *,
        kernel: int = 0,
        kept: bool = False,
        **numbers: int,
    ) -> Recorded:
        self._read(x, kept=kept)
        y = self._map(y_shape)
        sizes = layer_sizes(kernel, shape, x.shape, y_shape[1], 0)
        self._step(kind, sizes, x=x.buffer, y=y.buffer, **numbers)
        return y

    def _step(self, kind: Kind, sizes: Layer, **numbers: int) -> None:
        self.steps.append(Step(kind=kind, layer=sizes, **numbers))

    def _buffer(self, numbers: int, *, kept: bool = False) -> int:
        """A buffer that the step to be recorded next writes."""
        step = len(self.steps)
        self.buffers.append(_Buffer(numbers, step, step, kept))
        return len(self.buffers) - 1

    def _map(self, shape: tuple[int, int, int, int]) -> Recorded:
        self.maps.append(self._buffer(math.prod(shape)))
        return Recorded(self, self.maps[-1], shape)

    def _read(self, x: Recorded, *, kept: bool = False) -> None:
        buffer = self.buffers[x.buffer]
        buffer.read = len(self.steps)
        buffer.kept |= kept

    def _parameter(self, module: nn.Module, name: str) -> int:
        if getattr(module, name) is None:
            return 0
        owner = (module, name)
        _require(all(buffer.owner != owner for buffer in self.buffers), "a module that is used twice")
        self.buffers.append(_Buffer(0, 0, 0, owner=owner))
        return len(self.buffers) - 1


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise NotRecordableError(f"{otherwise} cannot be recorded")


def _kernel(*channels: int, side: int = 0) -> int:
    kernel = kernel_of(channels, side)
    if kernel is None:
        raise NotRecordableError(f"no kernel of this processor can do {channels} channels")
    return kernel


class Program:
    """What a recorder took down, ready to run.  Holds modules, not their parameters, which may be replaced."""

    def __init__(self, recorder: Recorder, x: Recorded, y: Recorded) -> None:
        """The function that takes x to y.

        Raises NotRecordableError unless y is a step's result, which no other step reads, and all other maps are read.
        """
        buffers = recorder.buffers
        inner = [number for number in recorder.maps if number not in (x.buffer, y.buffer)]
        unread = [buffers[number].read == buffers[number].written for number in (y.buffer, *inner)]
        _require(bool(recorder.steps) and unread[0] and not any(unread[1:]), "steps that do not lead to their result")
        self.x, self.y = x, y
        self.dropouts, self._count = recorder.dropouts, len(buffers)
        self._given = [buffer for _, buffer in recorder.given]
        self._steps = (Step * len(recorder.steps))(*recorder.steps)
        self._largest = max(buffers[number].numbers for number in recorder.maps)
        self._owners = {number: b.owner for number, b in enumerate(buffers) if b.owner is not None}
        outer = (x.buffer, y.buffer)
        self._inner = {n: b for n, b in enumerate(buffers) if b.numbers and n not in outer}
        self._inner_maps = {number: buffers[number] for number in inner}

    def run(self, x: Tensor, given: Sequence[Tensor] = ()) -> Tensor:
        """x and `given` of the shapes that were recorded."""
        parameters = [getattr(module, name) for module, name in self._owners.values()]
        saves = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *parameters))
        y: Tensor = _RunProgram.apply(self, saves, given, x, *parameters)
        return y

    @functools.cached_property
    def saving(self) -> Placement:
        """Of what a run computes that backward follows."""
        end = len(self._steps)
        return Placement.of({n: (b.numbers, b.written, end if b.kept else b.read) for n, b in self._inner.items()})

    @functools.cached_property
    def passing(self) -> Placement:
        """Of what a run computes that backward does not follow."""
        return Placement.of({n: (b.numbers, b.written, b.read) for n, b in self._inner.items()})

    @functools.cached_property
    def gradients(self) -> Placement:
        """Of the gradients of the maps, which backward needs between the same steps as forward needs the maps."""
        return Placement.of({n: (b.numbers, b.written, b.read) for n, b in self._inner_maps.items()})

    def addresses(
        self,
        placement: Placement,
        arena: Tensor,
        x: Tensor,
        y: Tensor | None,
        parameters: Any,
        given: Sequence[Tensor] = (),
    ) -> Any:
        """Of all buffers by their numbers, as the kernels expect them; 0 where there is no tensor."""
        addresses = np.zeros(self._count, np.int64)
        addresses[placement.numbers] = arena.data_ptr() + placement.offsets * arena.element_size()
        addresses[list(self._owners)] = [0 if p is None else p.data_ptr() for p in parameters]
        addresses[self._given] = [tensor.data_ptr() for tensor in given] or 0
        addresses[self.x.buffer] = x.data_ptr()
        addresses[self.y.buffer] = 0 if y is None else y.data_ptr()
        return addresses

    def call(self, addresses: Any, keys: Tensor) -> Run:
        """What the kernels are given; valid as long as its arguments live."""
        return Run(
            count=len(self._steps),
            threads=torch.get_num_threads(),
            buffer_count=self._count,
            largest_map=self._largest,
            steps=ctypes.addressof(self._steps),
            buffers=addresses.ctypes.data,
            keys=keys.data_ptr(),
        )


@dataclass(frozen=True)
class Placement:
    """Where in one piece of memory buffers lie, that are not all needed at the same time."""

    numbers: Any
    #: counted in float32
    offsets: Any
    total: int

    @classmethod
    def of(cls, spans: dict[int, tuple[int, int, int]]) -> Placement:
        """spans: of each buffer its length and the first and last step that need it.  The first place that fits."""
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


class _RunProgram(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, program: Program, saves: bool, given: Sequence[Tensor], x: Tensor, *parameters: Tensor
    ) -> Tensor:
        x = x.contiguous(memory_format=FORMAT)
        parameters = tuple(p.contiguous(memory_format=FORMAT) if p.dim() == 4 else p.contiguous() for p in parameters)
        placement = program.saving if saves else program.passing
        arena = torch.empty(placement.total)
        y = torch.empty(program.y.shape, memory_format=FORMAT)
        keys = torch.randint(1 << 62, (program.dropouts,))
        addresses = program.addresses(placement, arena, x, y, parameters, given)
        run = program.call(addresses, keys)
        check(load_library().layer_run(ctypes.byref(run), parallel()))  # type: ignore[union-attr]
        ctx.program = program
        ctx.save_for_backward(x, arena, keys, *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_y: Tensor) -> tuple[Tensor | None, ...]:
        program: Program = ctx.program
        x, arena, keys, *parameters = ctx.saved_tensors
        *_, want_x = ctx.needs_input_grad[:4]
        wanted = ctx.needs_input_grad[4:]
        by_y = by_y.contiguous(memory_format=FORMAT)
        by_x = torch.empty_like(x)
        by_parameters = [torch.empty_like(p) if want else None for p, want in zip(parameters, wanted, strict=True)]
        by_maps = torch.empty(program.gradients.total)
        addresses = program.addresses(program.saving, arena, x, None, parameters)
        gradients = program.addresses(program.gradients, by_maps, by_x, by_y, by_parameters)
        run = program.call(addresses, keys)
        check(load_library().layer_run_backward(ctypes.byref(run), gradients.ctypes.data, parallel()))  # type: ignore[union-attr]
        return (None, None, None, by_x if want_x else None, *by_parameters)


_PROGRAMS: WeakKeyDictionary[nn.Module, dict[Hashable, Program | None]] = WeakKeyDictionary()


def in_one_call(
    module: nn.Module, function: Callable[..., Tensor], x: Tensor, *key: Hashable, given: Sequence[Tensor] = ()
) -> Tensor:
    """function(x), a part of `module` that takes a feature map (B, C, H, W) to one; in one call where that can be.

    It can where `function` consists of functions of `model.ops` that our kernels apply to.  `key`: whatever else, next
    to the shape of x and to `module.training`, decides what `function` does.  `given`: other tensors that it reads, by
    `model.ops.read`; there is no gradient to them.  Inside of another such part it is just recorded with that.
    """
    if isinstance(x, Recorded) or kernel_for(x, None) is None:
        return function(x)
    programs = _PROGRAMS.setdefault(module, {})
    given = [tensor for tensor in given if not tensor.requires_grad and tensor.dtype == x.dtype]
    key = (x.shape, module.training, *(tensor.shape for tensor in given), *key)
    if key not in programs:
        programs[key] = _record(function, x.shape, given)
    program = programs[key]
    return function(x) if program is None else program.run(x, [tensor.contiguous() for tensor in given])


def _record(function: Callable[..., Any], shape: torch.Size, given: Sequence[Tensor]) -> Program | None:
    recorder = Recorder(given)
    x = recorder.input(shape)
    try:
        return Program(recorder, x, function(x))
    except NotRecordableError:
        return None
