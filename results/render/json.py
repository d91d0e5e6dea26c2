"""Table -> JSON with provenance: every number with the seeds, keys and MLflow runs behind it."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from results.table import Cell, Column, Row, Section, Table, rounded


def render(table: Table) -> str:
    """Strict JSON: values that are not finite are the strings "inf", "-inf" and "nan"."""
    content = {
        "name": table.name,
        "caption": table.caption,
        "citation": table.citation,
        "columns": [dataclasses.asdict(column) for column in table.columns],
        "rows": [_row(row, section, table.columns) for section in table.sections for row in section.rows],
        "notes": table.legend,
        "remarks": list(table.remarks),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _row(row: Row, section: Section, columns: tuple[Column, ...]) -> dict[str, Any]:
    return {
        "label": row.label,
        "name": row.name or row.label,
        "group": row.group,
        "section": section.label,
        "ranked": section.ranked,
        "state": row.state,
        "notes": list(row.notes),
        "sources": [dataclasses.asdict(source) for source in row.sources],
        "cells": {column.name: cell_as_json(cell, column) for cell, column in zip(row.cells, columns, strict=True)},
    }


def cell_as_json(cell: Cell, column: Column) -> dict[str, Any]:
    """Everything that a cell holds; fit for strict JSON."""
    if cell.text:
        return {"text": cell.text}
    found = cell.comparison
    return {
        "text": None if cell.mean is None else rounded(cell.mean, column.precision),
        "mean": _finite(cell.mean),
        "std": _finite(cell.std),
        "interval": None if cell.interval is None else [_finite(end) for end in cell.interval],
        "n": cell.n,
        "values": [_finite(value) for value in cell.values],
        "rank": cell.rank,
        "reference": cell.reference,
        "comparison": found and {name: _finite(value) for name, value in dataclasses.asdict(found).items()},
    }


def _finite(value: Any) -> Any:
    """As it is, or the word for a number that is not finite."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
