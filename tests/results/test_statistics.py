"""Coverage, error rates and agreement with the established implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from results.statistics import bootstrap_interval, estimate, holm, minimal_detectable, paired_test

# Spread of seeds, objects and the rest, in dB: scores themselves, and differences between two rows.
SCORES = (0.2, 2.0, 0.5)
DIFFERENCES = (0.1, 0.5, 0.5)
SIMULATIONS = 2000


def simulated(
    seeds: int, objects: int, spreads: tuple[float, float, float], count: int = SIMULATIONS, mean: float = 0.0
) -> np.ndarray:
    """Crossed scores (count, seeds, objects) around `mean`; objects have a skewed distribution, as in real datasets."""
    rng = np.random.default_rng([seeds, objects, count])
    of_seeds, of_objects, of_rest = spreads
    skewed = (rng.gamma(4.0, size=(count, 1, objects)) - 4.0) / 2.0
    return (
        mean
        + of_seeds * rng.standard_normal((count, seeds, 1))
        + of_objects * skewed
        + of_rest * rng.standard_normal((count, seeds, objects))
    )


@pytest.mark.parametrize("spreads", [SCORES, DIFFERENCES], ids=["scores", "differences"])
@pytest.mark.parametrize(("seeds", "objects"), [(2, 24), (3, 24), (3, 100), (5, 50)])
def test_intervals_have_their_nominal_coverage(seeds: int, objects: int, spreads: tuple[float, float, float]) -> None:
    values = simulated(seeds, objects, spreads, mean=21.0)
    low, high = bootstrap_interval(values, np.random.default_rng(0), resamples=400)
    assert 0.93 <= np.mean((low <= 21.0) & (high >= 21.0)) <= 0.97
    test = paired_test(values - 21.0)
    assert 0.93 <= np.mean((test.low <= 0.0) & (test.high >= 0.0)) <= 0.97


def test_an_interval_of_objects_alone_would_not_cover() -> None:
    """Three trainings that differ, each evaluated on many objects: an interval has to include the seeds' variance."""
    values = simulated(3, 100, (0.5, 1.0, 0.5))
    pooled = values.mean(1, keepdims=True)
    low, high = bootstrap_interval(pooled, np.random.default_rng(0), resamples=400)
    assert np.mean((low <= 0) & (high >= 0)) < 0.6
    low, high = bootstrap_interval(values, np.random.default_rng(0), resamples=400)
    assert np.mean((low <= 0) & (high >= 0)) > 0.91


def test_with_one_seed_an_interval_covers_that_trainings_mean() -> None:
    values = simulated(1, 50, (0.0, 2.0, 0.5))
    low, high = bootstrap_interval(values, np.random.default_rng(0), resamples=400)
    assert 0.93 <= np.mean((low <= 0) & (high >= 0)) <= 0.97


def test_intervals_follow_the_skewness_of_the_objects() -> None:
    values = np.random.default_rng(0).exponential(size=(1, 40))
    low, high = bootstrap_interval(values, np.random.default_rng(0), resamples=4000)
    assert high - values.mean() > 1.05 * (values.mean() - low)
    mirrored = bootstrap_interval(-values, np.random.default_rng(0), resamples=4000)
    np.testing.assert_allclose(mirrored, (-high, -low))


def test_equal_generators_give_equal_intervals() -> None:
    values = simulated(3, 20, SCORES, 4)
    first = bootstrap_interval(values, np.random.default_rng(7))
    again = bootstrap_interval(values, np.random.default_rng(7))
    other = bootstrap_interval(values, np.random.default_rng(8))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_cells_do_not_depend_on_what_else_is_in_the_table() -> None:
    values = simulated(2, 9, SCORES, 300)
    together = bootstrap_interval(values, np.random.default_rng(0), resamples=50)
    alone = bootstrap_interval(values[290], np.random.default_rng(0), resamples=50)
    np.testing.assert_allclose([bound[290] for bound in together], alone)


def test_a_single_value_has_no_interval_and_equal_values_have_an_empty_one() -> None:
    assert np.isnan(bootstrap_interval([[20.0]], np.random.default_rng(0))).all()
    assert bootstrap_interval(np.full((2, 5), 20.0), np.random.default_rng(0)) == (20.0, 20.0)
    assert np.isnan(paired_test([[20.0]]).p)
    single = estimate([[20.0]])
    assert (float(single.mean), np.isnan(single.standard_error)) == (20.0, True)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (5,)])
def test_scores_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(\.\.\., seeds, objects\)"):
        estimate(np.zeros(shape))


@pytest.mark.parametrize(
    ("effects", "error", "degrees"),
    # Mean squares of seeds, objects and the rest: 1, 1, 1; 0, 4, 1; 4, 0, 1; 16, 4, 1.
    [((0.5, 0.5, 0.5), 0.5, 1.0), ((0.0, 1.0, 0.5), 1.0, 1.0), ((1.0, 0.0, 0.5), 1.0, 1.0),
     ((2.0, 1.0, 0.5), 19**0.5 / 2, 19**2 / 273)],
)  # fmt: skip
def test_parts_of_the_variance_are_not_below_zero(
    effects: tuple[float, float, float], error: float, degrees: float
) -> None:
    sign = np.array([1.0, -1.0])
    seed, item, rest = effects
    found = estimate(seed * sign[:, None] + item * sign + rest * sign[:, None] * sign)
    assert (float(found.standard_error), float(found.degrees)) == pytest.approx((error, degrees))


def test_the_width_of_an_interval_is_that_of_the_estimate() -> None:
    """Means of two values that are drawn anew are -1, 0 and 1, and their standard deviation is sqrt(1/2)."""
    low, high = bootstrap_interval([[-1.0, 1.0]], np.random.default_rng(0), resamples=20_000)
    half = 2**0.5 * stats.t.ppf(0.975, 1) / stats.norm.ppf(0.975)
    assert (float(low), float(high)) == pytest.approx((-half, half), rel=0.01)


@pytest.mark.filterwarnings("error")
def test_one_seed_or_one_object_is_the_usual_t_test() -> None:
    rng = np.random.default_rng(3)
    row, baseline = rng.normal(0.3, 1, (2, 15))
    expected = stats.ttest_rel(row, baseline)
    interval = expected.confidence_interval()
    for differences in ((row - baseline)[None], (row - baseline)[:, None]):
        test = paired_test(differences)
        assert float(test.p) == pytest.approx(expected.pvalue)
        assert (float(test.low), float(test.high)) == pytest.approx(tuple(interval))
        assert np.isnan(test.effect_size) == (len(differences) > 1), "one object has no standard deviation"


def test_the_two_way_model_agrees_with_statsmodels() -> None:
    """Restricted maximum likelihood gives the same standard error for balanced data, ANOVA the degrees of freedom."""
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.regression import mixed_linear_model as mixed
    from statsmodels.stats.anova import anova_lm

    values = simulated(4, 12, (0.6, 1.0, 0.5), 1, mean=20.0)[0]
    seed, item = (index.ravel() for index in np.indices(values.shape))
    frame = pd.DataFrame({"y": values.ravel(), "seed": seed, "item": item, "all": 1})
    crossed = {"seed": "0 + C(seed)", "item": "0 + C(item)"}
    fitted = mixed.MixedLM.from_formula("y ~ 1", frame, groups="all", vc_formula=crossed).fit(reml=True)
    found = estimate(values)
    assert float(found.mean) == pytest.approx(fitted.fe_params["Intercept"])
    assert float(found.standard_error) == pytest.approx(fitted.bse_fe["Intercept"], rel=1e-3)
    variance = anova_lm(ols("y ~ C(seed) + C(item)", frame).fit())
    squares, degrees = variance["mean_sq"].to_numpy(), variance["df"].to_numpy()
    assert float(found.degrees) == pytest.approx((squares @ [1, 1, -1]) ** 2 / (squares**2 / degrees).sum())


def test_identical_rows_do_not_differ_and_a_constant_difference_does() -> None:
    found = paired_test(np.stack([np.zeros((2, 6)), np.full((2, 6), 0.5)]))
    assert found.p.tolist() == [1.0, 0.0]
    assert found.effect_size.tolist() == [0.0, np.inf]


def test_effect_size_is_in_standard_deviations_of_the_objects() -> None:
    differences = np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]])
    assert float(paired_test(differences).effect_size) == pytest.approx(2.5)


def test_holm_agrees_with_statsmodels() -> None:
    from statsmodels.stats import multitest

    p = np.random.default_rng(0).uniform(size=40) ** 3
    np.testing.assert_allclose(holm(p), multitest.multipletests(p, method="holm")[1])


def test_holm_leaves_out_what_could_not_be_tested() -> None:
    np.testing.assert_allclose(holm([0.01, np.nan, 0.02]), [0.02, np.nan, 0.02])
    assert holm([]).size == 0


@pytest.mark.parametrize("objects", [3, 11, 101])
def test_minimal_detectable_difference_agrees_with_statsmodels(objects: int) -> None:
    from statsmodels.stats import power

    effect = power.TTestPower().solve_power(nobs=objects, alpha=0.05, power=0.8)
    differences = np.random.default_rng(0).normal(size=(1, objects))
    found = minimal_detectable(estimate(differences), 0.05)
    assert float(found) == pytest.approx(effect * differences.std(ddof=1), rel=1e-3)


def test_without_spread_every_difference_is_detected() -> None:
    assert minimal_detectable(estimate(np.full((2, 3), 0.5)), 0.05) == 0


@pytest.mark.parametrize("alpha", [5e-3, 1e-3, 1e-5])
def test_minimal_detectable_difference_with_two_values(alpha: float) -> None:
    found = minimal_detectable(estimate([[0.0], [2.0]]), alpha)  # a standard error of 1
    assert float(found) == pytest.approx(stats.t.isf(alpha / 2, 1) * stats.norm.isf(0.1), rel=1e-3)


def test_a_difference_of_the_minimal_size_is_found_four_times_in_five() -> None:
    differences = np.random.default_rng(0).standard_normal((SIMULATIONS, 1, 20))
    size = stats.t.isf(0.025, 19) / np.sqrt(20) + stats.norm.isf(0.2) / np.sqrt(20)
    assert np.mean(minimal_detectable(estimate(differences), 0.05)) == pytest.approx(size, rel=0.03)
    assert np.mean(paired_test(differences + size).p < 0.05) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("spreads", [SCORES, DIFFERENCES, (0.3, 0.3, 0.5), (0.5, 0.1, 0.2), (0.0, 0.0, 0.5)])
@pytest.mark.parametrize("seeds", [2, 3])
def test_tests_keep_their_level(seeds: int, spreads: tuple[float, float, float], alpha: float) -> None:
    """The error rates hold where seeds differ more than objects, and in the tails that multiple testing needs."""
    p = paired_test(simulated(seeds, 30, spreads, 4000)).p
    assert np.mean(p < alpha) <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / 4000)


def test_p_values_are_exact_over_many_orders() -> None:
    differences = np.random.default_rng(0).normal(size=(1, 12))
    for shift in (0.0, 0.3, 1.0, 3.0, 6.0):
        expected = stats.ttest_1samp(differences[0] + shift, 0).pvalue
        assert float(paired_test(differences + shift).p) == pytest.approx(expected, rel=1e-5)


def test_seeds_and_objects_count_alike() -> None:
    """With equally many the bound is that of one t test, and otherwise it does not matter which are more."""
    test = paired_test(simulated(6, 6, (0.3, 0.4, 0.5), 1, mean=0.5)[0])
    t = test.difference / test.estimate.standard_error
    assert float(test.p) == pytest.approx(2 * stats.t.sf(t, 5), rel=1e-5)
    values = simulated(3, 9, (0.3, 0.4, 0.5), 1, mean=0.5)[0]
    tests = [paired_test(values), paired_test(values.T)]
    np.testing.assert_allclose(*([found.p, found.low, found.high] for found in tests))
