"""Table -> LaTeX with booktabs and siunitx.  Every piece of text is escaped, so a name cannot inject a command."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from results.render.layout import below, blocks, is_text, leading_text, signed_difference
from results.table import ARROWS, Cell, Column, Row, Table, rounded

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # a straight quotation mark needs an encoding beyond the default one
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after \\ a bracket would start its optional argument
    "]": "{]}",
    "*": "{*}",  # and a star would be part of it
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "·": r"\ensuremath{\cdot}",
    "−": r"\ensuremath{-}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "∞": r"\ensuremath{\infty}",
    "→": r"\ensuremath{\rightarrow}",
    "↑": r"\ensuremath{\uparrow}",
    "↓": r"\ensuremath{\downarrow}",
}
# Letters beyond ASCII that pdflatex sets with its default fonts: these, and ASCII ones with these marks.
_LETTERS = frozenset("ßæøåœÆØÅŒłŁ§¡¿")
_ABOVE = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
}
_BELOW = {"\u0323": "d", "\u0327": "c", "\u0331": "b"}
# All accented letters before this one (of Latin-1 and Latin Extended-A) are declared in LaTeX; later ones are not.
_FIRST_UNDECLARED = 0x180
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)")
# Capitals that look Latin, and omicron, have no command of their own.
_GREEK_SMALL = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi "
    "chi psi omega"
)
_GREEK_CAPITAL = "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
_GREEK_COMMANDS = frozenset(f"{_GREEK_SMALL} {_GREEK_CAPITAL}".split(" "))

_PACKAGES = r"\usepackage{booktabs,graphicx,multirow,siunitx}"
#: a table that is this much wider than its column is too small to read where it is shrunk to fit
_READABLE = 1.4
#: width of the notes below a table that is narrower
_NARROWEST_NOTES = "16em"
_STANDALONE = rf"""\documentclass[a4paper]{{article}}
\usepackage[landscape,margin=12mm]{{geometry}}
{_PACKAGES}
\pagestyle{{empty}}
\begin{{document}}
%s\end{{document}}
"""


def escape(text: str) -> str:
    """Text that LaTeX prints as it is, with pdflatex, xelatex or lualatex and no package.

    A character that the default fonts lack is printed as its code point, `[U+1F600]`.
    """
    # LaTeX would print neighbouring hyphens and dashes as one dash.
    parts = re.split("(?<=[-–—])(?=[-–—])", unicodedata.normalize("NFC", text))
    return "{}".join("".join(map(_character, part)) for part in parts)


def render(table: Table) -> str:
    """A `table` environment: numbers aligned at the decimal point, and beside each column its spreads and stars.

    Where there are published values, each row is followed by one with these and the differences to them.  A table
    that is wider than the column of text is shrunk to its width.
    """
    return _environment(table, "table", f"{table.name}_wide.tex spans all columns of the page")


def render_wide(table: Table) -> str:
    """Like `render`, in a `table*` environment, which spans both columns of a two-column page."""
    return _environment(table, "table*", "turn the page, or choose fewer columns")


def _environment(table: Table, environment: str, hint: str) -> str:
    """hint: what to do, in a warning, where the table is shrunk so much that it cannot be read."""
    layout = _Layout.of(table)
    lines = [
        f"% needs {_PACKAGES}",
        rf"\begin{{{environment}}}[{'t' if environment.endswith('*') else 'ht'}]",
        r"\centering\small",
        r"\sisetup{detect-weight=true,mode=text}",
        r"\setlength{\tabcolsep}{4pt}\setlength{\belowcaptionskip}{6pt}",
        rf"\caption{{{escape(table.caption)}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9-]+', '-', table.name)}}}",
        r"\ifdefined\splatsweeptable\else\newsavebox\splatsweeptable\newlength\splatsweepwidth\fi",
        r"\begin{lrbox}{\splatsweeptable}%",
        rf"\begin{{tabular}}{{{layout.columns}}}",
        r"\toprule",
        *_header(table, layout),
    ]
    for section in table.sections:
        lines.append(r"\midrule")
        if section.label:
            lines.append(
                rf"\multicolumn{{{layout.labels + layout.width()}}}{{l}}{{\emph{{{escape(section.label)}}}}} \\"
            )
        for block in blocks(section.rows):
            lines += _block(block, table, layout)
    lines += [r"\bottomrule", r"\end{tabular}%", r"\end{lrbox}", *_fitted(hint), *_notes(table)]
    return "\n".join([*lines, rf"\end{{{environment}}}"]) + "\n"


def render_standalone(table: Table) -> str:
    """A complete document that compiles without changes."""
    return _STANDALONE % render(table).replace(f"% needs {_PACKAGES}\n", "")


@dataclass(frozen=True)
class _Layout:
    """The columns of the `tabular`: one or two of labels, one for text, two for numbers and what follows them."""

    labels: int
    #: siunitx's formats of the numbers; None for a column of text
    formats: tuple[str | None, ...]
    leading_text: int

    @classmethod
    def of(cls, table: Table) -> _Layout:
        formats = [None if is_text(table, i) else _format(table, i) for i in range(len(table.columns))]
        return cls(1 + any(row.group for row in table.rows), tuple(formats), leading_text(table))

    @property
    def columns(self) -> str:
        kinds = [f"S[table-format={number}]@{{\\,}}l" if number else "l" for number in self.formats]
        return "l" * self.labels + "".join(kinds)

    def width(self, start: int = 0, stop: int | None = None) -> int:
        """Columns of the `tabular` that the table's columns from `start` to `stop` take."""
        return sum(2 if number else 1 for number in self.formats[start:stop])


def _format(table: Table, index: int) -> str:
    """siunitx's description of a column's widest number, such as "-2.3"."""
    precision = table.columns[index].precision
    cells = [row.cells[index] for row in table.rows]
    values = [value for cell in cells for value in (cell.mean, cell.reference) if value is not None]
    texts = [rounded(value, precision) for value in values if math.isfinite(value)] or ["0"]
    digits = max(len(text.lstrip("-").partition(".")[0]) for text in texts)
    return f"{'-' * any(text.startswith('-') for text in texts)}{digits}.{precision}"


def _header(table: Table, layout: _Layout) -> list[str]:
    lines = []
    empty = [""] * layout.labels
    if any(group for group, _ in table.column_groups):
        cells, rules, start, first = empty.copy(), [], 0, layout.labels + 1
        for group, count in table.column_groups:
            width = layout.width(start, start + count)
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
            rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}" if group else "")
            start, first = start + count, first + width
        lines += [" & ".join(cells) + r" \\", " ".join(filter(None, rules))]
    labels = [escape(f"{column.label} {ARROWS[column.direction]}".strip()) for column in table.columns]
    numbers = [
        rf"\multicolumn{{2}}{{c}}{{{label}}}" if kind else label
        for label, kind in zip(labels, layout.formats, strict=True)
    ]
    return [*lines, " & ".join([escape(table.row_header), *empty[1:], *numbers]) + r" \\"]


def _block(rows: Sequence[Row], table: Table, layout: _Layout) -> list[str]:
    """Neighbouring rows of one group, whose label spans them."""
    lines = [line for row in rows for line in _lines(row, table, layout)]
    if layout.labels == 1:
        return [f"{label} & {numbers}" for label, numbers in lines]
    group = rows[0].group
    if not group:
        return [rf"\multicolumn{{2}}{{l}}{{{label}}} & {numbers}" for label, numbers in lines]
    span = rf"\multirow{{{len(lines)}}}{{*}}{{{escape(group)}}}"
    return [f"{'' if index else span} & {label} & {numbers}" for index, (label, numbers) in enumerate(lines)]


def _lines(row: Row, table: Table, layout: _Layout) -> list[tuple[str, str]]:
    """`(label, cells)` of a row, and of one below it with the published values where it has any."""
    label, markers = escape(row.label), table.markers(row)
    if markers:
        label += rf"\textsuperscript{{{markers}}}"
    cells = list(zip(row.cells, table.columns, layout.formats, strict=True))
    published = " & ".join(_published(*cell) for cell in cells) + r" \\"
    if row.is_published_only:
        return [(f"{label} (published)", published)]
    lines = [
        (label, _state(row, cells, layout) if row.is_empty else " & ".join(_cell(*cell) for cell in cells) + r" \\")
    ]
    if any(cell.reference is not None for cell in row.cells):
        lines.append((r"\quad\footnotesize published", published))
    return lines


def _state(row: Row, cells: Sequence[tuple[Cell, Column, str | None]], layout: _Layout) -> str:
    """Cells of a row without numbers: its settings, then its state."""
    text = [_cell(*cell) for cell in cells[: layout.leading_text]]
    width = layout.width(layout.leading_text)
    state = [rf"\multicolumn{{{width}}}{{c}}{{\emph{{{escape(row.state)}}}}}"] if width else []
    return " & ".join([*text, *state]) + r" \\"


def _cell(cell: Cell, column: Column, number_format: str | None) -> str:
    """One cell of text, or two: the mean with its star; the spread."""
    if number_format is None:
        return escape(cell.text)
    if cell.mean is None:
        return "{--} &"
    text = rounded(cell.mean, column.precision)
    number = _number(text)
    if cell.rank == "best":
        number = rf"\bfseries {number}"
    elif cell.rank == "second":
        number = rf"{{\underline{{\tablenum[table-format={number_format}]{{{text}}}}}}}"
    star = r"\textsuperscript{*}" if cell.comparison and cell.comparison.is_significant else ""
    spread = "" if cell.std is None else rf"{{\scriptsize$\pm$\,{rounded(cell.std, column.precision)}}}"
    return f"{number} & {star}{spread}".rstrip()


def _published(cell: Cell, column: Column, number_format: str | None) -> str:
    """As `_cell`, of the published value and of the difference to ours."""
    if number_format is None:
        return ""
    if cell.reference is None:
        return " &"
    number = _number(rounded(cell.reference, column.precision))
    difference = signed_difference(cell, column)
    return rf"\footnotesize {number} & " + (rf"{{\scriptsize({_sign(difference)})}}" if difference else "")


def _number(text: str) -> str:
    """A cell of an S column: numbers as they are, other text in braces."""
    return text if text.lstrip("-").replace(".", "").isdigit() else f"{{{_sign(text)}}}"


def _sign(text: str) -> str:
    """A minus sign for the hyphen, and a symbol for infinity."""
    return text.replace("inf", r"$\infty$").replace("-", "$-$").replace("+", "$+$")


def _fitted(hint: str) -> list[str]:
    """The table in its box, shrunk where it is wider than the line; leaves its width in `\\splatsweepwidth`."""
    return [
        r"\setlength{\splatsweepwidth}{\wd\splatsweeptable}%",
        r"\ifdim\splatsweepwidth>\linewidth",
        rf"\ifdim\splatsweepwidth>{_READABLE}\linewidth",
        rf"\GenericWarning{{}}{{splatsweep: a table is {_READABLE} times as wide as its column or more, and shrunk: "
        rf"{hint}}}%",
        r"\fi",
        r"\setlength{\splatsweepwidth}{\linewidth}%",
        r"\resizebox{\linewidth}{!}{\usebox{\splatsweeptable}}%",
        r"\else",
        r"\usebox{\splatsweeptable}%",
        r"\fi",
    ]


def _notes(table: Table) -> list[str]:
    """The sentences below, in a box as wide as the table."""
    notes = [_breakable(escape(sentence)) for sentence in below(table)]
    notes += [rf"\textsuperscript{{{marker}}}\,{_breakable(escape(note))}" for note, marker in table.footnotes.items()]
    if not notes:
        return []
    return [
        r"\par\smallskip",
        rf"\footnotesize\ifdim\splatsweepwidth<{_NARROWEST_NOTES}",
        rf"\setlength{{\splatsweepwidth}}{{{_NARROWEST_NOTES}}}\fi",
        r"\begin{minipage}{\splatsweepwidth}\raggedright\emergencystretch=2em",
        " ".join(notes),
        r"\end{minipage}",
    ]


def _breakable(text: str) -> str:
    """Escaped text that may be broken within a long name, behind its punctuation."""
    return re.sub(r"(\\_|(?<!\\)[=./:](?=\S))", r"\1\\allowbreak{}", text)


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii():
        return character if character.isprintable() else " "
    if character in _LETTERS:
        return character
    return _accented(character) or _greek(character) or f"{{[}}U+{ord(character):04X}{{]}}"


def _accented(character: str) -> str | None:
    """A letter with marks that LaTeX has commands for; None for another character."""
    decomposed = unicodedata.normalize("NFD", character)
    letter, marks = decomposed[0], decomposed[1:]
    if not (marks and letter.isascii() and letter.isalpha() and set(marks) <= _ABOVE.keys() | _BELOW.keys()):
        return None
    if ord(character) < _FIRST_UNDECLARED:
        return character
    above = [mark for mark in marks if mark in _ABOVE]
    text = rf"\{letter}" if above and letter in "ij" else letter
    # A mark above must be next to its letter; one below may be set around both.
    for mark in (*above, *(mark for mark in marks if mark in _BELOW)):
        text = rf"\{(_ABOVE | _BELOW)[mark]}{{{text}}}"
    return text


def _greek(character: str) -> str | None:
    match = _GREEK.fullmatch(unicodedata.name(character, ""))
    if match is None:
        return None
    name = match[2].lower().replace("lamda", "lambda")
    command = name if match[1] == "SMALL" else name.capitalize()
    return rf"\ensuremath{{\{command}}}" if command in _GREEK_COMMANDS else None
