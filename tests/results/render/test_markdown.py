"""Markdown: a well-formed table of inert text."""

from __future__ import annotations

from results.render.markdown import render
from results.table import Table


def test_rows_have_equal_cells_and_escaped_text(table: Table) -> None:
    text = render(table)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4 + 1 + 1
    unescaped = [line.replace(r"\\", "").replace(r"\|", "") for line in rows]
    assert {line.count("|") for line in unescaped} == {5}
    assert r"\<script\>" in text
    assert "<script>" not in text
    assert "**20.20** ± 0.14" in text
    assert "<ins>30.50</ins>" in text
