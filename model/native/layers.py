"""The operators of the compiled layers, and their recording as steps of the graph executor.

All work on float32 feature maps (B, C, H, W) on the CPU, channels last, whose numbers of channels are multiples of
the processor's vector width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from model.native.library import MAX_CHANNELS, Layer, StepKind, layer_kernels
from model.native.recorder import Recorder, Shape4

#: Maximum number of pixels for self-attention, whose weights take the square of it.
MAX_ATTENDED = 1024


class UnsupportedError(ValueError):
    """The compiled layers do not support an operator of these sizes."""


@dataclass(frozen=True)
class Operator(ABC):
    """One operator; `y` is the number of its result, other integers are those of its inputs."""

    y: int

    @property
    @abstractmethod
    def maps(self) -> tuple[int, ...]:
        """The feature maps that it reads, which receive gradients."""

    @property
    def others(self) -> tuple[int, ...]:
        """Parameters that it reads."""
        return ()

    @abstractmethod
    def record(self, recorder: Recorder) -> None:
        """Append the step."""


@dataclass(frozen=True)
class Norm:
    """Group normalisation; weight and bias by number."""

    groups: int
    eps: float
    weight: int
    bias: int


@dataclass(frozen=True)
class Conv:
    """A convolution that keeps the image's size; weight and bias by number."""

    weight: int
    bias: int | None
    outputs: int
    side: int  # of the kernel, 1 or 3


@dataclass(frozen=True)
class LayerSpec(Operator):
    """y = scale * (conv(dropout(silu(norm(x)))) + residual), every part optional."""

    x: int
    norm: Norm | None = None
    silu: bool = False
    #: the probability that dropout zeroes an element
    dropout: float = 0.0
    conv: Conv | None = None
    residual: int | None = None
    #: multiplies the sum of convolution, bias and residual
    scale: float = 1.0

    @property
    def maps(self) -> tuple[int, ...]:
        return (self.x,) if self.residual is None else (self.x, self.residual)

    @property
    def others(self) -> tuple[int, ...]:
        norm = () if self.norm is None else (self.norm.weight, self.norm.bias)
        conv = () if self.conv is None else (self.conv.weight, self.conv.bias)
        return tuple(number for number in (*norm, *conv) if number is not None)

    def record(self, recorder: Recorder) -> None:
        x_shape, y_shape = recorder.shape(self.x), recorder.shape(self.y)
        batch, inputs, height, width = x_shape
        normed, side = self.norm is not None, 0 if self.conv is None else self.conv.side
        buffers = {"x": recorder.read(self.x, kept=normed or side == 1)}
        if self.residual is not None:
            buffers["other"] = recorder.read(self.residual)
        if self.norm is not None:
            buffers["gain"], buffers["offset"] = map(recorder.parameter, (self.norm.weight, self.norm.bias))
            buffers["moments"] = recorder.scratch(batch * self.norm.groups * 2)
        if self.conv is not None:
            buffers["weight"] = recorder.parameter(self.conv.weight)
            buffers["bias"] = 0 if self.conv.bias is None else recorder.parameter(self.conv.bias)
            pad = 2 * (side // 2)
            padded = batch * (height + pad) * (width + pad) * inputs
            buffers["conv_input"] = recorder.scratch(padded) if normed or pad else buffers["x"]
        if self.dropout:
            buffers["key"] = recorder.dropout_key()
        buffers["y"] = recorder.write(self.y)
        buffers.setdefault("conv_input", buffers["y"])
        sizes = layer_sizes(kernel_of((inputs, y_shape[1]), side), x_shape, y_shape[1], side)
        if self.norm is not None:
            sizes.groups, sizes.eps, sizes.silu = self.norm.groups, self.norm.eps, self.silu
        sizes.drop_below, sizes.keep_scale = min(round(self.dropout * 2**32), 2**32 - 1), 1 / (1 - self.dropout)
        sizes.scale = self.scale
        recorder.step(StepKind.LAYER, sizes, **buffers)


@dataclass(frozen=True)
class AvgPool2(Operator):
    """The mean of 2x2 pixels."""

    x: int

    @property
    def maps(self) -> tuple[int, ...]:
        return (self.x,)

    def record(self, recorder: Recorder) -> None:
        _record_unary(recorder, StepKind.AVG_POOL2, self.x, self.y)


@dataclass(frozen=True)
class Upsample2(Operator):
    """Twice the size by repetition of pixels."""

    x: int

    @property
    def maps(self) -> tuple[int, ...]:
        return (self.x,)

    def record(self, recorder: Recorder) -> None:
        _record_unary(recorder, StepKind.UPSAMPLE2, self.x, self.y)


@dataclass(frozen=True)
class Concat(Operator):
    """The channels of x, then those of `other`."""

    x: int
    other: int

    @property
    def maps(self) -> tuple[int, ...]:
        return (self.x, self.other)

    def record(self, recorder: Recorder) -> None:
        _record_unary(recorder, StepKind.CONCAT, self.x, self.y, other=recorder.read(self.other))


@dataclass(frozen=True)
class SelfAttention(Operator):
    """`model.attention.self_attention`."""

    qkv: int

    @property
    def maps(self) -> tuple[int, ...]:
        return (self.qkv,)

    def record(self, recorder: Recorder) -> None:
        batch, channels, height, width = recorder.shape(self.y)
        kernel = kernel_of((channels, height * width))
        buffers = {
            "x": recorder.read(self.qkv, kept=True),
            "conv_input": recorder.scratch(batch * (height * width) ** 2),  # the softmax
            "y": recorder.write(self.y),
        }
        sizes = layer_sizes(kernel, recorder.shape(self.qkv), channels, 0)
        recorder.step(StepKind.SELF_ATTENTION, sizes, **buffers)


@dataclass(frozen=True)
class DepthCrossAttention(Operator):
    """`model.attention.depth_cross_attention`; there is no gradient to the depth map."""

    query: int
    depth: int
    norm: Norm
    key_value: Conv

    @property
    def maps(self) -> tuple[int, ...]:
        return (self.query,)

    @property
    def others(self) -> tuple[int, ...]:
        assert self.key_value.bias is not None
        return (self.norm.weight, self.norm.bias, self.key_value.weight, self.key_value.bias, self.depth)

    def record(self, recorder: Recorder) -> None:
        shape = recorder.shape(self.query)
        batch, channels, height, width = shape
        count = math.prod(recorder.shape(self.depth)[1:])
        assert self.key_value.bias is not None
        buffers = {
            "x": recorder.read(self.query, kept=True),
            "other": recorder.constant(self.depth),
            "gain": recorder.parameter(self.norm.weight),
            "offset": recorder.parameter(self.norm.bias),
            "weight": recorder.parameter(self.key_value.weight),
            "bias": recorder.parameter(self.key_value.bias),
            "moments": recorder.scratch(3 * batch * height * width),
            "y": recorder.write(self.y),
        }
        sizes = layer_sizes(kernel_of((channels, count)), shape, channels, 0)
        sizes.eps = self.norm.eps
        recorder.step(StepKind.DEPTH_CROSS_ATTENTION, sizes, count=count, **buffers)


def _record_unary(recorder: Recorder, kind: StepKind, x: int, y: int, **buffers: int) -> None:
    shape = recorder.shape(x)
    buffers |= {"x": recorder.read(x), "y": recorder.write(y)}
    recorder.step(kind, layer_sizes(0, shape, recorder.shape(y)[1], 0), **buffers)


def kernel_of(channels: tuple[int, ...], side: int = 0) -> int:
    """The fastest kernel for these numbers of channels and a convolution of this side; side 0: no convolution.

    Raises UnsupportedError where no kernel of this processor supports them.
    """
    if side not in (0, 1, 3):
        raise UnsupportedError(f"a convolution of {side}x{side} taps")
    if channels[0] > MAX_CHANNELS:
        raise UnsupportedError(f"{channels[0]} channels, more than {MAX_CHANNELS}")
    for index, lanes in enumerate(layer_kernels().values()):
        if all(count % lanes == 0 for count in channels):
            return index
    raise UnsupportedError(f"{' and '.join(map(str, dict.fromkeys(channels)))} channels")


def layer_sizes(kernel: int, x: Shape4, outputs: int, side: int) -> Layer:
    """Sizes of a layer, without its tensors; x: shape of its input (B, C, H, W)."""
    batch, inputs, height, width = x
    return Layer(
        images=batch, height=height, width=width, inputs=inputs, outputs=outputs, kernels=kernel, side=side, scale=1.0
    )  # fmt: skip
