"""A table with every kind of row, and a name with all special characters."""

from __future__ import annotations

import math

import pytest

from results.table import Cell, Column, Comparison, Row, Section, Source, Table, ranked

HOSTILE = r"a_b%c&d#e$f{g}h~i^j\k <script>alert(1)</script> |*`x`[y] ünï λ 🙂 שלום ∞ '\input{/etc/passwd}'"


@pytest.fixture
def hostile() -> str:
    """A name with the special characters of LaTeX, HTML and Markdown."""
    return HOSTILE


@pytest.fixture
def table(hostile: str) -> Table:
    columns = (
        Column("conditioned_psnr", "PSNR", "Conditioned views", "up", 2),
        Column("novel_psnr", "PSNR", "Novel views", "up", 2),
        Column("novel_lpips", "LPIPS", "Novel views", "down", 3),
    )
    source = Source("0011223344556677", 0, "finished", "f" * 32)
    better = Comparison("base", 1.6, 1.2, 2.0, 0.0001, 0.0004, math.inf, "paired, 3 objects", "better", 0.4)
    unclear = Comparison("base", -1.2, -2.5, 0.1, 0.2, 0.4, -0.5, "paired, 3 objects", "underpowered", 1.9)
    novel = Cell((20.1, 20.3), interval=(19.5, 20.9), reference=21.0)
    trained = (
        Row("base", (Cell((30.0, 31.0)), novel, Cell((0.25, 0.25))), (source,), notes=("a note",)),
        Row(
            hostile,
            (Cell((32.123456789012345,), comparison=better), Cell((19.0,), comparison=unclear), Cell((0.1,))),
            (source,),
            group="Input & _x_",
        ),
        Row("published row", (Cell(), Cell(reference=21.76), Cell(reference=0.203)), group="Input & _x_"),
        Row("gone", (Cell(), Cell(), Cell()), (Source("k", 0, "failed"),), "failed"),
        Row("partly", (Cell((29.0,)), Cell((math.nan,)), Cell())),
    )
    trivial = (Row("copy_input", (Cell((math.inf,)), Cell((14.0,)), Cell((0.3,))), (source,)),)
    sections = (Section(trained, label="Trained #1"), Section(trivial, ranked=False))
    return ranked(
        Table(
            "auto",
            "Caption with 100 % of it",
            columns,
            sections,
            notes=("Note_1.",),
            citation="Doe & al.",
            remarks=("A finding.",),
        )
    )
