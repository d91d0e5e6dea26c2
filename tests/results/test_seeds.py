"""Rulings on rows whose seeds are added, from the scores of each seed."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from results.metrics import Direction
from results.records.plan import Ruling
from results.seeds import SeedScores, described, rulings
from results.sequential import Design

DESIGN = Design(3, 5)
BASELINE = (20.0, 20.3, 19.8, 20.1, 19.9)
HIGHER = (25.01, 25.3, 24.8, 25.2, 24.9)


def ruling(row: SeedScores, baseline: SeedScores = BASELINE, direction: Direction = "up") -> Ruling:
    (found,) = rulings(DESIGN, direction, baseline, {"row": row})
    return found


def test_a_ruling_is_the_paired_t_test_with_an_interval_at_its_boundary() -> None:
    found = ruling(HIGHER)
    test = stats.ttest_rel(HIGHER[:3], BASELINE[:3])
    assert (found.seeds, found.wanted, found.boundary) == (3, 3, DESIGN.boundaries(1)[0])
    assert found.t == pytest.approx(test.statistic)
    half = found.boundary * found.difference / found.t
    assert (found.low, found.high) == pytest.approx((found.difference - half, found.difference + half))
    assert described(found, "novel_psnr") == (
        f"row after 3 seeds: better than the baseline (novel_psnr +5.003, |t| {found.t:.2f}, boundary "
        f"{found.boundary:.2f})"
    )
    lower = described(ruling(BASELINE, HIGHER), "novel_psnr")
    assert lower.endswith(
        f"worse than the baseline (novel_psnr -5.003, |t| {found.t:.2f}, boundary {found.boundary:.2f})"
    )


@pytest.mark.parametrize(
    ("row", "baseline", "direction", "state"),
    [
        (HIGHER, BASELINE, "up", "better"),
        (HIGHER, BASELINE, "down", "worse"),
        (BASELINE, HIGHER, "up", "worse"),
        (BASELINE, HIGHER, "down", "better"),
    ],
)
def test_the_direction_of_a_score_decides_which_row_is_better(
    row: SeedScores, baseline: SeedScores, direction: Direction, state: str
) -> None:
    assert ruling(row, baseline, direction).state == state


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_seeds_behind_a_missing_score_of_either_do_not_count(missing: float | None) -> None:
    gap = (20.0, missing, 19.8, 20.1)
    assert ruling(HIGHER, gap) == ruling(gap, HIGHER) == Ruling("row", "open", 1, 3)


def test_seeds_behind_the_most_do_not_count() -> None:
    """They were trained under an earlier rule."""
    unclear, more = (20.3, 21.1, 20.3, 21.0, 19.7), (25.0, 25.0)
    found = rulings(DESIGN, "up", (*BASELINE, 20.0, 20.0), {"row": (*unclear, *more), "short": unclear[:4]})
    assert found == rulings(DESIGN, "up", BASELINE, {"row": unclear, "short": unclear[:4]})


def test_an_open_row_gets_one_more_seed_up_to_the_most() -> None:
    unclear = (20.3, 21.1, 20.3, 21.0, 19.7)
    found = [ruling(unclear[:count]) for count in (0, 2, 3, 4, 5)]
    assert [(each.state, each.seeds, each.wanted) for each in found] == [
        *(("open", seeds, wanted) for seeds, wanted in ((0, 3), (2, 3), (3, 4), (4, 5))),
        ("undecided", 5, 5),
    ]
    assert ruling((20.1, 20.0, 20.2, 19.9)).state == "futile"


def test_differences_without_spread_have_no_t() -> None:
    shifted = ruling((2.0, 3.0, 1.0), (1.0, 2.0, 0.0))
    assert (shifted.state, shifted.t, shifted.low, shifted.high) == ("better", None, 1.0, 1.0)
    assert "(novel_psnr +1, no spread)" in described(shifted, "novel_psnr")


def test_no_rows_have_no_rulings() -> None:
    assert rulings(DESIGN, "up", BASELINE, {}) == ()
