"""The table of costs: means over seeds, dashes with the remedy, and devices that cannot be compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from results.costs import COSTS, costs_of
from results.table import Table
from results.tables.costs import Options, build
from results.tables.metric_columns import named
from results.tables.row_notes import DEVICES

MEASURED = {"parameters": 2_000_000, "train_s": 120.0, "predict_ms": 10.0, "render_ms": 1.5, "memory_mib": 64.0}


def costing(make, name: str, seed: int = 0, device: str = "CPU, 1 thread", **costs: float):
    """A finished trial with these costs beside those of `MEASURED`."""
    record = make.record(name, seed, {"novel_psnr": [20.0]})
    return replace(record, costs=costs_of({**MEASURED, **costs, "device": device}))


def cells(table: Table, row: int) -> dict[str, float | None]:
    return {column.name: cell.mean for column, cell in zip(table.columns, table.rows[row].cells, strict=True)}


def test_costs_are_means_over_seeds_in_readable_units(make) -> None:
    pending = make.record("late", state="pending")
    found = make.evidence(costing(make, "a"), costing(make, "a", 1, predict_ms=20.0), costing(make, "b"), pending)
    table = build(found, Options())
    assert [column.name for column in table.columns] == [f"cost_{name}" for name in COSTS]
    assert cells(table, 0) == pytest.approx(
        {"cost_parameters": 2.0, "cost_train_min": 2.0, "cost_predict_ms": 15.0, "cost_render_ms": 1.5,
         "cost_memory_mib": 64.0}
    )  # fmt: skip
    times, device = table.notes
    assert (times.startswith("Times exclude"), device) == (True, "Measured on CPU, 1 thread.")
    assert [row.notes for row in table.rows] == [()] * 3
    assert all(cell.rank is None and cell.comparison is None for row in table.rows for cell in row.cells)


@pytest.mark.parametrize(
    ("others", "header", "labels"), [((), "model", ["a", "b"]), (("tv",), "Trial", ["model=a", "model=b", "tv"])]
)
def test_the_points_of_a_grid_are_labelled_by_their_axis(make, others, header: str, labels: list[str]) -> None:
    table = build(make.evidence(*(costing(make, name) for name in ("model=a", "model=b", *others))), Options())
    assert (table.row_header, [row.label for row in table.rows]) == (header, labels)


def test_what_was_not_measured_is_a_dash_and_the_remedy_is_named(make) -> None:
    older = replace(make.record("older", scores={"novel_psnr": [20.0]}), costs=costs_of({"train_s": 60.0}))
    table = build(make.evidence(costing(make, "a"), older), Options())
    assert cells(table, 1) == {
        "cost_parameters": None, "cost_train_min": 1.0, "cost_predict_ms": None, "cost_render_ms": None,
        "cost_memory_mib": None,
    }  # fmt: skip
    assert any(note.startswith("Not measured: older; `splatsweep evaluate SWEEP --costs`") for note in table.notes)
    many = [make.record(f"r{index}", scores={"novel_psnr": [20.0]}) for index in range(7)]
    for count, listed in ((5, "r3, r4;"), (7, "r3, r4 and 2 more;")):
        assert listed in build(make.evidence(*many[:count]), Options()).notes[-1]


def test_rows_of_several_devices_name_theirs(make) -> None:
    found = make.evidence(costing(make, "a"), costing(make, "b", device="NVIDIA H100"))
    table = build(found, Options())
    assert [row.notes for row in table.rows] == [("Measured on CPU, 1 thread.",), ("Measured on NVIDIA H100.",)]
    assert table.notes.count(DEVICES) == 1
    assert not any(note.startswith("Measured") for note in table.notes)


def test_a_cost_is_a_column_of_any_table(make) -> None:
    from results.tables.auto import Options as AutoOptions
    from results.tables.auto import build as build_auto

    options = AutoOptions(columns=["novel_psnr", "cost_predict_ms"])
    table = build_auto(make.evidence(costing(make, "a"), costing(make, "b", predict_ms=7.0)), options)
    assert [cell.mean for cell in table.rows[1].cells] == [20.0, 7.0]
    assert not table.rows[1].notes
    of_two = make.evidence(costing(make, "a"), costing(make, "b", device="NVIDIA H100"))
    table = build_auto(of_two, options)
    assert table.rows[1].notes == ("Measured on NVIDIA H100.",)
    assert DEVICES in table.notes
    table = build_auto(of_two, AutoOptions(columns=["novel_psnr"]))
    assert not table.rows[1].notes
    assert DEVICES not in table.notes
    with pytest.raises(ValueError, match="'cost_electricity' is not a cost; allowed: cost_parameters"):
        named("cost_electricity")


@pytest.mark.parametrize("broken", [{"parameters": "many"}, {"parameters": True}, {"parameters": float("nan")}, {}])
def test_what_is_no_number_is_not_recorded(broken: dict[str, object]) -> None:
    assert costs_of(broken).values == {}
