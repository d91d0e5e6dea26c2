"""`splatsweep choices`: lists the names that each axis of a sweep file may choose from."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from model.fusion import Source
from sweep.commands.common import console

#: axes whose default is chosen by the machine
_AUTO = {"render.backend": "on a GPU the best installed one that supports what the row requires, else cpu"}


def choices(
    axis: Annotated[
        str | None, typer.Argument(help="One axis; none means all.", metavar="KEY", show_default=False)
    ] = None,
) -> None:
    """List the names that each axis may choose from, each with a description and its options.

    These are the axes whose values are names, such as losses, depth models and tables.  `splatsweep schema` has all
    other keys of a sweep file.

    Example: [bold]splatsweep choices depth.model[/]
    """
    from model.registry import UnknownChoiceError

    registries, others = _registries(), {"train.start": _network_rows, "tables": _table_rows}
    axes = (*registries, *others)
    if axis is not None and axis not in axes:
        raise UnknownChoiceError("axis", axis, axes)
    for name in [axis] if axis else axes:
        table = Table(title=name, title_justify="left", box=None, pad_edge=False)
        for heading in ("name", "description", "options (defaults)"):
            table.add_column(heading, overflow="fold")
        for row in others[name]() if name in others else _rows(name, registries[name]):
            table.add_row(*row)
        console.print(table)
        console.print()


def _rows(axis: str, registry: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Name, description and options of each choice."""
    from model.registry import resolve

    if axis in _AUTO:
        yield "auto", _AUTO[axis], ""
    for name in registry:
        found = resolve(registry, name, axis)
        yield name, _summary(found, registry), "\n".join(_options(found, name))


def _network_rows() -> Iterator[tuple[str, str, str]]:
    """Trained networks by the descriptions of their weights."""
    from model.networks import GIVEN_NETWORK, NETWORKS
    from model.weights import fetch_command, find_weight

    for name in NETWORKS:
        yield name, find_weight(name).description, ""
    yield GIVEN_NETWORK, f"{find_weight(GIVEN_NETWORK).description}, stored by `{fetch_command(GIVEN_NETWORK)}`", ""


def _table_rows() -> Iterator[tuple[str, str, str]]:
    """Tables by their captions; their options are set in a table file."""
    from results.tables import TABLES, table_options

    for name in TABLES:
        yield name, " ".join(options.caption for _, options in table_options(name)), ""


def _registries() -> dict[str, Mapping[str, str]]:
    from jobs.data import DATASETS
    from jobs.metrics import METRICS
    from model.context import SOURCES, find_source
    from model.losses import LOSSES
    from model.methods import METHODS
    from model.methods.splatter_image.backbones import BACKBONES
    from model.rasterizers import BACKENDS
    from sweep.run.executors import EXECUTORS
    from sweep.search import PRUNERS, SAMPLERS

    sources = {name: find_source(name) for name in SOURCES}
    return {
        "data.name": DATASETS,
        "model.name": METHODS,
        "model.backbone": BACKBONES,
        **{f"{name}.{source.switch}": source.models for name, source in sources.items()},
        **{f"{name}.fusion": _ways(name) for name in sources},
        "train.stages.*.losses": LOSSES,
        "eval.metrics": METRICS,
        "render.backend": BACKENDS,
        "search.sampler": SAMPLERS,
        "search.pruner": PRUNERS,
        "run.executor": EXECUTORS,
    }


def _ways(source: Source) -> dict[str, str]:
    """The fusions that accept a source of context."""
    from model.fusion import FUSION
    from model.fusion.base import context_type_for
    from model.registry import resolve

    return {name: path for name, path in FUSION.items() if context_type_for(resolve(FUSION, name, "fusion"), source)}


def _summary(choice: Any, registry: Mapping[str, str]) -> str:
    """The first paragraph of a choice's `description` or docstring, or of its module's if that has no other choice."""
    is_alone = sum(path.startswith(f"{choice.__module__}:") for path in registry.values()) == 1
    text = sys.modules[choice.__module__].__doc__ if is_alone else choice.__doc__
    text = getattr(choice, "description", None) or text or ""
    return " ".join(text.split("\n\n")[0].split())


def _options(choice: Any, name: str) -> Iterator[str]:
    """The keys of a choice with their defaults, as a sweep file has them, without the one that makes the choice."""
    from pydantic_core import to_jsonable_python

    from results.records.flat import as_written, flatten

    cls = getattr(choice, "Options", None)
    for key, field in cls.__pydantic_fields__.items() if cls is not None else ():
        if field.is_required():
            yield f"{key}: required"
        elif (default := to_jsonable_python(field.get_default(call_default_factory=True))) != name:
            yield from (f"{part}: {as_written(value)}" for part, value in flatten({key: default}).items())
