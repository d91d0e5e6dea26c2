"""Table -> Markdown as GitHub reads it, aligned so that the source can be read as well."""

from __future__ import annotations

import re

from results.render.layout import (
    ComparedRow,
    below,
    column_title,
    compared_rows,
    effect_size,
    probability,
    signed,
    signed_difference,
)
from results.table import ARROWS, Cell, Column, Row, Table, rounded

# Punctuation that could start markup, a table cell or an HTML tag.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~$&!@])")
# What would begin an item of a list.
_ITEM = re.compile(r"^(\d*)([-+.)])(?=\s|$)")


def escape(text: str) -> str:
    """Text on one line, with Markdown's special characters escaped."""
    return _ITEM.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", " ".join(text.split())))


def render(table: Table) -> str:
    """Caption, table, notes, comparisons with the baseline.  A rule between sections becomes a row of dashes."""
    header = [escape(table.row_header), *map(_header, table.columns)]
    body: list[list[str]] = []
    for index, section in enumerate(table.sections):
        if index or section.label:
            body.append([f"*{escape(section.label)}*" if section.label else "—", *["—"] * len(table.columns)])
        body += [_row(row, table) for row in section.rows]
    lines = [escape(table.caption), "", *_aligned(header, body)]
    if sentences := below(table):
        lines += ["", " ".join(map(escape, sentences))]
    for note, marker in table.footnotes.items():
        lines += ["", f"<sup>{marker}</sup> {escape(note)}"]
    if compared := compared_rows(table):
        lines += ["", f"Against {escape(compared[0].found[0][1].baseline)}:", "", *_aligned(*_compared(compared))]
    return "\n".join(lines) + "\n"


def _header(column: Column) -> str:
    text = f"{escape(column.label)} {ARROWS[column.direction]}".strip()
    return f"{escape(column.group)}: {text}" if column.group else text


def _row(row: Row, table: Table) -> list[str]:
    label, markers = escape(f"{row.group}: {row.label}" if row.group else row.label), table.markers(row)
    if markers:
        label += f"<sup>{markers}</sup>"
    cells = [_cell(cell, column) for cell, column in zip(row.cells, table.columns, strict=True)]
    if row.is_empty and not row.is_published_only:
        label += f" (*{escape(row.state)}*)"
    return [label, *cells]


def _cell(cell: Cell, column: Column) -> str:
    if cell.text:
        return escape(cell.text)
    parts = [] if cell.mean is None else [_mean(cell, column)]
    if cell.std is not None:
        parts.append(f"± {rounded(cell.std, column.precision)}")
    if cell.reference is not None:
        difference = signed_difference(cell, column)
        published = f"published {rounded(cell.reference, column.precision)}"
        parts.append(f"({published}, {_sign(difference)})" if difference else f"({published})")
    return " ".join(parts) or "–"


def _mean(cell: Cell, column: Column) -> str:
    assert cell.mean is not None
    text = _sign(rounded(cell.mean, column.precision))
    if cell.rank == "best":
        text = f"**{text}**"
    elif cell.rank == "second":
        text = f"<ins>{text}</ins>"
    return text + r"\*" * bool(cell.comparison and cell.comparison.is_significant)


def _sign(number: str) -> str:
    return number.replace("inf", "∞").replace("-", "−")


def _compared(compared: list[ComparedRow]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table of comparisons."""
    header = ["Row", "Column", "Difference", "95 % interval", "p (Holm)", "Effect size", "Verdict"]
    lines = [
        [
            escape(line.title),
            escape(column_title(column)),
            _sign(signed(found.difference, column.precision + 1)),
            _sign(f"{rounded(found.low, column.precision + 1)} to {rounded(found.high, column.precision + 1)}"),
            probability(found.p_adjusted),
            _sign(effect_size(found)),
            found.verdict,
        ]
        for line in compared
        for column, found in line.found
    ]
    return header, lines


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
