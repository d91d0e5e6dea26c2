"""Every registered format shows the whole table."""

from __future__ import annotations

from pkgutil import resolve_name

import pytest

from results.render import RENDERERS
from results.render.html import render_table
from results.table import Cell, Column, Row, Section, Source, Table


@pytest.mark.parametrize("suffix", RENDERERS)
def test_every_format_has_all_rows_and_ends_in_one_newline(suffix: str, table: Table) -> None:
    text = resolve_name(RENDERERS[suffix])(table)
    for expected in ("base", "gone", "failed", "partly", "20.2", "0.25"):
        assert expected in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@pytest.mark.parametrize("renderer", ["results.render.html:render_table", *RENDERERS.values()])
def test_a_row_without_results_says_why_beside_its_published_values(renderer: str) -> None:
    columns = tuple(Column(name, name) for name in ("psnr", "ssim"))
    cells = (Cell(reference=21.5), Cell())
    rows = (
        Row("ours", cells, (Source("k", 7, "failed"),), "failed (seed 7)"),
        Row("theirs", cells, state="published only"),
    )
    text = resolve_name(renderer)(Table("t", "", columns, (Section(rows),)))
    assert text.count("21.5") == 2
    assert "failed (seed 7)" in text


def test_a_part_of_a_page_has_one_header_at_most_that_is_for_all_of_its_rows(table: Table) -> None:
    parts = render_table(table).split("<tbody")[1:]
    assert max(part.count('scope="rowgroup"') for part in parts) == 1
    assert any('scope="row" rowspan="2" class="block"' in part for part in parts)
