"""Lowers recorded torch calls to operators of the compiled layers, where supported.

Neighbours are fused: norm, SiLU, dropout, convolution, residual and scale become one layer if nothing else reads
the intermediate results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from model import attention
from model.native.layers import (
    MAX_ATTENDED,
    AvgPool2,
    Concat,
    Conv,
    DepthCrossAttention,
    LayerSpec,
    Norm,
    Operator,
    SelfAttention,
    UnsupportedError,
    Upsample2,
    kernel_of,
)
from model.native.tracing import Call, Graph, Value


@dataclass
class Lowered:
    """The calls of a graph in order, with operators in place of those that the compiled layers support."""

    items: list[Call | Operator] = field(default_factory=list)
    #: calls with unsupported sizes, which torch executes, with the reasons
    refused: list[str] = field(default_factory=list)


def lower(graph: Graph) -> Lowered:
    """Replace calls by operators, and drop calls whose results are unused."""
    lowering = _Lowering(graph)
    lowered = Lowered()
    for call in graph.calls:
        try:
            operator = lowering.match(call)
        except UnsupportedError as error:
            lowered.refused.append(f"{getattr(call.function, '__name__', call.function)}: {error}")
            operator = None
        lowered.items.append(call if operator is None else operator)
    lowered.items = _live(
        [item for item in lowered.items if not (isinstance(item, Operator) and item.y in lowering.absorbed)],
        graph.result,
    )
    return lowered


def reads_of(item: Call | Operator) -> list[int]:
    """Numbers of all values that an item reads."""
    return item.reads if isinstance(item, Call) else [*item.maps, *item.others]


def writes_of(item: Call | Operator) -> list[int]:
    """Numbers of all values that an item writes."""
    return item.writes if isinstance(item, Call) else [item.y]


def _live(items: list[Call | Operator], result: int) -> list[Call | Operator]:
    """The items that contribute to the result."""
    wanted, live = {result}, []
    for item in reversed(items):
        if wanted.intersection(writes_of(item)):
            wanted.update(reads_of(item))
            live.append(item)
    return live[::-1]


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._users = Counter(number for call in graph.calls for number in call.reads)
        self._users[graph.result] += 1
        self._operators: dict[int, Operator] = {}
        #: results of operators that were fused into another one
        self.absorbed: set[int] = set()
        self._rules: dict[Any, Callable[[Call], Operator | None]] = {
            F.group_norm: self._group_norm,
            F.silu: self._silu,
            F.dropout: self._dropout,
            F.conv2d: self._conv2d,
            torch.Tensor.add: self._add,
            torch.add: self._add,
            torch.Tensor.mul: self._mul,
            torch.mul: self._mul,
            F.avg_pool2d: self._avg_pool2d,
            F.interpolate: self._interpolate,
            torch.cat: self._cat,
            attention.self_attention: self._self_attention,
            attention.depth_cross_attention: self._depth_cross_attention,
        }

    def match(self, call: Call) -> Operator | None:
        """The operator for a call, fused with its predecessors where possible; None for a call without an operator.

        Raises UnsupportedError where the operator does not support these sizes.
        """
        rule = self._rules.get(call.function)
        if rule is None or not isinstance(call.result, Value) or not self._is_map(call.result):
            return None
        operator = rule(call)
        if operator is not None:
            self._operators[operator.y] = operator
        return operator

    def _group_norm(self, call: Call) -> Operator | None:
        x, groups = call.argument(0, "input"), call.argument(1, "num_groups")
        weight, bias = call.argument(2, "weight"), call.argument(3, "bias")
        if not (self._is_map(x) and self._is_owned(weight) and self._is_owned(bias)):
            return None
        kernel_of((self._channels(x),))
        norm = Norm(groups, call.argument(4, "eps", 1e-5), weight.number, bias.number)
        return LayerSpec(call.result.number, x.number, norm)

    def _silu(self, call: Call) -> Operator | None:
        layer = self._open_layer(call.argument(0, "input"))
        if layer is None or layer.norm is None or layer.conv is not None or layer.silu:
            return None
        return self._absorb(layer, y=call.result.number, silu=True)

    def _dropout(self, call: Call) -> Operator | None:
        layer = self._open_layer(call.argument(0, "input"))
        probability = call.argument(1, "p", 0.5)
        if layer is None or not layer.silu or layer.conv is not None or layer.dropout or not probability < 1:
            return None
        return self._absorb(layer, y=call.result.number, dropout=float(probability))

    def _conv2d(self, call: Call) -> Operator | None:
        x, weight, bias = call.argument(0, "input"), call.argument(1, "weight"), call.argument(2, "bias")
        if not (self._is_map(x) and self._is_owned(weight) and (bias is None or self._is_owned(bias))):
            return None
        outputs, inputs, side, width = self._graph.facts[weight.number].shape
        stride, dilation = _pair(call.argument(3, "stride", 1)), _pair(call.argument(5, "dilation", 1))
        padding = call.argument(4, "padding", 0)
        if (side != width or stride != (1, 1) or dilation != (1, 1) or call.argument(6, "groups", 1) != 1) or (
            isinstance(padding, str) or _pair(padding) != (side // 2, side // 2)
        ):
            raise UnsupportedError("a convolution that is strided, dilated, grouped or changes the image's size")
        kernel_of((inputs, outputs), side)
        conv = Conv(weight.number, None if bias is None else bias.number, outputs, side)
        layer = self._open_layer(x)
        if layer is not None and layer.conv is None:
            return self._absorb(layer, y=call.result.number, conv=conv)
        return LayerSpec(call.result.number, x.number, conv=conv)

    def _add(self, call: Call) -> Operator | None:
        a, b = call.argument(0, "input"), call.argument(1, "other")
        if call.argument(2, "alpha", 1) != 1 or not (self._is_map(a) and self._is_map(b)):
            return None
        if self._graph.facts[a.number].shape != self._graph.facts[b.number].shape:
            return None
        for conv, residual in ((a, b), (b, a)):
            layer = self._open_layer(conv)
            if layer is not None and layer.conv is not None and layer.residual is None and layer.scale == 1:
                return self._absorb(layer, y=call.result.number, residual=residual.number)
        return None

    def _mul(self, call: Call) -> Operator | None:
        layer, factor = self._open_layer(call.argument(0, "input")), call.argument(1, "other")
        if layer is None or layer.conv is None or layer.scale != 1 or not isinstance(factor, int | float):
            return None
        return self._absorb(layer, y=call.result.number, scale=float(factor))

    def _avg_pool2d(self, call: Call) -> Operator | None:
        x = call.argument(0, "input")
        plain = call.argument(3, "padding", 0) == 0 and call.argument(6, "divisor_override") is None
        stride = call.argument(2, "stride") or call.argument(1, "kernel_size")
        if not plain or (_pair(call.argument(1, "kernel_size")), _pair(stride)) != ((2, 2), (2, 2)):
            raise UnsupportedError("pooling over other than 2x2 pixels")
        if call.argument(4, "ceil_mode", False):
            raise UnsupportedError("pooling with ceil_mode")
        return AvgPool2(call.result.number, x.number) if self._follows_operators(x) else None

    def _interpolate(self, call: Call) -> Operator | None:
        x = call.argument(0, "input")
        if not self._is_map(x):
            return None
        (height, width), y = self._graph.facts[x.number].shape[2:], self._graph.facts[call.result.number].shape
        if call.argument(3, "mode", "nearest") != "nearest" or y[2:] != (2 * height, 2 * width):
            raise UnsupportedError("interpolation other than repetition of pixels to twice the size")
        return Upsample2(call.result.number, x.number) if self._follows_operators(x) else None

    def _cat(self, call: Call) -> Operator | None:
        parts, dim = call.argument(0, "tensors"), call.argument(1, "dim", 0)
        if len(parts) != 2 or dim not in (1, -3) or not self._follows_operators(*parts):
            return None
        return Concat(call.result.number, parts[0].number, parts[1].number)

    def _self_attention(self, call: Call) -> Operator | None:
        (qkv,) = call.arguments
        if not self._is_map(qkv):
            return None
        _, channels, height, width = self._graph.facts[qkv.number].shape
        if height * width > MAX_ATTENDED:
            raise UnsupportedError(f"attention over {height * width} pixels, more than {MAX_ATTENDED}")
        kernel_of((channels // 3, height * width))
        return SelfAttention(call.result.number, qkv.number)

    def _depth_cross_attention(self, call: Call) -> Operator | None:
        query, depth, norm, key_value = call.arguments
        at_norm, at_key_value = self._owned_by(norm), self._owned_by(key_value)
        facts = self._graph.facts[depth.number]
        if not (self._is_map(query) and self._is_map(depth)) or facts.requires_grad or depth.number in self._operators:
            return None
        if min(len(at_norm), len(at_key_value)) < 2 or norm.num_channels != 1:
            return None
        channels = self._channels(query)
        kernel_of((channels, facts.shape[1:].numel()))
        return DepthCrossAttention(
            call.result.number,
            query.number,
            depth.number,
            Norm(1, norm.eps, at_norm["weight"], at_norm["bias"]),
            Conv(at_key_value["weight"], at_key_value["bias"], 2 * channels, 1),
        )

    def _owned_by(self, owner: nn.Module) -> dict[str, int]:
        """The parameters of a module that is an argument of a call, by name; they become values of the graph."""
        known = {name: number for number, (other, name) in self._graph.owned.items() if other is owner}
        return {
            name: known[name] if name in known else self._graph.add_owned(owner, name, parameter)
            for name, parameter in owner.named_parameters(recurse=False)
        }

    def _open_layer(self, value: Any) -> LayerSpec | None:
        """The layer that wrote `value`, if only the current call reads it."""
        operator = self._operators.get(value.number) if isinstance(value, Value) else None
        return operator if isinstance(operator, LayerSpec) and self._users[operator.y] == 1 else None

    def _absorb(self, layer: LayerSpec, **changes: Any) -> LayerSpec:
        self.absorbed.add(layer.y)
        return replace(layer, **changes)

    def _follows_operators(self, *values: Any) -> bool:
        """Whether all are feature maps and an operator wrote one of them; mere data movement gains nothing."""
        return all(map(self._is_map, values)) and any(value.number in self._operators for value in values)

    def _is_map(self, value: Any) -> bool:
        """Whether it is a non-empty feature map (B, C, H, W) in float32 on the CPU."""
        if not isinstance(value, Value):
            return False
        facts = self._graph.facts[value.number]
        fits = facts.dtype == torch.float32 and facts.device.type == "cpu"
        return fits and len(facts.shape) == 4 and facts.shape.numel() > 0

    def _is_owned(self, value: Any) -> bool:
        """Whether it is a float32 parameter of a module."""
        if not isinstance(value, Value) or value.number not in self._graph.owned:
            return False
        return self._graph.facts[value.number].dtype == torch.float32

    def _channels(self, value: Value) -> int:
        return self._graph.facts[value.number].shape[1]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (tuple(value) * 2)[:2]
