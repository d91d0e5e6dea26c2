"""`splatsweep compare`: rows of two sweeps side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from sweep.commands.common import DEFAULT_HOME, Home, console, recorded_sweep, user_path

if TYPE_CHECKING:
    from results import table as results_table

First = Annotated[Path, typer.Argument(help="A sweep file.", metavar="A", show_default=False, parser=user_path)]
Second = Annotated[
    Path,
    typer.Argument(
        help="Another sweep file, planned in the same home.", metavar="B", show_default=False, parser=user_path
    ),
]


def compare(
    first: First,
    second: Second,
    home: Home = DEFAULT_HOME,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...", help="Columns, as tables name them; default: the published metrics.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write it: .md, .html, .tex, _wide.tex for both columns of a page, .csv or .json.",
            show_default=False,
            parser=user_path,
        ),
    ] = None,
) -> None:
    """Compare two sweeps: rows of the same name side by side, with paired tests on common seeds and objects.

    Example: [bold]splatsweep compare before.yaml after.yaml[/]

    Example: [bold]splatsweep compare a.yaml b.yaml --columns novel_psnr,cost_predict_ms --out both.tex[/]
    """
    from results.compare import DEFAULT
    from results.compare import compare as compared
    from results.load import read_evidence
    from results.render import comparison

    home = home.absolute()
    write = comparison.writer(out) if out is not None else None
    sides = []
    for path in (first, second):
        with recorded_sweep(path, None, home) as sweep:
            sides.append(read_evidence(sweep, home))
    chosen = tuple(name.strip() for name in columns.split(",") if name.strip()) if columns is not None else DEFAULT
    table = compared(sides[0], sides[1], home, chosen)
    for start in range(0, len(table.columns), 3):
        console.print(_quantity(table, start))
    for sentence in _sentences(table):
        console.print(Text(sentence, style="dim"))
    if write is not None:
        console.print(f"Written: {write(table)}", markup=False)


def _sentences(table: results_table.Table) -> list[str]:
    """Explanations of the numbers, without the legend of marks, which a terminal does not show."""
    is_tested = any(cell.comparison for row in table.rows for cell in row.cells)
    corrected = [f"p is after Holm's correction over {table.families}."] if is_tested else []
    return [*corrected, *table.notes, *(f"{marker} {note}" for note, marker in table.footnotes.items())]


def _quantity(table: results_table.Table, start: int) -> Table:
    """One quantity of all rows: both means, the difference with its interval, p and the verdict."""
    from results.render.layout import probability, signed
    from results.table import rounded

    first, second, change = table.columns[start : start + 3]
    shown = Table(title=first.group, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("row", overflow="fold")
    for label in (first.label, second.label):
        shown.add_column(label, justify="right", overflow="fold", max_width=12)
    for label in ("difference", "p"):
        shown.add_column(label, justify="right", no_wrap=True)
    shown.add_column("verdict", overflow="fold")
    for row in table.rows:
        older, newer, difference = row.cells[start : start + 3]
        marks = f" {table.markers(row)}" if row.notes else ""
        means = ["–" if cell.mean is None else rounded(cell.mean, first.precision) for cell in (older, newer)]
        text = "–" if difference.mean is None else signed(difference.mean, change.precision)
        if difference.mean is not None and difference.interval is not None:
            text += f" ({', '.join(rounded(end, change.precision) for end in difference.interval)})"
        found = newer.comparison
        shown.add_row(
            Text.assemble(row.label, (marks, "dim")), *means, text,
            probability(found.p_adjusted) if found else "", Text(found.verdict if found else ""),
        )  # fmt: skip
    return shown
