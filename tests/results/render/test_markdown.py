"""Markdown: a well-formed table of inert text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from results.render.markdown import render
from results.table import Table


def test_rows_have_equal_cells_and_escaped_text(table: Table) -> None:
    text = render(table)
    scores, compared = text.split("Against base:")
    rows = [line for line in scores.splitlines() if line.startswith("|")]
    # Header and rule, two sections of five and one rows, each below its label or a rule.
    assert len(rows) == 2 + (1 + 5) + (1 + 1)
    unescaped = [line.replace(r"\\", "").replace(r"\|", "") for line in rows]
    assert {line.count("|") for line in unescaped} == {5}
    assert r"\<script\>" in text
    assert "<script>" not in text
    assert "**20.20** ± 0.14" in text
    assert "<ins>30.50</ins>" in text
    assert "**20.20** ± 0.14 (published 21.00, −0.80)" in text
    assert r"**32.12**\*" in text
    assert "| +1.600 | 1.200 to 2.000 | < 0.001 | ∞ | better |" in " ".join(compared.split())
    assert "underpowered" in compared


@pytest.mark.parametrize(
    ("caption", "line"),
    [
        ("1. Depth", r"1\. Depth"),
        ("2) Depth", r"2\) Depth"),
        ("- Depth", r"\- Depth"),
        ("+ Depth", r"\+ Depth"),
        ("1.5 dB", "1.5 dB"),
        ("-1 dB", "-1 dB"),
    ],
)
def test_a_caption_begins_no_list(table: Table, caption: str, line: str) -> None:
    assert render(replace(table, caption=caption)).splitlines()[0] == line
