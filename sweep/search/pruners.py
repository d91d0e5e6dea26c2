"""Pruners, which end bad trials early: `pruner(length) -> optuna's pruner`."""

from __future__ import annotations

from dataclasses import dataclass

import optuna
from optuna.pruners import BasePruner


@dataclass(frozen=True)
class TrialLength:
    """The lengths that a pruner decides by."""

    #: iterations between the evaluations of a trial
    every: int
    #: iterations of a whole trial
    iterations: int


def none(_: TrialLength) -> BasePruner:
    """Every trial runs to its end."""
    return optuna.pruners.NopPruner()


def median(_: TrialLength) -> BasePruner:
    """Prunes trials worse than the median of the others at the same iteration, once five trials have finished."""
    return optuna.pruners.MedianPruner(n_startup_trials=5)


def percentile(_: TrialLength) -> BasePruner:
    """Like `median`, but only the best quarter continues."""
    return optuna.pruners.PercentilePruner(25.0, n_startup_trials=5)


def halving(length: TrialLength) -> BasePruner:
    """Successive halving: the best quarter of the trials at an iteration continues to four times that iteration."""
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=length.every, reduction_factor=4)


def hyperband(length: TrialLength) -> BasePruner:
    """Hyperband: successive halving with several first iterations, so that slow starters have a chance."""
    return optuna.pruners.HyperbandPruner(
        min_resource=min(length.every, length.iterations), max_resource=length.iterations, reduction_factor=3
    )
