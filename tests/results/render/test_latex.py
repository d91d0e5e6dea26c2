"""LaTeX: the paper's layout, inert text, and a document that compiles."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from results.render.latex import escape, render, render_standalone, render_wide
from results.table import Cell, Column, Row, Section, Table
from tests.latex import text_of, typeset


def test_has_the_papers_layout(table: Table) -> None:
    text = render(table)
    lines = text.splitlines()
    assert r" &  & \multicolumn{2}{c}{Conditioned views} & \multicolumn{4}{c}{Novel views} \\" in lines
    assert r"\cmidrule(lr){3-4} \cmidrule(lr){5-8}" in lines
    numbers = r"S[table-format=2.2]@{\,}l" * 2 + r"S[table-format=1.3]@{\,}l"
    assert rf"\begin{{tabular}}{{ll{numbers}}}" in lines
    base = (
        r"\multicolumn{2}{l}{base\textsuperscript{a}} & {\underline{\tablenum[table-format=2.2]{30.50}}} & "
        r"{\scriptsize$\pm$\,0.71} & \bfseries 20.20 & {\scriptsize$\pm$\,0.14} & "
        r"{\underline{\tablenum[table-format=1.3]{0.250}}} & {\scriptsize$\pm$\,0.000} \\"
    )
    assert base in lines
    assert r"\multicolumn{2}{l}{gone} & \multicolumn{6}{c}{\emph{failed}} \\" in lines
    assert r"\multicolumn{2}{l}{partly} & 29.00 & & {nan} & & {--} & \\" in lines
    assert r"\multicolumn{2}{l}{copy\_input} & {$\infty$} & & 14.00 & & 0.300 & \\" in lines
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 2, 1]
    assert r"\textsuperscript{a}\,a note" in text
    assert r"\multicolumn{8}{l}{\emph{Trained \#1}} \\" in lines
    assert r"\bfseries 32.12 & \textsuperscript{*}" in text


def test_published_values_stand_below_ours_with_the_difference(table: Table) -> None:
    lines = render(table).splitlines()
    published = [line for line in lines if "published" in line and "&" in line and "Doe" not in line]
    assert r"\footnotesize 21.00 & {\scriptsize($-$0.80)}" in published[0]
    assert r"published row (published) &  & & \footnotesize 21.76 &" in published[1]
    assert any(line.startswith(r"\multirow{2}{*}{Input \& \_x\_}") for line in lines)
    assert "Doe \\& al." in lines[-3]
    assert "A finding." in lines[-3]


def test_text_columns_take_one_column_before_the_state() -> None:
    columns = (Column("fusion", "fusion"), Column("psnr", "PSNR", direction="up"))
    rows = (Row("a", (Cell(text="x_attn"), Cell((20.0,)))), Row("b", (Cell(text="input"), Cell()), state="failed"))
    text = render(Table("t", "", columns, (Section(rows),)))
    assert r"\begin{tabular}{llS[table-format=2.2]@{\,}l}" in text
    assert r"a & x\_attn & 20.00 & \\" in text
    assert r"b & input & \multicolumn{2}{c}{\emph{failed}} \\" in text


@pytest.mark.parametrize(
    ("cells", "number_format"),
    [
        ((Cell((9.996,)), Cell((1.0,))), "2.2"),
        ((Cell((9.0,)), Cell((-10.5,))), "-2.2"),
        ((Cell((9.0,), reference=123.4), Cell((math.inf,))), "3.2"),
        ((Cell((math.nan,)), Cell()), "1.2"),
    ],
)
def test_columns_are_as_wide_as_their_widest_number(cells: tuple[Cell, ...], number_format: str) -> None:
    rows = tuple(Row("r", (cell,)) for cell in cells)
    text = render(Table("t", "", (Column("psnr", "PSNR"),), (Section(rows),)))
    assert rf"\begin{{tabular}}{{lS[table-format={number_format}]@{{\,}}l}}" in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("_%&#${}", r"\_\%\&\#\$\{\}"),
        ("~^\\", r"\textasciitilde{}\textasciicircum{}\textbackslash{}"),
        ("<a|b>", r"\textless{}a\textbar{}b\textgreater{}"),
        ("λ=0.1", r"\ensuremath{\lambda}=0.1"),
        ("Ω", r"\ensuremath{\Omega}"),
        ("a--b ---c – d", "a-{}-b -{}-{}-c -- d"),
        ("-–-", "-{}--{}-"),
        ("ễ ệ ṡ ǐ", r"\~{\^{e}} \d{\^{e}} \.{s} \v{\i}"),
        ("u\u0308ber café", "über café"),
        ("\N{SLIGHTLY SMILING FACE}ą\n", "{[}U+1F642{]}{[}U+0105{]} "),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_notes_break_behind_punctuation_but_not_within_an_accent(table: Table) -> None:
    text = render(replace(table, remarks=("lr=ṅ.ȳ",)))
    assert r"lr=\allowbreak{}\.{n}.\allowbreak{}\={y}" in text


def test_text_cannot_issue_commands(hostile: str) -> None:
    assert "\\input" not in escape(hostile)


def written(document: str, folder: Path) -> Path:
    """The file `table.tex` with a document."""
    (folder / "table.tex").write_text(document, encoding="utf-8")
    return folder / "table.tex"


def compiled(table: Table, folder: Path) -> list[str]:
    """Lines of the page that pdflatex makes of a table, with single spaces."""
    typeset(written(render_standalone(table), folder))
    return [" ".join(line.split()) for line in text_of(folder / "table.pdf").splitlines()]


def test_compiles_as_it_is_with_inert_names(table: Table, tmp_path: Path) -> None:
    text = "\n".join(compiled(table, tmp_path))
    assert "c&d#e$f{g}h" in text
    assert r"j\k <script>alert(1)</script> |*`x`[y]" in text


def test_letters_with_any_accents_compile(tmp_path: Path) -> None:
    accented = "".join(map(chr, (*range(0xC0, 0x250), *range(0x1E00, 0x1F00))))
    row = Row(accented, (Cell((1.0,)),))
    compiled(Table("t", "", (Column("psnr", "PSNR"),), (Section((row,)),)), tmp_path)


def test_the_page_has_every_row(table: Table, hostile: str, tmp_path: Path) -> None:
    rows = tuple(replace(row, label="variant" if row.label == hostile else row.label) for row in table.sections[0].rows)
    lines = compiled(replace(table, sections=(replace(table.sections[0], rows=rows), table.sections[1])), tmp_path)
    for expected in (
        "basea 30.50 ± 0.71 20.20 ± 0.14 0.250 ± 0.000",
        "published 21.00 (−0.80)",
        "gone failed",
        "partly 29.00 nan –",
        "∞ 14.00 0.300",
    ):
        assert any(line.endswith(expected) for line in lines), expected
    assert any(line.startswith("published row (published)") and line.endswith("21.76 0.203") for line in lines)
    assert any("variant" in line and "32.12" in line and line.endswith("19.00 0.100") for line in lines)


def wide_table(columns: int, label: str) -> Table:
    """A table of `columns` metrics of two rows, and a long note with a long name in it."""
    heads = tuple(Column(f"novel_{index}", "PSNR", "Novel views", "up") for index in range(columns))
    row = Row(
        label, tuple(Cell((20.0, 21.0)) for _ in heads), notes=("Like train.stages.0.losses.edge_published=0.01. " * 5,)
    )
    return Table(
        f"wide_{columns}", "A caption of some length. " * 3, heads, (Section((row, row)),), notes=("Long. " * 40,)
    )


@pytest.mark.parametrize("columns", [1, 2], ids=["one column", "two columns"])
def test_tables_of_any_width_fit_their_columns_with_notes_as_wide(columns: int, tmp_path: Path) -> None:
    tables = [
        wide_table(1, "a"),
        wide_table(3, "full"),
        wide_table(6, "encoder=dinov2_vitl14_reg_lc"),
        wide_table(12, "b"),
    ]
    body = "".join(renderer(table) for table in tables for renderer in (render, render_wide))
    kind = "twocolumn" if columns == 2 else "onecolumn"
    head = rf"\documentclass[10pt,{kind}]{{article}}\usepackage{{booktabs,graphicx,multirow,siunitx}}"
    # In each box of notes: the widths of the table before it is shrunk, and of the notes.
    room = r"\typeout{WIDTHS \the\columnwidth\space\the\textwidth}"
    report = r"\typeout{WIDTHS \the\wd\splatsweeptable\space\the\hsize}"
    told = body.replace(r"\end{minipage}", rf"{report}\end{{minipage}}")
    printed = typeset(written(rf"{head}\begin{{document}}{room}{told}\end{{document}}", tmp_path))
    assert "Overfull" not in printed
    assert "LaTeX Error" not in printed
    widths = [
        [float(width.removesuffix("pt")) for width in line.split()[1:]]
        for line in printed.splitlines()
        if line.startswith("WIDTHS")
    ]
    (column, page), *boxes = widths
    assert len(boxes) == 2 * len(tables)
    for index, (table, notes) in enumerate(boxes):
        assert notes == pytest.approx(min(max(table, 136.0), page if index % 2 else column), abs=1.5)
    warnings = printed.replace("\n", "")
    assert "or more, and shrunk: wide_12_wide.tex spans all columns of the page" in warnings
    assert "wide_1_wide.tex" not in warnings
