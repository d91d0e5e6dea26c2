"""`splatsweep explain`: traces a number in a table back to its runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from sweep.commands.common import DEFAULT_HOME, AsJson, Home, Settings, console, recorded_sweep, user_path

if TYPE_CHECKING:
    from results.explain import Explanation, Origin

TableName = Annotated[str, typer.Argument(help="The table's name, e.g. auto.", metavar="TABLE", show_default=False)]
Sweep = Annotated[Path, typer.Option("--sweep", help="The sweep file of the table.", metavar="FILE", parser=user_path)]
RowLabel = Annotated[
    str,
    typer.Argument(
        help="The row's label, GROUP/LABEL, its trials' name, or one of them: a key, its beginning, or `NAME seed N`.",
        metavar="ROW",
        show_default=False,
    ),
]
ColumnName = Annotated[
    str, typer.Argument(help="The column's name, e.g. novel_psnr.", metavar="COLUMN", show_default=False)
]


def explain(
    table: TableName,
    row: RowLabel,
    column: ColumnName,
    sweep: Sweep = Path("sweep.yaml"),
    home: Home = DEFAULT_HOME,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Trace a number to its runs, seeds, objects, configuration, data fingerprint and commit.

    Example: [bold]splatsweep explain auto baseline novel_psnr --sweep sweep.yaml[/]
    """
    from results import explain as results_explain
    from results.render.json import as_json as strict_json

    with recorded_sweep(sweep, settings, home.absolute()) as checked:
        found = results_explain.explain(checked, home.absolute(), list(map(str, checked.tables)), table, row, column)
        if as_json:
            print(strict_json([_as_json(explanation) for explanation in found]))
            return
        for explanation in found:
            _show(explanation)


def _as_json(explanation: Explanation) -> dict[str, Any]:
    from results.render.json import cell_as_json

    return {
        "table": explanation.table.name,
        "row": explanation.row.name or explanation.row.label,
        "column": explanation.column.name,
        "cell": cell_as_json(explanation.cell, explanation.column),
        "notes": list(explanation.row.notes),
        "origins": [dataclasses.asdict(origin) for origin in explanation.origins],
    }


def _show(explanation: Explanation) -> None:
    from results.provenance import split_common
    from results.records.flat import as_written
    from results.render.layout import column_title
    from results.table import rounded

    cell, column = explanation.cell, explanation.column
    number = cell.text or ("no value" if cell.mean is None else rounded(cell.mean, column.precision))
    spread = "" if cell.std is None else f" ± {rounded(cell.std, column.precision)} over {cell.n} seeds"
    title = f"{explanation.table.name} / {explanation.row.name or explanation.row.label} / {column_title(column)}"
    console.print(Text.assemble((title, "bold"), f": {number}{spread}"))
    for sentence in _sentences(explanation):
        console.print(f"  {sentence}")
    common, _ = split_common([origin.config for origin in explanation.origins])
    for origin in explanation.origins:
        _show_origin(origin, has_others=bool(cell.keys))
    if common:
        console.print("  configuration:")
    for name, value in common.items():
        console.print(f"    {name} = {as_written(value)}")


def _sentences(explanation: Explanation) -> list[str]:
    """Sentences about the interval, the comparison, the published value and the notes."""
    from results.render.layout import probability, signed
    from results.table import rounded

    cell, precision = explanation.cell, explanation.column.precision
    sentences = [f"note: {note}" for note in explanation.row.notes]
    if cell.interval:
        low, high = (rounded(end, precision) for end in cell.interval)
        sentences.append(f"95 % interval: {low} to {high}")
    if (found := cell.comparison) is not None:
        low, high = (rounded(end, precision + 1) for end in (found.low, found.high))
        sentences.append(
            f"against {found.baseline}: {signed(found.difference, precision + 1)} ({low} to {high}), "
            f"p-value {probability(found.p)}, {probability(found.p_adjusted)} after Holm's correction: {found.verdict} "
            f"[{found.test}]"
        )
    if cell.reference is not None:
        source = f", {explanation.table.citation}" if explanation.table.citation else ""
        sentences.append(f"published: {rounded(cell.reference, precision)}{source}")
    return sentences


def _show_origin(origin: Origin, *, has_others: bool) -> None:
    """has_others: whether the values of the cell are known to be of certain trials."""
    lacks = has_others and origin.state == "finished"
    missing = f"{origin.state}, without this value" if lacks else origin.state
    value = missing if origin.value is None else repr(origin.value)
    console.print(f"  seed {origin.seed}: {value}")
    lines = {
        "why": origin.note,
        "key": origin.key,
        "MLflow run": origin.run_id or "none",
        "objects": f"{len(origin.objects)}: {', '.join(origin.objects)}" if origin.objects else "none",
        "data": origin.data_fingerprint or "not recorded",
        "checksum of the data": origin.data_checksum if origin.data_checksum != origin.data_fingerprint else "",
        "commit": origin.commit or "not recorded",
        "arithmetic": ", ".join(f"{name} {value}" for name, value in origin.arithmetic.items()) or "not recorded",
        "evaluated elsewhere": ", ".join(f"{name} {value}" for name, value in origin.evaluation.items()),
        "continues": origin.continued_from,
        "weights": f"the best ones, after iteration {origin.judged_step}" if origin.judged_step else "",
    }
    for name, text in lines.items():
        if text:
            console.print(f"    {name}: {text}")
