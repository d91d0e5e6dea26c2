"""Table -> JSON with provenance: every number with the seeds, keys and MLflow runs behind it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
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
    return as_json(content) + "\n"


def as_json(content: Any) -> str:
    """Plain values as strict JSON, which has no numbers that are not finite: they become words."""
    return json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)


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
    """Everything that a cell holds."""
    if cell.text:
        return {"text": cell.text}
    found = cell.comparison
    return {
        "text": None if cell.mean is None else rounded(cell.mean, column.precision),
        "mean": cell.mean,
        "std": cell.std,
        "interval": cell.interval,
        "n": cell.n,
        "values": cell.values,
        "rank": cell.rank,
        "reference": cell.reference,
        "comparison": found and dataclasses.asdict(found),
    } | ({"sources": [dataclasses.asdict(source) for source in cell.sources]} if cell.sources else {})


def _finite(value: Any) -> Any:
    """The same values, with the word for each number that is not finite."""
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
