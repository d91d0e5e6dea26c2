"""CSV: a round trip at full precision."""

from __future__ import annotations

import csv
import io
import math

from results.render.csv import render
from results.table import Cell, Column, Row, Section, Source, Table


def test_reads_back_exactly(table: Table) -> None:
    rows = list(csv.DictReader(io.StringIO(render(table))))
    assert [row["trial"] for row in rows] == [row.label for row in table.rows]
    for row, original in zip(rows, table.rows, strict=True):
        for column, cell in zip(table.columns, original.cells, strict=True):
            for text, value in ((row[column.name], cell.mean), (row[f"{column.name}_std"], cell.std)):
                assert text == "" if value is None else float(text) == value or math.isnan(value)
    assert [row["ranked"] for row in rows] == ["true"] * 5 + ["false"]
    assert rows[3]["state"] == "failed"
    assert (rows[1]["group"], rows[1]["section"]) == ("Input & _x_", "Trained #1")
    counts = [(row["seeds"], row["planned"], row["keys"]) for row in rows[1:4]]
    assert counts == [("1", "1", "0011223344556677"), ("0", "0", ""), ("0", "1", "k")]


def test_settings_have_one_column_without_statistics() -> None:
    sources = tuple(Source(key, seed, state) for seed, (key, state) in enumerate((("a", "finished"), ("b", "failed"))))
    row = Row("x", (Cell(text="film, 2"), Cell((20.0,))), sources)
    table = Table("t", "", (Column("fusion", "fusion"), Column("psnr", "PSNR")), (Section((row,)),), "Model")
    (line,) = csv.DictReader(io.StringIO(render(table)))
    assert [name for name in line if name.startswith("fusion")] == ["fusion"]
    assert [line[name] for name in ("model", "fusion", "psnr", "seeds", "planned", "keys")] == [
        "x", "film, 2", "20.0", "1", "2", "a b",
    ]  # fmt: skip


def test_intervals_references_and_verdicts_have_columns_of_their_own(table: Table) -> None:
    base, named, published, *_ = csv.DictReader(io.StringIO(render(table)))
    assert [float(base[f"novel_psnr_{part}"]) for part in ("low", "high", "reference")] == [19.5, 20.9, 21.0]
    assert named["conditioned_psnr_verdict"] == "better"
    assert float(named["conditioned_psnr_p_adjusted"]) == 0.0004
    assert (published["novel_psnr"], published["novel_psnr_reference"]) == ("", "21.76")
