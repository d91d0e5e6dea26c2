"""Every registered format shows the whole table."""

from __future__ import annotations

from pkgutil import resolve_name

import pytest

from results.render import RENDERERS
from results.render.html import render_table
from results.table import Table


@pytest.mark.parametrize("suffix", RENDERERS)
def test_every_format_has_all_rows_and_ends_in_one_newline(suffix: str, table: Table) -> None:
    text = resolve_name(RENDERERS[suffix])(table)
    for expected in ("base", "gone", "failed", "partly", "20.2", "0.25"):
        assert expected in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_a_part_of_a_page_has_one_header_at_most_that_is_for_all_of_its_rows(table: Table) -> None:
    parts = render_table(table).split("<tbody")[1:]
    assert max(part.count('scope="rowgroup"') for part in parts) == 1
    assert any('scope="row" rowspan="2" class="block"' in part for part in parts)
