"""`splatsweep view`: the rows that it shows."""

from __future__ import annotations

import pytest

from results.records.plan import Plan, PlannedTrial
from sweep.commands.view import MOST_ROWS, chosen_rows


def plan(*trials: tuple[str, int, str]) -> Plan:
    planned = tuple(PlannedTrial(f"{name}{seed}", (name,), seed, {}, state) for name, seed, state in trials)
    return Plan("quick", "2026-03-01T12:00:00+00:00", planned, ())


def test_each_row_is_shown_by_its_first_finished_seed() -> None:
    rows, left_out = chosen_rows(
        plan(("a", 0, "failed"), ("a", 1, "finished"), ("a", 2, "finished"), ("b", 0, "pending")), ()
    )
    assert [trial.key for trial in rows] == ["a1"]
    assert left_out == []


def test_more_rows_than_can_be_seen_are_named() -> None:
    many = plan(*((f"row {index}", 0, "finished") for index in range(MOST_ROWS + 2)))
    rows, left_out = chosen_rows(many, ())
    assert len(rows) == MOST_ROWS
    assert left_out == [f"row {MOST_ROWS}", f"row {MOST_ROWS + 1}"]
    assert [trial.name for trial in chosen_rows(many, [f"*{MOST_ROWS}"])[0]] == [f"row {MOST_ROWS}"]


def test_nothing_to_show_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no finished row of quick matches 'x'; its rows: a \(finished\)"):
        chosen_rows(plan(("a", 0, "finished")), ["a", "x"])
