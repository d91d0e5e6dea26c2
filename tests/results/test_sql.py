"""Statements that every database accepts."""

from __future__ import annotations

import math

import pytest
from sqlalchemy import Select
from sqlalchemy.dialects import mssql

from results.sql import SqlReader


def test_flags_of_nan_are_read_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def rows(_: SqlReader, query: Select) -> list[tuple[object, ...]]:
        asked.append(str(query.compile(dialect=mssql.dialect())))
        return [("run", "psnr", 1, 0.0, 5, True), ("run", "psnr", 2, math.pi, 6, False)]

    monkeypatch.setattr(SqlReader, "_rows", rows)
    points = SqlReader("mssql+pyodbc://server/mlflow").histories(["run"], ["psnr"])
    assert points == [("run", "psnr", 1, None, 5), ("run", "psnr", 2, math.pi, 6)]
    assert "CASE" not in asked[0]
