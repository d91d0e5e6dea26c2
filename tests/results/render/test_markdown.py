"""Markdown: a well-formed table of inert text."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from results.render.markdown import escape, render
from results.table import Cell, Row, Table


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


def test_numbers_with_their_marks_spreads_and_published_values(table: Table) -> None:
    negative = Row("negative", (Cell((-1.0,)), Cell((-math.inf,)), Cell()), group="#", notes=("odd_note",))
    first, second = table.sections
    sections = first, replace(second, rows=(*second.rows, negative))
    lines = [re.sub(" +", " ", line) for line in render(replace(table, sections=sections)).splitlines()]
    assert [line for line in (lines[2], *lines[4:13]) if "script" not in line] == [
        "| Trial | Conditioned views: PSNR ↑ | Novel views: PSNR ↑ | Novel views: LPIPS ↓ |",
        r"| *Trained \#1* | — | — | — |",
        "| base<sup>a</sup> | <ins>30.50</ins> ± 0.71 | **20.20** ± 0.14 (published 21.00, −0.80) |"
        " <ins>0.250</ins> ± 0.000 |",
        r"| Input \& \_x\_: published row | – | (published 21.76) | (published 0.203) |",
        "| gone (*failed*) | – | – | – |",
        "| partly | 29.00 | nan | – |",
        "| — | — | — | — |",
        r"| copy\_input | ∞ | 14.00 | 0.300 |",
        r"| \#: negative<sup>b</sup> | −1.00 | −∞ | – |",
    ]
    assert re.fullmatch(r"\| :-+ \|( -+: \|){3}", lines[3]), "names to the left, numbers to the right"
    assert r"Note\_1. Published values: Doe \& al., with" in lines[14]
    assert {"<sup>a</sup> a note", r"<sup>b</sup> odd\_note"} <= set(lines)
    assert "| −1.200 | −2.500 to 0.100 | 0.400 | −0.50 | underpowered |" in lines[-1]


def test_punctuation_that_could_be_markup_is_escaped() -> None:
    """A dollar sign begins mathematics on GitHub, an at sign a mention."""
    special = r"\`*_{}[]<>#|~$&!@"
    assert escape(special) == "".join("\\" + sign for sign in special)
    assert escape("a -  b=1.5\nc") == "a - b=1.5 c"


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
