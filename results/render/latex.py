"""Table -> LaTeX with booktabs.  Every piece of text is escaped, so a name cannot inject a command."""

from __future__ import annotations

import re
import unicodedata

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
# Letters beyond ASCII that pdflatex sets with its default fonts: these, and ASCII ones under these accents.
_LETTERS = frozenset("ßæøåœÆØÅŒłŁ§¡¿")
_ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327")
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)")
# Capitals that look Latin, and omicron, have no command of their own.
_GREEK_SMALL = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi "
    "chi psi omega"
)
_GREEK_CAPITAL = "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
_GREEK_COMMANDS = frozenset(f"{_GREEK_SMALL} {_GREEK_CAPITAL}".split(" "))

_STANDALONE = r"""\documentclass{article}
\usepackage{booktabs}
\setlength{\textwidth}{180mm}
\setlength{\oddsidemargin}{-7.4mm}
\pagestyle{empty}
\begin{document}
%s\end{document}
"""


def escape(text: str) -> str:
    """Text that LaTeX prints as it is, with pdflatex, xelatex or lualatex and no package.

    A character that the default fonts lack is printed as its code point, `[U+1F600]`.
    """
    return "".join(map(_character, unicodedata.normalize("NFC", text)))


def render(table: Table) -> str:
    """A `table` environment; its document needs `\\usepackage{booktabs}`."""
    width = len(table.columns)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}[ht]",
        r"\centering\small",
        r"\setlength{\tabcolsep}{4pt}\setlength{\belowcaptionskip}{6pt}",
        rf"\caption{{{escape(table.caption)}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9-]+', '-', table.name)}}}",
        rf"\begin{{tabular}}{{l{'r' * width}}}",
        r"\toprule",
        *_header(table),
    ]
    for section in table.sections:
        lines += [r"\midrule", *(_row(row, table) for row in section.rows)]
    lines += [r"\bottomrule", r"\end{tabular}", *_notes(table), r"\end{table}"]
    return "\n".join(lines) + "\n"


def render_standalone(table: Table) -> str:
    """A document of its own that compiles as it is."""
    return _STANDALONE % render(table)


def _header(table: Table) -> list[str]:
    lines = []
    if any(group for group, _ in table.column_groups):
        cells, rules, first = [""], [], 2
        for group, width in table.column_groups:
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
            rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}" if group else "")
            first += width
        lines += [" & ".join(cells) + r" \\", " ".join(filter(None, rules))]
    labels = [f"{column.label} {ARROWS[column.direction]}".strip() for column in table.columns]
    return [*lines, " & ".join(map(escape, [table.row_header, *labels])) + r" \\"]


def _row(row: Row, table: Table) -> str:
    label, markers = escape(row.label), table.markers(row)
    if markers:
        label += rf"\textsuperscript{{{markers}}}"
    if row.is_empty:
        state = rf"\multicolumn{{{len(table.columns)}}}{{c}}{{\emph{{{escape(row.state)}}}}}"
        return rf"{label} & {state} \\"
    cells = [_cell(cell, column) for cell, column in zip(row.cells, table.columns, strict=True)]
    return " & ".join([label, *cells]) + r" \\"


def _cell(cell: Cell, column: Column) -> str:
    if cell.mean is None:
        return "--"
    text = _number(rounded(cell.mean, column.precision))
    if cell.rank == "best":
        text = rf"\textbf{{{text}}}"
    elif cell.rank == "second":
        text = rf"\underline{{{text}}}"
    if cell.std is not None:
        text += rf"\,{{\scriptsize$\pm$\,{rounded(cell.std, column.precision)}}}"
    return text


def _number(text: str) -> str:
    """A minus sign for the hyphen, and a symbol for infinity."""
    return text.replace("inf", r"$\infty$").replace("-", "$-$")


def _notes(table: Table) -> list[str]:
    notes = [escape(sentence) for sentence in table.legend]
    notes += [rf"\textsuperscript{{{marker}}}\,{escape(note)}" for note, marker in table.footnotes.items()]
    if not notes:
        return []
    return [r"\par\smallskip", r"{\footnotesize\raggedright " + " ".join(notes) + r"\par}"]


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii():
        return character if character.isprintable() else " "
    decomposed = unicodedata.normalize("NFD", character)
    if character in _LETTERS or (decomposed[0].isascii() and set(decomposed[1:]) <= _ACCENTS):
        return character
    return _greek(character) or f"{{[}}U+{ord(character):04X}{{]}}"


def _greek(character: str) -> str | None:
    match = _GREEK.fullmatch(unicodedata.name(character, ""))
    if match is None:
        return None
    name = match[2].lower().replace("lamda", "lambda")
    command = name if match[1] == "SMALL" else name.capitalize()
    return rf"\ensuremath{{\{command}}}" if command in _GREEK_COMMANDS else None
