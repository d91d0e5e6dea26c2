"""HTML: every number of a table, its marks and its comparisons, as a reader and as a sorting browser find them."""

from __future__ import annotations

import html
import re
from dataclasses import replace

from results.render.html import render_table
from results.table import Cell, Column, Comparison, Row, Section, Table


def lines(page: str) -> list[list[str]]:
    """The texts of the cells of each line, those for screen readers included."""
    rows = re.findall("<tr.*?</tr>", page, re.DOTALL)
    cells = [re.findall("<t[dh].*?</t[dh]>", row, re.DOTALL) for row in rows]
    return [[" ".join(html.unescape(re.sub("<[^>]+>", "", cell)).split()) for cell in row] for row in cells]


def test_numbers_with_their_marks_spreads_and_published_values(table: Table, hostile: str) -> None:
    assert lines(render_table(table))[:9] == [
        ["", "Trial", "Conditioned views", "Novel views"],
        ["PSNR (higher is better)", "PSNR (higher is better)", "LPIPS (lower is better)"],
        ["Trained #1"],
        [
            "",
            "basea",
            "30.50 (second best) ± 0.71",
            "20.20 (best) ± 0.14, published 21.00 (−0.80)",
            "0.250 (second best) ± 0.000",
        ],
        ["Input & _x_", hostile, "32.12 (best) (better than the baseline)", "19.00 (second best)", "0.100 (best)"],
        ["published row published", "none", ", published 21.76", ", published 0.203"],
        ["", "gone", "failed"],
        ["", "partly", "29.00", "nan", "none"],
        ["", "copy_input", "∞", "14.00", "0.300"],
    ]


def test_comparisons_with_the_baseline(table: Table, hostile: str) -> None:
    page = render_table(table)
    title = f"Input & _x_: {hostile}"
    assert lines(page)[9:] == [
        ["Trial", "Column", "Difference", "95 % interval", "p", "Effect size", "Verdict", "Detectable"],
        [title, "Conditioned views: PSNR", "+1.600", "1.200 to 2.000", "< 0.001", "∞", "better", "0.400"],
        ["Novel views: PSNR", "−1.200", "−2.500 to 0.100", "0.400", "−0.50", "underpowered", "1.900"],
    ]
    assert "2 comparisons with <bdi>base</bdi>" in page
    single = Comparison("base", 1.0, 0.5, 1.5, 0.01, 0.02, 1.0, "paired t, 3 objects, one seed", "one seed")
    sure = replace(single, verdict="better", minimal_detectable=0.0)
    row = replace(table.rows[0], cells=(Cell((1.0,), comparison=single), Cell((1.0,), comparison=sure), Cell()))
    *_, first, second = lines(render_table(replace(table, sections=(Section((row,)),))))
    assert [line[-2:] for line in (first, second)] == [["one seed", "–"], ["better", "0.000"]]


def test_a_row_without_results_has_its_settings_and_its_state() -> None:
    rows = (
        Row("a", (Cell(text="film"), Cell((1.0,)), Cell((2.0,)))),
        Row("b", (Cell(text="x"), Cell(), Cell()), state="failed"),
    )
    columns = (Column("fusion", "fusion"), Column("psnr", "PSNR"), Column("ssim", "SSIM"))
    *_, found = lines(render_table(Table("t", "", columns, (Section(rows),))))
    assert found == ["b", "x", "failed"]


def test_what_a_browser_sorts_by_and_shows_on_hovering(table: Table) -> None:
    page = render_table(table)
    values = [float(value) for value in re.findall('data-value="([^"]*)"', page)]
    expected = [cell.mean for row in table.rows for cell in row.cells if cell.mean is not None]
    assert list(map(repr, values)) == list(map(repr, expected))
    assert re.findall('data-sort="([^"]*)"', page) == ["up", "up", "down"]
    assert re.findall('title="(95[^"]*)"', page) == ["95 % interval: 19.50 to 20.90"]
