"""`splatsweep bench`: measures the speed of this machine."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer
from rich.table import Table

from sweep.bench import BENCHES
from sweep.commands.common import AsJson, console

Name = Annotated[str, typer.Argument(help=f"What to measure: {', '.join(BENCHES)}.", metavar="NAME")]
Quick = Annotated[bool, typer.Option("--quick", help="Small cases and few rounds, as a test of the benchmark.")]


def bench(name: Name, quick: Quick = False, as_json: AsJson = False) -> None:
    """Measure: medians of interleaved runs, and ratios within one run.

    Example: [bold]splatsweep bench step --json[/]
    """
    from model.registry import resolve

    result = resolve(BENCHES, name, "benchmark")(quick)
    if as_json:
        print(json.dumps(dataclasses.asdict(result), indent=2))
        return
    console.print(", ".join(f"{key} {_cell(value)}" for key, value in result.machine.items() if value is not None))
    for rows in filter(None, (result.rows, result.details)):
        console.print(_table(rows))
    for note in result.notes:
        console.print(note)


def _table(rows: list[dict[str, Any]]) -> Table:
    """A terminal table with numbers aligned to the right and text to the left."""
    table = Table(box=None, pad_edge=False)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        table.add_column(column, justify="left" if isinstance(rows[0].get(column), str) else "right")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    return table


def _cell(value: Any) -> str:
    """A number with three significant digits, or a text."""
    if value is None:
        return ""
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:.0f}"
        if isinstance(value, float)
        else f"{value}"
    )
