"""Samplers, which choose the next configuration: `sampler(draw) -> optuna's sampler`.

Each proposal has a sampler of its own, seeded by (seed, number).  The proposal therefore depends on the study, and not
on how often the driver was restarted.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from sweep.plan.conditions import Conditions
from sweep.search.space import applying, on_step


@dataclass(frozen=True)
class Draw:
    """The inputs of one proposal."""

    distributions: Mapping[str, BaseDistribution]
    #: which of them apply together
    conditions: Conditions
    #: the seed of the whole search
    seed: int
    number: int
    #: the parameters of all proposals before it, perhaps by another sampler or seed
    earlier: Sequence[Mapping[str, Any]]

    @property
    def own_seed(self) -> int:
        """A seed that differs for each proposal."""
        return int(np.random.SeedSequence([self.seed, self.number]).generate_state(1)[0])


#: Samplers that keep state in the study besides the proposals and their outcomes.
STATEFUL = frozenset({"cmaes", "qmc"})


def tpe(draw: Draw) -> BaseSampler:
    """Tree-structured Parzen estimators.  Running trials count as bad ones, so they are not proposed again."""
    return optuna.samplers.TPESampler(seed=draw.own_seed)


def random(draw: Draw) -> BaseSampler:
    """Independent draws."""
    return optuna.samplers.RandomSampler(seed=draw.own_seed)


def cmaes(draw: Draw) -> BaseSampler:
    """Covariance matrix adaptation, for two or more numeric axes; choices are drawn at random."""
    return optuna.samplers.CmaEsSampler(seed=draw.own_seed, warn_independent_sampling=False)


def gp(draw: Draw) -> BaseSampler:
    """A Gaussian process: needs the fewest trials, but seconds of the driver's time for each proposal."""
    return optuna.samplers.GPSampler(seed=draw.own_seed, deterministic_objective=False, warn_independent_sampling=False)


def qmc(draw: Draw) -> BaseSampler:
    """A scrambled Sobol sequence, which covers the space evenly.  All proposals share one sequence and its seed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna.samplers.QMCSampler(seed=draw.seed, scramble=True, warn_independent_sampling=False)


def grid(draw: Draw) -> BaseSampler:
    """Every point of a finite space once, in random order, but for those proposed before it was chosen.

    For no more proposals than points.
    """
    every = product(*map(grid_points, draw.distributions.values()))
    applied = (applying(draw.conditions, dict(zip(draw.distributions, values, strict=True))) for values in every)
    points = list(dict.fromkeys(tuple(point.items()) for point in applied))
    order = np.random.default_rng(draw.seed).permutation(len(points))
    in_turn = [dict(points[index]) for index in order]
    point = next((point for point in in_turn if point not in draw.earlier), in_turn[draw.number % len(points)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna.samplers.PartialFixedSampler(point, optuna.samplers.RandomSampler(seed=0))


def grid_points(distribution: BaseDistribution) -> list[float | int]:
    """The values of a distribution with finitely many."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)  # type: ignore[arg-type]  # indices: see `sweep.search.space`
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    assert distribution.step is not None
    low, high, step = distribution.low, distribution.high, distribution.step
    values = [low + index * step for index in range(round((high - low) / step) + 1)]
    return values if isinstance(distribution, IntDistribution) else [on_step(v, low, high, step) for v in values]
