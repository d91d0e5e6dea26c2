"""One row per trial, with everything that must be said about it."""

from __future__ import annotations

from pkgutil import resolve_name

import pandas as pd
import pytest

from results.load import load_results, load_trials
from results.table import Table
from results.tables import TABLES
from results.tables.auto import build


@pytest.fixture(scope="module")
def table(study, sweep) -> Table:
    return build(load_results(sweep, study.home), load_trials(sweep, study.home))


def test_every_registered_builder_makes_a_table(study, sweep) -> None:
    for name, builder in TABLES.items():
        table = resolve_name(builder)(load_results(sweep, study.home), load_trials(sweep, study.home))
        assert isinstance(table, Table), name
        assert table.name == name


def test_rows_follow_the_plan_with_the_trivial_ones_in_a_section_of_their_own(table: Table) -> None:
    trained, trivial = table.sections
    assert [row.label for row in trained.rows] == ["baseline", "depth", "broken"]
    assert [row.label for row in trivial.rows] == ["blank", "copy_input"]
    assert (trained.ranked, trivial.ranked) == (True, False)


def test_columns_are_grouped_by_view_kind(table: Table) -> None:
    assert table.column_groups == [("Conditioned views", 3), ("Novel views", 3)]
    assert [(c.label, c.direction) for c in table.columns[3:]] == [
        ("PSNR", "up"),
        ("SSIM", "up"),
        ("LPIPS", "down"),
    ]


def test_cells_are_means_over_objects_then_seeds(table: Table) -> None:
    baseline = table.rows[0]
    novel_psnr = baseline.cells[3]
    assert novel_psnr.values == pytest.approx((20.0, 21.0))
    assert novel_psnr.mean == pytest.approx(20.5)
    assert novel_psnr.std == pytest.approx(0.5**0.5)
    assert baseline.cells[0].mean == pytest.approx(30.5)
    assert [source.key for source in baseline.sources] == ["a0", "a1"]


def test_depth_is_best_and_equal_columns_stay_unmarked(table: Table) -> None:
    baseline, depth, *_ = table.rows
    assert [cell.rank for cell in depth.cells] == ["best", None, None, "best", None, None]
    assert [cell.rank for cell in baseline.cells] == ["second", None, None, "second", None, None]


def test_a_failed_trial_is_a_row_with_its_state(table: Table) -> None:
    broken = table.rows[2]
    assert broken.is_empty
    assert broken.state == "failed"


def frames(states: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    trials = pd.DataFrame(
        {
            "trial": "base",
            "names": [("base", "twin")] * len(states),
            "key": [f"k{seed}" for seed in range(len(states))],
            "seed": range(len(states)),
            "control": False,
            "state": states,
            "note": "",
            "run_id": None,
        }
    )
    finished = [seed for seed, state in enumerate(states) if state == "finished"]
    results = pd.DataFrame(
        {
            "trial": "base",
            "key": [f"k{seed}" for seed in finished],
            "seed": finished,
            "split": "test",
            "object": "o",
            "view_kind": "novel",
            "metric": "psnr",
            "value": [20.0 + seed for seed in finished],
        }
    )
    return results, trials


def test_an_incomplete_seed_set_is_marked() -> None:
    (row,) = build(*frames(["finished", "failed", "finished", "pending"])).rows
    assert row.cells[3].values == (20.0, 22.0)
    assert row.notes[0] == "2 of 4 seeds: failed (seed 1), pending (seed 3)."


def test_names_folded_onto_a_row_are_mentioned() -> None:
    (row,) = build(*frames(["finished"])).rows
    assert row.notes == ("The same configuration as twin.",)


def test_without_any_seed_the_states_are_listed() -> None:
    (row,) = build(*frames(["failed", "pending", "pending"])).rows
    assert row.state == "failed (seed 0), pending (seeds 1, 2)"
    assert row.is_empty


def test_a_nan_among_the_objects_is_not_averaged_away() -> None:
    results, trials = frames(["finished"])
    results = pd.concat([results, results.assign(object="p", value=float("nan"))])
    (row,) = build(results, trials).rows
    assert row.cells[3].mean != row.cells[3].mean


def test_an_empty_plan_makes_an_empty_table() -> None:
    results, trials = frames([])
    assert build(results, trials).rows == ()
