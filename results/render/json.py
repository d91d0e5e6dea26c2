"""Table -> JSON with provenance: every number with the seeds, keys and MLflow runs behind it."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from results.table import Cell, Column, Row, Table, rounded


def render(table: Table) -> str:
    """Strict JSON: values that are not finite are the strings "inf", "-inf" and "nan"."""
    content = {
        "name": table.name,
        "caption": table.caption,
        "columns": [dataclasses.asdict(column) for column in table.columns],
        "rows": [_row(row, section.ranked, table.columns) for section in table.sections for row in section.rows],
        "notes": table.legend,
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _row(row: Row, ranked: bool, columns: tuple[Column, ...]) -> dict[str, Any]:
    return {
        "label": row.label,
        "ranked": ranked,
        "state": row.state,
        "notes": list(row.notes),
        "sources": [dataclasses.asdict(source) for source in row.sources],
        "cells": {column.name: _cell(cell, column) for cell, column in zip(row.cells, columns, strict=True)},
    }


def _cell(cell: Cell, column: Column) -> dict[str, Any]:
    return {
        "text": None if cell.mean is None else rounded(cell.mean, column.precision),
        "mean": _number(cell.mean),
        "std": _number(cell.std),
        "n": cell.n,
        "values": [_number(value) for value in cell.values],
        "rank": cell.rank,
    }


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
