"""The contract of every pruner: it prunes a trial that is worse than all others, and no other trial."""

from __future__ import annotations

import math

import pytest

from sweep.file.schema import Search
from sweep.search import PRUNERS
from sweep.search.outcome import Outcome
from sweep.search.pruners import TrialLength
from sweep.search.study import Study

LENGTH = TrialLength(every=10, iterations=100)
STEPS = range(LENGTH.every, LENGTH.iterations + 1, LENGTH.every)
PRUNING = sorted(set(PRUNERS) - {"none"})


def study_of(pruner: str, aim: str = "maximize", length: TrialLength = LENGTH) -> Study:
    """A study of twenty finished configurations, scored 0 to 19."""
    space = {"train.batch_size": {"low": 1, "high": 64, "int": True}}
    content = {"space": space, "trials": 40, "sampler": "random", "pruner": pruner, "direction": aim}
    study = Study(Search.model_validate(content), length)
    for number in range(20):
        study.ask(number)
        study.report(number, {step: float(number) for step in STEPS})
        study.tell(number, Outcome("finished", float(number)))
    return study


def is_given_up(study: Study, number: int, score: float) -> bool:
    """Whether a trial with this score is pruned at any evaluation before its last."""
    study.ask(number)
    for step in STEPS[:-1]:
        if study.report(number, {step: score}):
            study.tell(number, Outcome("pruned"))
            return True
    return False


@pytest.mark.parametrize("aim", ["maximize", "minimize"])
@pytest.mark.parametrize("pruner", PRUNING)
def test_the_worst_trial_is_pruned_and_the_best_is_not(pruner: str, aim: str) -> None:
    study, sign = study_of(pruner, aim), 1 if aim == "maximize" else -1
    trailing, leading = (-100.0, 100.0) if sign > 0 else (100.0, -100.0)
    # Hyperband assigns brackets by number, and its last bracket prunes no trial.
    assert any(is_given_up(study, 20 + turn, trailing) for turn in range(4))
    assert not is_given_up(study, 30, leading)


@pytest.mark.parametrize("pruner", PRUNERS)
def test_no_trial_is_pruned_before_there_are_others_to_compare(pruner: str) -> None:
    space = {"train.batch_size": {"low": 1, "high": 64, "int": True}}
    study = Study(Search.model_validate({"space": space, "trials": 4, "pruner": pruner, "sampler": "random"}), LENGTH)
    study.ask(0)
    assert not study.report(0, {LENGTH.every: 0.0})
    study.tell(0, Outcome("finished", 1.0))


def test_none_lets_everybody_run_to_the_end() -> None:
    assert not is_given_up(study_of("none"), 20, -100.0)


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_score_that_is_no_number_ends_no_study(pruner: str) -> None:
    study = study_of(pruner)
    study.ask(20)
    study.report(20, {LENGTH.every: math.nan})
    study.tell(20, Outcome("failed"))


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("length", [TrialLength(1, 1), TrialLength(100, 10), TrialLength(7, 100)])
def test_every_length_of_training_is_taken(pruner: str, length: TrialLength) -> None:
    is_given_up(study_of(pruner, length=length), 20, 0.0)
