"""Entry point of the compiled layers: `accelerate(network)`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from model.native.graph_executor import GraphExecutor
from model.native.layers import Operator
from model.native.library import why_no_layers
from model.native.lowering import lower, reads_of, writes_of
from model.native.tracing import (
    Call,
    Graph,
    NotTraceableError,
    replace_values,
    signature,
    tensors_of,
    trace,
)

log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)

_logged: set[str] = set()


def accelerate(network: Network) -> Network:
    """Makes `network` use the compiled CPU layers where possible, forward and backward; returns the network.

    Its parameters, their names and, up to rounding, its results do not change; dropout draws different numbers from the
    same generator.  The layers support group norm, SiLU, dropout, 1x1 and 3x3 convolutions with residual and scale,
    resampling by two, concatenation, and the functions of `model.attention`, in float32 on the CPU, for numbers of
    channels that are multiples of the processor's vector width.  Everything else runs in torch: other operators, other
    types and devices, autocast and `torch.compile`.  Operators left to torch are logged once, with the reason.

    The forward pass may depend on the shapes of tensors, on other arguments and on `network.training`, but not on the
    numbers in tensors.  Copies made by `copy.deepcopy` are accelerated as well.
    """
    reason = why_no_layers()
    if reason is not None:
        _log_once(f"torch computes {type(network).__name__}: {reason}")
    elif not isinstance(network.__dict__.get("forward"), _Accelerated):
        network.forward = _Accelerated(network)
    return network


class _Accelerated:
    """Replaces the `forward` of a module; caches a schedule for each combination of shapes and modes."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._schedules: dict[Hashable, _Schedule | None] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Accelerated:
        return _Accelerated(memo[id(self._module)])

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        given = (arguments, keywords)
        tensors = tensors_of(given)
        if not _fits(tensors):
            return self._plain(*arguments, **keywords)
        key = (signature(given), self._module.training, torch.is_grad_enabled())
        if key not in self._schedules:
            self._schedules[key] = self._schedule(arguments, keywords)
        schedule = self._schedules[key]
        return self._plain(*arguments, **keywords) if schedule is None else schedule.run(tensors)

    @property
    def _plain(self) -> Callable[..., Any]:
        return type(self._module).forward.__get__(self._module)

    def _schedule(self, arguments: Any, keywords: dict[str, Any]) -> _Schedule | None:
        name, state = type(self._module).__name__, torch.get_rng_state()
        try:
            graph = trace(self._module, self._plain, arguments, keywords)
        except NotTraceableError as error:
            _log_once(f"torch computes {name}: {error}")
            return None
        finally:
            torch.set_rng_state(state)  # tracing must not advance the caller's random stream
        lowered = lower(graph)
        compiled = sum(isinstance(item, Operator) for item in lowered.items)
        if lowered.refused or not compiled:
            reasons = "; ".join(dict.fromkeys(lowered.refused)) or "none of its operators is known"
            _log_once(f"{name}: compiled layers do {compiled} operators, torch does {reasons}")
        return _Schedule(graph, lowered.items) if compiled else None


class _Schedule:
    """Runs a graph: torch calls, and programs of operators without torch calls between them."""

    def __init__(self, graph: Graph, items: Sequence[Call | Operator]) -> None:
        self._graph = graph
        groups = _levels(items)
        shapes = {number: tuple(facts.shape) for number, facts in enumerate(graph.facts)}
        self._steps: list[Call | GraphExecutor] = []
        for level in sorted(groups):
            group = groups[level]
            operators = [item for item in group if isinstance(item, Operator)]
            if not operators:
                self._steps += [item for item in group if isinstance(item, Call)]
                continue
            written = [operator.y for operator in operators]
            maps = dict.fromkeys(number for operator in operators for number in operator.maps)
            elsewhere = {n for other, item in _items(groups) if other != level for n in reads_of(item)}
            elsewhere.add(graph.result)
            inputs = [number for number in maps if number not in set(written)]
            outputs = [number for number in written if number in elsewhere]
            self._steps.append(GraphExecutor(operators, shapes, inputs, outputs))  # type: ignore[arg-type]

    def run(self, tensors: Sequence[Tensor]) -> Tensor:
        graph = self._graph
        values: dict[int, Tensor] = dict(zip(graph.inputs, tensors, strict=True)) | graph.constants
        for number, (owner, name) in graph.owned.items():
            values[number] = getattr(owner, name)
        for step in self._steps:
            if isinstance(step, Call):
                result = step.function(
                    *replace_values(step.arguments, values.__getitem__),
                    **replace_values(step.keywords, values.__getitem__),
                )
                values.update(zip(step.writes, tensors_of(result), strict=True))
            else:
                inputs, parameters, constants = (
                    [values[number] for number in numbers] for numbers in (step.inputs, step.parameters, step.constants)
                )
                values.update(zip(step.outputs, step.run(inputs, parameters, constants), strict=True))
        return values[graph.result]


def _levels(items: Sequence[Call | Operator]) -> dict[int, list[Call | Operator]]:
    """Items by level: torch calls on even levels, operators on odd ones, each at the lowest level after its inputs."""
    levels: dict[int, int] = {}
    groups: dict[int, list[Call | Operator]] = {}
    for item in items:
        parity = int(isinstance(item, Operator))
        level = parity
        for number in reads_of(item):
            if number in levels:
                below = levels[number]
                level = max(level, below if below % 2 == parity else below + 1)
        levels |= dict.fromkeys(writes_of(item), level)
        groups.setdefault(level, []).append(item)
    return groups


def _items(groups: dict[int, list[Call | Operator]]) -> list[tuple[int, Call | Operator]]:
    return [(level, item) for level, group in groups.items() for item in group]


def _fits(tensors: Sequence[Tensor]) -> bool:
    """Whether the compiled layers support these arguments in the current mode."""
    on_host = all(t.device.type == "cpu" and (t.dtype == torch.float32 or not t.is_floating_point()) for t in tensors)
    return bool(tensors) and on_host and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()


def _log_once(message: str) -> None:
    """Log a message, once per process."""
    if message not in _logged:
        _logged.add(message)
        log.info("%s", message)
