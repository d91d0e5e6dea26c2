"""Table -> Markdown as GitHub reads it, aligned so that the source can be read as well."""

from __future__ import annotations

import re

from results.table import ARROWS, Cell, Column, Row, Table, rounded

# Punctuation that could start markup, a table cell or an HTML tag.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~$&!@])")


def escape(text: str) -> str:
    """Text on one line without a meaning in Markdown."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def render(table: Table) -> str:
    """Caption, table, notes.  A rule between sections becomes a row of dashes."""
    header = [escape(table.row_header), *map(_header, table.columns)]
    body: list[list[str]] = []
    for index, section in enumerate(table.sections):
        if index:
            body.append(["—"] * len(header))
        body += [_row(row, table) for row in section.rows]
    lines = [escape(table.caption), "", *_aligned(header, body)]
    if table.legend:
        lines += ["", " ".join(map(escape, table.legend))]
    for note, marker in table.footnotes.items():
        lines += ["", f"<sup>{marker}</sup> {escape(note)}"]
    return "\n".join(lines) + "\n"


def _header(column: Column) -> str:
    text = f"{escape(column.label)} {ARROWS[column.direction]}".strip()
    return f"{escape(column.group)}: {text}" if column.group else text


def _row(row: Row, table: Table) -> list[str]:
    label, markers = escape(row.label), table.markers(row)
    if markers:
        label += f"<sup>{markers}</sup>"
    if row.is_empty:
        return [label, f"*{escape(row.state)}*", *[""] * (len(table.columns) - 1)]
    return [label, *(_cell(cell, column) for cell, column in zip(row.cells, table.columns, strict=True))]


def _cell(cell: Cell, column: Column) -> str:
    if cell.mean is None:
        return "–"
    text = rounded(cell.mean, column.precision).replace("inf", "∞")
    if cell.rank == "best":
        text = f"**{text}**"
    elif cell.rank == "second":
        text = f"<ins>{text}</ins>"
    return text if cell.std is None else f"{text} ± {rounded(cell.std, column.precision)}"


def _aligned(header: list[str], body: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]

    def line(cells: list[str]) -> str:
        first, *rest = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *rest])} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return [line(header), line(rule), *map(line, body)]
