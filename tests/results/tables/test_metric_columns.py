"""Metric columns: their usual format, and what a table file changes of it."""

from __future__ import annotations

import pytest

from results.tables.metric_columns import named, quantity


def test_a_known_metric_has_its_usual_format() -> None:
    found = named("novel_lpips")
    assert (found.name, found.column.label, found.column.group) == ("novel_lpips", "LPIPS", "Novel views")
    assert (found.column.direction, found.column.precision, found.relevant) == ("down", 3, 0.01)
    assert quantity("conditioned", "psnr", category="car").column.label == "PSNR (car)"


def test_an_unknown_metric_has_its_name_and_no_direction() -> None:
    found = quantity("novel", "chamfer")
    assert (found.column.label, found.column.direction, found.column.precision) == ("chamfer", None, 3)
    assert found.relevant is None


@pytest.mark.parametrize("metric", ["psnr", "chamfer"])
def test_what_is_given_replaces_it(metric: str) -> None:
    given = {"label": "", "group": "", "direction": "down", "precision": 0, "relevant": 5.0}
    found = quantity("novel", metric, **given)
    shown = found.column
    assert (shown.label, shown.group, shown.direction, shown.precision, found.relevant) == tuple(given.values())
