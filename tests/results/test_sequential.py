"""The sequential test of rows against a baseline: exact boundaries, error, power and seeds saved, by simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import special

from results.sequential import FUTILE, Design, decide

DESIGN = Design(3, 12)
ROWS, SEEDS = 5, 12
REPEATS = 6_000
#: three standard errors of a simulated rate of 5 %
ERROR = 3 * np.sqrt(0.05 * 0.95 / REPEATS)

Floats = np.ndarray
Draw = Callable[[tuple[int, ...]], Floats]


def normal(seed: int) -> Draw:
    return np.random.default_rng(seed).standard_normal


def student(seed: int) -> Draw:
    rng = np.random.default_rng(seed)
    return lambda shape: rng.standard_t(3, shape)


def with_bad_trainings(seed: int) -> Draw:
    """One training of ten ends five standard deviations lower."""
    rng = np.random.default_rng(seed)
    return lambda shape: rng.standard_normal(shape) - 5 * (rng.random(shape) < 0.1)


def skewed(seed: int) -> Draw:
    rng = np.random.default_rng(seed)
    return lambda shape: rng.gumbel(size=shape) - np.euler_gamma


def differences(draw: Draw, effects: Floats, baseline: float = 1.0, seeds: int = SEEDS) -> Floats:
    """Rows minus their shared baseline, whose trainings scatter `baseline` times as much.  (REPEATS, M, N)"""
    rows = draw((REPEATS, len(effects), seeds)) + effects[:, None]
    return rows - baseline * draw((REPEATS, 1, seeds))


def fixed(found: Floats, alpha: float = 0.05) -> Floats:
    """Rejections (..., M) of paired t tests of all seeds, corrected by Holm."""
    seeds, rows = found.shape[-1], found.shape[-2]
    t = found.mean(-1) / found.std(-1, ddof=1) * np.sqrt(seeds)
    p = 2 * special.stdtr(seeds - 1, -np.abs(t))
    order = np.argsort(p, -1)
    passed = np.take_along_axis(p, order, -1) * (rows - np.arange(rows)) <= alpha
    rejected = np.zeros(p.shape, bool)
    np.put_along_axis(rejected, order, np.logical_and.accumulate(passed, -1), -1)
    return rejected


NULL = np.zeros(ROWS)


def test_boundaries_spend_the_planned_share_at_every_look() -> None:
    found = normal(0)((100_000, SEEDS))
    t = np.abs(np.array([found[:, :n].mean(1) / found[:, :n].std(1, ddof=1) * np.sqrt(n) for n in DESIGN.looks]))
    crossed = np.maximum.accumulate(t > np.array(DESIGN.boundaries(1))[:, None]).mean(1)
    spent = 0.05 * (np.array(DESIGN.looks) / SEEDS) ** 3
    assert np.abs(crossed - spent).max() < 3 * np.sqrt(0.05 * 0.95 / len(found))
    assert np.abs(crossed / spent - 1)[2:].max() < 0.12


def test_the_first_boundary_is_that_of_one_t_test() -> None:
    level = 0.05 / 7 * (3 / 12) ** 3
    assert DESIGN.boundaries(7)[0] == pytest.approx(-special.stdtrit(2, level / 2), rel=1e-6)


@pytest.mark.parametrize(
    ("draw", "baseline"),
    # With a steadier baseline the differences of the last two are skewed: see the test of limits.
    [(normal, 1.0), (student, 1.0), (with_bad_trainings, 1.0), (skewed, 1.0), (normal, 0.3), (student, 0.3)],
)
def test_family_wise_error_of_equal_rows(draw: Callable[[int], Draw], baseline: float) -> None:
    decisions = decide(differences(draw(1), NULL, baseline), DESIGN)
    assert decisions.rejected.any(-1).mean() <= 0.055
    assert decisions.seeds.mean() < 8  # futility saves seeds of rows without a difference


@pytest.mark.parametrize("rows", [1, 2, 12])
def test_family_wise_error_of_other_numbers_of_rows(rows: int) -> None:
    error = decide(differences(normal(2), np.zeros(rows)), DESIGN).rejected.any(-1).mean()
    assert 0.03 < error <= 0.05 + ERROR


def test_family_wise_error_beside_rows_that_differ() -> None:
    effects = np.array([0.0, 0.0, 1.0, 2.0, 4.0])
    for draw in (normal, student):
        wrong = decide(differences(draw(3), effects), DESIGN).rejected[:, effects == 0].any(-1).mean()
        assert wrong <= 0.055


def test_skewed_differences_hurt_it_as_they_hurt_a_fixed_test() -> None:
    found = differences(skewed(4), NULL, baseline=0.1)
    error, planned = decide(found, DESIGN).rejected.any(-1).mean(), fixed(found).any(-1).mean()
    assert 0.055 < planned < error < planned + 0.02


#: difference in standard deviations of a training -> power of 12 fixed seeds, of this test, and its mean seeds, for
#: five rows that all have it (`python -m tests.results.test_sequential` prints them, for the README)
EXPECTED = {0.0: (0.01, 0.01, 6.5), 1.0: (0.40, 0.31, 8.8), 2.0: (0.99, 0.96, 8.7), 4.0: (1.0, 1.0, 6.1)}


def measured(effect: float) -> tuple[float, float, float]:
    """Share of rows found by 12 fixed seeds, share found by this test, and its mean number of seeds."""
    found = differences(normal(5), np.full(ROWS, effect))
    decisions = decide(found, DESIGN)
    return fixed(found).mean(), decisions.rejected.mean(), decisions.seeds.mean()


@pytest.mark.parametrize("effect", EXPECTED)
def test_power_and_seeds_against_a_fixed_number(effect: float) -> None:
    planned, power, seeds = measured(effect)
    assert (planned, power) == pytest.approx(EXPECTED[effect][:2], abs=0.02)
    assert seeds == pytest.approx(EXPECTED[effect][2], abs=0.1)
    assert seeds < 9 < SEEDS


def test_stopping_for_futility_rejects_nothing_and_costs_little_power() -> None:
    found = differences(normal(6), np.array([0.0, 0.5, 1.0, 1.5, 2.0]))
    decisions = decide(found, DESIGN)
    assert not (decisions.futile & decisions.rejected).any()
    assert ((decisions.seeds > 0) & (decisions.seeds <= SEEDS)).all()
    # Rows that stopped for futility would rarely have been found by 12 seeds.
    assert fixed(found)[decisions.futile].mean() < FUTILE


def test_decisions_use_only_leading_seeds_and_do_not_change_with_later_ones() -> None:
    found = differences(normal(7), np.array([0.0, 1.0, 3.0]))[:200]
    whole = decide(found, DESIGN)
    partial = found.copy()
    for row in range(3):
        for seed in range(SEEDS):
            partial[:, row, seed][seed >= whole.seeds[:, row]] = np.nan
    again = decide(partial, DESIGN)
    assert all((one == other).all() for one, other in zip(whole, again, strict=True))
    partial[:, 1, 2:] = np.nan
    open_rows = decide(partial, DESIGN)
    assert (open_rows.seeds[:, 1] == 0).all()
    assert not open_rows.rejected[:, 1].any()
    five = decide(found[..., :5], DESIGN), decide(np.where(np.arange(SEEDS) < 5, found, np.nan), DESIGN)
    assert all((one == other).all() for one, other in zip(*five, strict=True))


def test_holm_passes_the_level_of_a_rejected_row_on() -> None:
    noise = np.array([0.1, -0.1, 0.05, -0.02, 0.07, -0.06, 0.03, -0.04, 0.02, 0.01, -0.05, 0.04])
    weak = 0.045 + noise
    alone = decide(weak[None], Design(3, 12))
    assert alone.shared_by.tolist() == [1]
    beside = decide(np.stack([weak, 100 + noise]), Design(3, 12))
    assert beside.rejected.tolist()[1] is True
    assert beside.shared_by.tolist() == [1, 2]
    assert (beside.seeds[0], beside.rejected[0]) == (alone.seeds[0], alone.rejected[0])


def test_differences_without_spread() -> None:
    decisions = decide(np.array([np.full(12, 0.25), np.zeros(12)]), DESIGN)
    assert decisions.rejected.tolist() == [True, False]
    assert decisions.seeds[0] == 3
    assert decisions.futile.tolist() == [False, True]
    with np.errstate(invalid="raise"):
        assert decide(np.full((1, 12), 0.25), DESIGN).rejected.all(), "no row is left"


@pytest.mark.parametrize(("at_least", "at_most", "alpha"), [(1, 5, 0.05), (3, 3, 0.05), (3, 12, 0.0), (3, 12, 1.0)])
def test_impossible_designs_are_refused(at_least: int, at_most: int, alpha: float) -> None:
    with pytest.raises(ValueError, match=r"at_least|alpha"):
        Design(at_least, at_most, alpha)


if __name__ == "__main__":
    print(f"{ROWS} rows, {DESIGN}, {REPEATS} repetitions: power of 12 fixed seeds, power of this test, its mean seeds")
    for effect in EXPECTED:
        print(effect, *(f"{value:.3f}" for value in measured(effect)))
    for name, draw in (("normal", normal), ("t, 3 degrees", student), ("bad trainings", with_bad_trainings)):
        print("error", name, decide(differences(draw(1), NULL), DESIGN).rejected.any(-1).mean())
