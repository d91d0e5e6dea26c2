"""Records the torch calls of one run of a module as a graph, which can be replayed without the module's Python code.

A `TorchFunctionMode` intercepts calls on tensors at source level: `group_norm`, `conv2d`, `silu`.  The graph
is valid for equal shapes and modes only.  Code that depends on the values in a tensor cannot be recorded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

#: Queries whose results follow from shapes and types, which are fixed for a graph.
_STATIC_QUERIES = frozenset(
    {"__get__", "__len__", "dim", "size", "stride", "numel", "nelement", "element_size", "ndimension"}
    | {"is_floating_point", "is_complex", "is_contiguous", "get_device", "promote_types", "result_type"}
)
#: Calls that a replay would not repeat, or that change the effect of other calls.
_FORBIDDEN = frozenset({"_set_grad_enabled", "set_grad_enabled", "manual_seed", "__setitem__", "__set__", "__delete__"})


class NotTraceableError(TypeError):
    """A module has effects that a graph of its calls would not repeat."""


@dataclass(frozen=True)
class Value:
    """A tensor of a graph, by number, as argument or result of a call."""

    number: int


@dataclass(frozen=True)
class Call:
    """One torch call; tensors in arguments and result are `Value`s."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    result: Any

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """The argument at a position or with a name; `default` where it is absent."""
        if position < len(self.arguments):
            return self.arguments[position]
        return self.keywords.get(name, default)

    @property
    def reads(self) -> list[int]:
        """Numbers of the values it reads, with repetitions."""
        return [value.number for value in _values((self.arguments, self.keywords))]

    @property
    def writes(self) -> list[int]:
        """Numbers of the values it writes."""
        return [value.number for value in _values(self.result)]


@dataclass(frozen=True)
class Facts:
    """Properties of a value that are constant for a graph."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool


@dataclass
class Graph:
    """The calls from inputs to result, in order.  Values are numbered from 0."""

    inputs: list[int] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    facts: list[Facts] = field(default_factory=list)
    #: parameters and buffers: the module that owns each, and the attribute's name
    owned: dict[int, tuple[nn.Module, str]] = field(default_factory=dict)
    #: other tensors that are results of no call
    constants: dict[int, Tensor] = field(default_factory=dict)
    result: int = -1

    def add(self, tensor: Tensor) -> int:
        """Adds a value; returns its number."""
        self.facts.append(Facts(tensor.shape, tensor.dtype, tensor.device, tensor.requires_grad))
        return len(self.facts) - 1

    def add_owned(self, owner: nn.Module, name: str, tensor: Tensor) -> int:
        """Adds a value for a parameter or buffer of a module; returns its number."""
        number = self.add(tensor)
        self.owned[number] = (owner, name)
        return number


def trace(module: nn.Module, function: Callable[..., Any], arguments: Any, keywords: dict[str, Any]) -> Graph:
    """Run `function`, the forward pass of `module`, and record it.

    Raises NotTraceableError where a replay would not reproduce it, and the errors of the function.
    """
    tracer = _Tracer(module, tensors_of((arguments, keywords)))
    with tracer:
        result = function(*arguments, **keywords)
    if not isinstance(result, Tensor):
        raise NotTraceableError(f"its result is a {type(result).__name__}, not one tensor")
    tracer.graph.result = tracer.number(result)
    return tracer.graph


class _Tracer(TorchFunctionMode):
    def __init__(self, module: nn.Module, inputs: list[Tensor]) -> None:
        super().__init__()
        self.graph = Graph()
        self._numbers: dict[int, int] = {}
        self._alive: list[Tensor] = []  # keeps tensors alive, since `id` is unique only among live objects
        self._owners = {
            id(tensor): (owner, name)
            for owner in module.modules()
            for name, tensor in (*owner._parameters.items(), *owner._buffers.items())
            if tensor is not None
        }
        self.graph.inputs = [self._add(tensor) for tensor in inputs]

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", str(function))
        if name in _FORBIDDEN or _is_in_place(name) or kwargs.get("out") is not None or kwargs.get("inplace"):
            raise NotTraceableError(f"{name} changes tensors or modes in place")
        result = function(*args, **kwargs)
        given = tensors_of(result)
        if not given:
            if tensors_of((args, kwargs)) and name not in _STATIC_QUERIES:
                raise NotTraceableError(f"{name} reads the numbers in a tensor")
            return result
        if all(id(tensor) in self._numbers for tensor in given):
            return result  # the argument itself, as `dropout` returns it in evaluation
        arguments, keywords = (map_tensors(tree, lambda t: Value(self.number(t))) for tree in (args, kwargs))
        self.graph.calls.append(Call(function, arguments, keywords, map_tensors(result, lambda t: Value(self._add(t)))))
        return result

    def number(self, tensor: Tensor) -> int:
        """Number of a tensor's value.  A tensor that is no call's result is one of the module's, or a constant."""
        known = self._numbers.get(id(tensor))
        if known is not None:
            return known
        number = self._add(tensor)
        owner = self._owners.get(id(tensor))
        if owner is None:
            self.graph.constants[number] = tensor
        else:
            self.graph.owned[number] = owner
        return number

    def _add(self, tensor: Tensor) -> int:
        number = self.graph.add(tensor)
        self._numbers[id(tensor)] = number
        self._alive.append(tensor)
        return number


def _is_in_place(name: str) -> bool:
    return (name.endswith("_") and not name.endswith("__")) or (name.startswith("__i") and name not in {"__invert__"})


def map_tensors(tree: Any, function: Callable[[Tensor], Any]) -> Any:
    """`tree` with every tensor replaced; traverses tuples, lists, dictionaries and dataclasses."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, tuple | list):
        mapped = [map_tensors(item, function) for item in tree]
        return tuple(mapped) if isinstance(tree, tuple) else mapped
    if isinstance(tree, dict):
        return {key: map_tensors(item, function) for key, item in tree.items()}
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return tuple(map_tensors(getattr(tree, f.name), function) for f in dataclasses.fields(tree))
    return tree


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors in `tree`, in the order of `map_tensors`."""
    found: list[Tensor] = []
    map_tensors(tree, found.append)
    return found


def rebuild(tree: Any, tensors: Iterator[Tensor]) -> Any:
    """A copy of `tree` with its tensors replaced by `tensors`, in the order of `tensors_of`."""
    if isinstance(tree, Tensor):
        return next(tensors)
    if isinstance(tree, tuple | list):
        return type(tree)(rebuild(item, tensors) for item in tree)
    if isinstance(tree, dict):
        return {key: rebuild(item, tensors) for key, item in tree.items()}
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        rebuilt = object.__new__(type(tree))
        for f in dataclasses.fields(tree):
            object.__setattr__(rebuilt, f.name, rebuild(getattr(tree, f.name), tensors))
        return rebuilt
    return tree


def signature(tree: Any) -> Hashable:
    """A hashable description of `tree`, without the values in its tensors."""
    return _hashable(map_tensors(tree, lambda t: (t.shape, t.dtype, t.requires_grad)))


def _hashable(tree: Any) -> Hashable:
    if isinstance(tree, list | tuple):
        return tuple(map(_hashable, tree))
    if isinstance(tree, dict):
        return tuple((key, _hashable(item)) for key, item in tree.items())
    return tree


def replace_values(tree: Any, tensors: Callable[[int], Any]) -> Any:
    """`tree`, the arguments of a call, with every `Value` replaced by the tensor of its number."""
    if isinstance(tree, Value):
        return tensors(tree.number)
    if isinstance(tree, tuple | list):
        return type(tree)(replace_values(item, tensors) for item in tree)
    if isinstance(tree, dict):
        return {key: replace_values(item, tensors) for key, item in tree.items()}
    return tree


def _values(tree: Any) -> Iterator[Value]:
    if isinstance(tree, Value):
        yield tree
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from _values(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from _values(item)
