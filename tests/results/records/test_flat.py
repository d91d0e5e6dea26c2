"""Flat configurations, and how their values read."""

from __future__ import annotations

from typing import Any

import pytest

from results.records.flat import as_written, flatten


def test_lists_of_mappings_have_indices_and_plain_ones_are_values() -> None:
    nested = {"a": {"b": [{"c": 1}, {"c": None}]}, "d": [1, 2], "e": {}}
    assert flatten(nested) == {"a.b.0.c": 1, "a.b.1.c": None, "d": [1, 2], "e": {}}


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (False, "false"), ([1, 2], "[1, 2]"), ((8,), "[8]"), (5e-5, "5e-05"), ("no", "no")],
)
def test_values_read_as_in_a_sweep_file(value: Any, text: str) -> None:
    assert as_written(value) == text
