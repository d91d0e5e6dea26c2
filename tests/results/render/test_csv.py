"""CSV: a round trip at full precision."""

from __future__ import annotations

import csv
import io
import math

from results.render.csv import render
from results.table import Table


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


def test_intervals_references_and_verdicts_have_columns_of_their_own(table: Table) -> None:
    base, named, published, *_ = csv.DictReader(io.StringIO(render(table)))
    assert [float(base[f"novel_psnr_{part}"]) for part in ("low", "high", "reference")] == [19.5, 20.9, 21.0]
    assert named["conditioned_psnr_verdict"] == "better"
    assert float(named["conditioned_psnr_p_adjusted"]) == 0.0004
    assert (published["novel_psnr"], published["novel_psnr_reference"]) == ("", "21.76")
