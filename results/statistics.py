"""Inference from scores of a few trained networks on the same objects.  Arrays in, numbers out.

Scores of one row of a table are an array (..., S, O): S seeds, each evaluated on the same O objects.  Seeds and objects
are both random samples, of possible trainings and of possible objects, and they are
crossed: y[s, o] = mean + seed[s] + object[o] + rest[s, o].  The mean's variance is that of the balanced two-way
random-effects model, so that three seeds count as three and not as three times O.

Intervals aim at nominal coverage.  Their degrees of freedom are Satterthwaite's, with which the coverage at 95 % is
93 to 97 % where objects differ more than seeds, and 91 % at worst, with two or three seeds that move the mean as much
as the objects do.  Tests aim at never exceeding their level, also in the far tails that a correction for
many tests reaches, where Satterthwaite's approximation fails by a factor of four: they use Banerjee's bound.

With one seed the spread over seeds is unknown: all results hold for that one training only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats = NDArray[np.float64]

#: confidence level of all intervals
LEVEL = 0.95
#: cells that are resampled at a time, which bounds the memory
_CHUNK = 256
#: natural logarithm below which p-values are given as zero; others have a relative error of at most 1e-6
_LEAST_LOG_P = -40.0
_BISECTIONS = 26
#: critical t beyond which the noncentral t distribution is that of its denominator alone, up to 1e-4
_FAR = 100.0


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds and objects with its standard error; NaN where there is one value only.  Arrays (...)."""

    mean: Floats
    standard_error: Floats
    #: Satterthwaite's, of a t distribution
    degrees: Floats
    #: the parts of the mean's variance that come from seeds and from objects, each with its degrees of freedom
    parts: tuple[tuple[Floats, int], ...]

    @property
    def margin(self) -> Floats:
        """Half the width of the mean's interval."""
        return special.stdtrit(self.degrees, (1 + LEVEL) / 2) * self.standard_error

    def at(self, index: int) -> Estimate:
        """The estimate at one place of the leading axis."""
        parts = tuple((part[index], degrees) for part, degrees in self.parts)
        return Estimate(self.mean[index], self.standard_error[index], self.degrees[index], parts)

    def bound(self, p: ArrayLike) -> Floats:
        """A deviation from the mean that chance exceeds with probability at most `p` (...), for any parts.

        Banerjee, Sankhya 22 (1960): quantiles of t, squared and weighted by the parts.
        """
        tail = np.asarray(p, dtype=np.float64) / 2
        return np.sqrt(sum((special.stdtrit(degrees, tail) ** 2 * part for part, degrees in self.parts), start=0.0))


@dataclass(frozen=True)
class PairedTest:
    """Test of the hypothesis that a mean difference is zero.  Arrays (...)."""

    difference: Floats
    low: Floats
    high: Floats
    #: two-sided
    p: Floats
    #: Cohen's d_z: the mean of the objects' differences in units of their standard deviation
    effect_size: Floats
    estimate: Estimate

    def at(self, index: int) -> PairedTest:
        """The test at one place of the leading axis."""
        return PairedTest(
            self.difference[index],
            self.low[index],
            self.high[index],
            self.p[index],
            self.effect_size[index],
            self.estimate.at(index),
        )


def estimate(values: ArrayLike) -> Estimate:
    """Mean of scores (..., S, O) under the two-way random-effects model.

    Variance components below zero are taken as zero.  Searle, Casella and McCulloch, Variance Components (1992),
    section 4.3; Satterthwaite, Biometrics Bulletin 2 (1946).  With S = 1 or O = 1 this is the usual standard error.
    """
    values = _checked(values)
    seeds, objects = values.shape[-2:]
    mean = values.mean((-2, -1))
    if seeds == 1 or objects == 1:
        return _one_way(values.reshape(*values.shape[:-2], seeds * objects))
    seed, item, rest = _mean_squares(values)
    spread = seed**2 / (seeds - 1) + item**2 / (objects - 1) + rest**2 / ((seeds - 1) * (objects - 1))
    # All mean squares include the residual variance, which is estimated best: smaller ones are smaller by chance.
    seed, item = np.maximum(seed, rest), np.maximum(item, rest)
    variance = seed + item - rest
    least = float(min(seeds, objects) - 1)
    degrees = np.divide(variance**2, spread, out=np.full_like(variance, least), where=spread > 0)
    count = seeds * objects
    # The residual counts once, in the part that has fewer degrees of freedom.
    seed_part, item_part = (seed, item - rest) if seeds <= objects else (seed - rest, item)
    parts = (seed_part / count, seeds - 1), (item_part / count, objects - 1)
    return Estimate(mean, np.sqrt(variance / count), np.maximum(degrees, least), parts)


def bootstrap_interval(values: ArrayLike, rng: np.random.Generator, resamples: int = 1000) -> tuple[Floats, Floats]:
    """Interval of the mean of scores (..., S, O); arrays (...), NaN where there is one value only.

    Seeds and objects are both drawn with replacement (the pigeonhole bootstrap of Owen, Annals of Applied Statistics 1,
    2007), which gives the interval its shape.  Its width is that of `estimate`: a bootstrap of three seeds is too
    narrow by itself, and no percentile of it can lie outside their range.
    """
    values = _checked(values)
    seeds, objects = values.shape[-2:]
    centre = estimate(values)
    flat = (values - centre.mean[..., None, None]).reshape(-1, seeds, objects)
    # All cells share the same draws, so that they differ by their scores and not by chance.
    drawn_seeds = rng.multinomial(seeds, [1 / seeds] * seeds, resamples) / seeds
    drawn_objects = rng.multinomial(objects, [1 / objects] * objects, resamples).T / objects
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    shape = np.empty((2, len(flat)))
    for start in range(0, len(flat), _CHUNK):
        means = np.einsum("nsb,bs->nb", flat[start : start + _CHUNK] @ drawn_objects, drawn_seeds)
        deviation = means.std(-1, keepdims=True)
        standard = np.divide(means, deviation, out=np.zeros_like(means), where=deviation > 0)
        shape[:, start : start + _CHUNK] = np.quantile(standard, tails, axis=-1)
    stretch = centre.margin / special.ndtri(tails[1])
    low, high = shape.reshape(2, *centre.mean.shape) * stretch + centre.mean
    return low, high


def paired_test(differences: ArrayLike) -> PairedTest:
    """Test whether differences (..., S, O) between two rows, on the same seeds and objects, have mean zero.

    With S = 1 it is the paired t test over objects.  Differences without any spread are significant unless they are
    zero.
    """
    differences = _checked(differences)
    found = estimate(differences)
    per_object = differences.mean(-2)
    margin = found.margin
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = found.mean / per_object.std(-1, ddof=1) if per_object.shape[-1] > 1 else np.full_like(margin, np.nan)
    return PairedTest(
        difference=found.mean,
        low=found.mean - margin,
        high=found.mean + margin,
        p=_p_value(found),
        effect_size=np.where(found.mean == 0, 0.0, effect),
        estimate=found,
    )


def _p_value(found: Estimate) -> Floats:
    """The largest p whose bound the mean does not exceed, by bisection of its logarithm."""
    low, high = np.full(found.mean.shape, _LEAST_LOG_P), np.zeros(found.mean.shape)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_within = found.bound(np.exp(middle)) >= np.abs(found.mean)
        low, high = np.where(is_within, middle, low), np.where(is_within, high, middle)
    p = np.where(np.abs(found.mean) > found.bound(np.exp(_LEAST_LOG_P)), 0.0, np.exp((low + high) / 2))
    return np.where(found.mean == 0, 1.0, np.where(np.isnan(found.standard_error), np.nan, p))


def holm(p: ArrayLike) -> Floats:
    """p-values (M,) adjusted for M tests (Holm, Scandinavian Journal of Statistics 6, 1979).

    Their family-wise error is below the level they are compared with, however the tests depend on each other.  NaN,
    a test that could not be made, stays NaN and does not count.
    """
    p = np.asarray(p, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def minimal_detectable(found: Estimate, alpha: float, power: float = 0.8) -> Floats:
    """The smallest true difference that `paired_test` finds at level `alpha` with probability `power`.  (...)

    From the noncentral t distribution, without its negligible far tail; zero where there is no spread.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        critical = found.bound(alpha) / found.standard_error
        is_far = critical > _FAR  # where scipy's inverse takes up to minutes
        far = critical * np.sqrt(special.chdtri(found.degrees, 1 - power) / found.degrees)
        near = special.nctdtrinc(found.degrees, 1 - power, np.where(is_far, np.nan, critical))
        size = np.where(is_far, far, near) * found.standard_error
    return np.where(found.standard_error == 0, 0.0, size)


def _checked(values: ArrayLike) -> Floats:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim < 2 or 0 in values.shape[-2:]:
        raise ValueError(f"scores must be (..., seeds, objects) with at least one of each, not {values.shape}")
    return values


def _one_way(flat: Floats) -> Estimate:
    """Mean of independent values (..., N), with its standard error."""
    count = flat.shape[-1]
    mean = flat.mean(-1)
    if count == 1:
        unknown = np.full(mean.shape, np.nan)
        return Estimate(mean, unknown, unknown, ((unknown, 1),))
    variance = flat.var(-1, ddof=1) / count
    return Estimate(mean, np.sqrt(variance), np.full(mean.shape, count - 1.0), ((variance, count - 1),))


def _mean_squares(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean squares of seeds, objects and the rest, of scores (..., S, O) with S, O > 1."""
    seeds, objects = values.shape[-2:]
    mean = values.mean((-2, -1), keepdims=True)
    seed = values.mean(-1, keepdims=True) - mean
    item = values.mean(-2, keepdims=True) - mean
    rest = values - mean - seed - item
    return (
        objects * (seed**2).sum((-2, -1)) / (seeds - 1),
        seeds * (item**2).sum((-2, -1)) / (objects - 1),
        (rest**2).sum((-2, -1)) / ((seeds - 1) * (objects - 1)),
    )
