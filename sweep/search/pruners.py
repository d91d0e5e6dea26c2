"""Pruners, which end bad trials early: `pruner(training) -> optuna's pruner`."""

from __future__ import annotations

from dataclasses import dataclass

import optuna
from optuna.pruners import BasePruner


@dataclass(frozen=True)
class Training:
    """The lengths that a pruner decides by."""

    #: iterations between the evaluations of a trial
    every: int
    #: iterations of a whole trial
    iterations: int


def none(_: Training) -> BasePruner:
    """Every trial runs to its end."""
    return optuna.pruners.NopPruner()


def median(_: Training) -> BasePruner:
    """Prunes trials worse than the median of the others at the same iteration, once five trials have finished."""
    return optuna.pruners.MedianPruner(n_startup_trials=5)


def percentile(_: Training) -> BasePruner:
    """Like `median`, but only the best quarter continues."""
    return optuna.pruners.PercentilePruner(25.0, n_startup_trials=5)


def halving(training: Training) -> BasePruner:
    """Successive halving: the best quarter of the trials at an iteration continues to four times that iteration."""
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=training.every, reduction_factor=4)


def hyperband(training: Training) -> BasePruner:
    """Hyperband: successive halving with several first iterations, so that slow starters have a chance."""
    return optuna.pruners.HyperbandPruner(
        min_resource=min(training.every, training.iterations), max_resource=training.iterations, reduction_factor=3
    )
