"""The Optuna study of a search, rebuilt from the proposals and their outcomes whenever a driver starts.

Optuna's own state is not stored: the ledger holds the proposals, and the trials' folders hold their results.  Where one
trial runs at a time, an interrupted search makes the same proposals as an uninterrupted one, with every sampler.  Where
several run, proposals depend on the order in which trials end; with a pruner, also on when it read their scores.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from model.registry import resolve
from sweep.file.schema import Search, SearchAxis, distinct_choices
from sweep.search import PRUNERS, SAMPLERS
from sweep.search.outcome import Outcome
from sweep.search.pruners import TrialLength
from sweep.search.samplers import STATEFUL, Draw
from sweep.search.space import conditions_of, on_step

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
    """Proposes parameters, and receives their outcomes.  Not thread-safe."""

    def __init__(self, search: Search, length: TrialLength) -> None:
        self._search = search
        self._distributions = {key: _distribution(axis) for key, axis in search.space.axes.items()}
        self._conditions = conditions_of(search)
        self._storage = optuna.storages.InMemoryStorage()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            pruner = resolve(PRUNERS, search.pruner, "pruner")(length)
        # Hyperband assigns brackets by this name, which must therefore not be random.
        self._study = optuna.create_study(
            storage=self._storage, pruner=pruner, direction=search.aim, study_name="search"
        )
        #: proposal -> its trial number in Optuna's study, which also numbers planned trials
        self._numbers: dict[int, int] = {}

    def add_evidence(self, params: Mapping[str, Any], value: float, reported: Mapping[int, float]) -> None:
        """Adds a finished configuration that was not proposed, if it lies in the space."""
        distributions = self._of(params)
        if not math.isfinite(value) or not all(
            distribution._contains(distribution.to_internal_repr(params[key]))
            for key, distribution in distributions.items()
        ):
            return
        self._study.add_trial(
            optuna.create_trial(
                params=dict(params),
                distributions=distributions,
                value=value,
                intermediate_values=dict(reported),
            )
        )

    def ask(self, number: int) -> dict[str, Any]:
        """The parameters of proposal `number`."""
        return self._ask(number).params

    def recall(self, number: int, params: Mapping[str, Any]) -> None:
        """Replays a proposal of an earlier driver.

        Call it in the order of the proposals, and `tell` the outcome of each that has ended before the next.
        """
        attributes: dict[str, Any] = {}
        if self._search.sampler in STATEFUL:
            again = self._ask(number)
            if again.params == params:
                return
            # Other trials ran at the same time, and finished in another order than they are replayed now.
            attributes = self._frozen(number).system_attrs
            self._study.tell(again, state=TrialState.FAIL)
        self._study.add_trial(
            optuna.create_trial(
                state=TrialState.RUNNING,
                params={key: _in(self._distributions[key], value) for key, value in params.items()},
                distributions=self._of(params),
                system_attrs=attributes,
            )
        )
        self._numbers[number] = len(self._study.get_trials(deepcopy=False)) - 1

    def _ask(self, number: int) -> optuna.Trial:
        sampler = resolve(SAMPLERS, self._search.sampler, "sampler")
        earlier = [self._frozen(each).params for each in self._numbers]
        self._study.sampler = sampler(Draw(self._distributions, self._conditions, self._search.seed, number, earlier))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            trial = self._study.ask()
            for key in self._conditions.in_order():
                if self._conditions.applies(key, trial.params):
                    trial._suggest(key, self._distributions[key])
        self._numbers[number] = trial.number
        return trial

    def _of(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """The distributions of the axes that apply, which are those with a parameter."""
        return {key: distribution for key, distribution in self._distributions.items() if key in params}

    def tell(self, number: int, outcome: Outcome) -> None:
        """Records the outcome of a proposal."""
        trial = self._numbers[number]
        if outcome.state == "pruned":
            self._study.tell(trial, state=TrialState.PRUNED)
        elif outcome.state == "failed" or outcome.value is None or not math.isfinite(outcome.value):
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, outcome.value)

    def report(self, number: int, values: Mapping[int, float]) -> bool:
        """Records the scores of a running trial so far: iteration -> value.  Returns whether it should be pruned.

        The pruner judges each score in its turn, also where several are new or the trial has ended: successive halving
        compares a trial only with those that it judged at the same iteration.
        """
        is_behind = self._should_prune(number)
        for step in sorted(values.keys() - self._frozen(number).intermediate_values.keys()):
            self._storage.set_trial_intermediate_value(self._frozen(number)._trial_id, step, values[step])
            is_behind |= self._should_prune(number)
        return is_behind

    def _should_prune(self, number: int) -> bool:
        """Whether the pruner rejects a trial by its last score."""
        return self._study.pruner.prune(self._study, self._frozen(number))

    def _frozen(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[self._numbers[number]]


def _distribution(axis: SearchAxis) -> BaseDistribution:
    if axis.choices is not None:
        return CategoricalDistribution(distinct_choices(axis))
    assert axis.low is not None
    assert axis.high is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that `high` becomes the last step below it
        if axis.int:
            return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
        return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)


def _in(distribution: BaseDistribution, value: Any) -> Any:
    """A parameter of a ledger, moved to the nearest step where rounding left it beside one, or above the last."""
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        return on_step(value, distribution.low, distribution.high, distribution.step)
    return value
