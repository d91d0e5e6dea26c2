"""CSV: full precision, back and forth."""

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
    assert [row["ranked"] for row in rows] == ["true"] * 4 + ["false"]
    assert rows[2]["state"] == "failed"
