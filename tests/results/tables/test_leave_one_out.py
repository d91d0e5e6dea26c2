"""The table `leave_one_out`: the effect of each component."""

from __future__ import annotations

import pytest

from results.tables.leave_one_out import Options, build


def test_changes_stand_beside_the_values_seed_by_seed(make) -> None:
    found = make.evidence(
        *make.trained("full", 21.0), *make.trained("without depth", 20.0), *make.trained("something else", 5.0)
    )
    table = build(found, Options())
    assert [row.label for row in table.rows] == ["full", "without depth"]
    assert [column.label for column in table.columns] == ["PSNR", "Δ PSNR", "SSIM", "Δ SSIM", "LPIPS", "Δ LPIPS"]
    assert {column.group for column in table.columns} == {"Novel views"}
    assert [column.direction for column in table.columns] == ["up", None, "up", None, "down", None]
    full, without = table.rows
    assert full.cells[1].values == ()
    assert without.cells[0].mean == pytest.approx(20.0)
    change = without.cells[1]
    assert change.mean == pytest.approx(-1.0)
    assert change.values == pytest.approx(
        [a - b for a, b in zip(without.cells[0].values, full.cells[0].values, strict=True)]
    )
    assert change.interval[0] < -1.0 < change.interval[1]
    assert without.cells[0].comparison.verdict == "worse"


def test_seeds_that_the_full_one_lacks_have_no_change(make) -> None:
    found = make.evidence(*make.trained("full", 21.0, seeds=1), *make.trained("without depth", 20.0, seeds=3))
    without = build(found, Options()).rows[1]
    assert (without.cells[0].n, without.cells[1].n) == (3, 1)


def test_rows_that_are_called_otherwise_first_are_there_too(make) -> None:
    names = {"plain": ("plain", "full"), "no tv": ("no tv", "without tv"), "without edge": ("without edge",)}
    found = make.evidence(*(item for name, all_ in names.items() for item in make.trained(name, 20.0, names=all_)))
    assert [row.label for row in build(found, Options()).rows] == list(names)


def test_a_sweep_without_such_trials_has_a_note(make) -> None:
    table = build(make.evidence(*make.trained("baseline", 21.0)), Options())
    assert table.rows == ()
    assert "no trials called `without ...`" in table.notes[0]
