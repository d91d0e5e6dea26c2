"""The proposals of a search, for every sampler."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sweep.file.schema import Search
from sweep.search import SAMPLERS
from sweep.search.outcome import Outcome
from sweep.search.pruners import TrialLength
from sweep.search.study import Study

LENGTH = TrialLength(every=10, iterations=100)
FINITE = {"x": {"low": 0.0, "high": 1.0, "step": 0.125}, "kind": ["a", "b", "c"]}
ENDLESS = {
    "x": {"low": 0.0, "high": 1.0},
    "weight": {"low": 1e-4, "high": 1.0, "log": True},
    "count": {"low": 1, "high": 9, "int": True},
}
#: The Gaussian process takes a second for each proposal after its tenth.
PROPOSALS = {"gp": 12}


def search(sampler: str, **options: Any) -> Search:
    space = FINITE if sampler == "grid" else ENDLESS
    axes = {key: {"choices": axis} if isinstance(axis, list) else axis for key, axis in space.items()}
    return Search.model_validate({"space": axes, "trials": 24, "sampler": sampler} | options)


def value(params: dict[str, Any]) -> float:
    """The score; its maximum is at x = 0.3, weight = 0.01."""
    return -((params["x"] - 0.3) ** 2) - math.log10(params.get("weight", 0.01) / 0.01) ** 2 / 16


def undisturbed(options: Search, count: int) -> list[dict[str, Any]]:
    study, proposals = Study(options, LENGTH), []
    for number in range(count):
        proposals.append(study.ask(number))
        study.tell(number, Outcome("finished", value(proposals[-1])))
    return proposals


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("sampler", ["grid", "tpe"])
@pytest.mark.parametrize("last", [0.3, 0.7])
def test_steps_that_are_no_binary_fractions_are_proposed_and_recalled(sampler: str, last: float) -> None:
    axes = {"x": {"low": 0.1, "high": last, "step": 0.1}}
    options = Search.model_validate({"space": axes, "trials": 3, "sampler": sampler})
    first = Study(options, LENGTH)
    proposals = [first.ask(number) for number in range(3)]
    again = Study(options, LENGTH)
    for number, params in enumerate(proposals):
        again.recall(number, params)
    Study(options, LENGTH).recall(0, {"x": 0.1 + 0.2})  # above 0.3, as earlier versions proposed it


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interrupted_search_proposes_what_an_undisturbed_one_does(sampler: str) -> None:
    options, count = search(sampler), PROPOSALS.get(sampler, 24)
    proposals = undisturbed(options, count)
    assert len({str(params) for params in proposals}) == count, "a proposal was repeated"
    for killed_after in (1, count // 2, count - 1):
        study = Study(options, LENGTH)
        for number in range(killed_after):
            study.recall(number, proposals[number])
            study.tell(number, Outcome("finished", value(proposals[number])))
        assert study.ask(killed_after) == proposals[killed_after]


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("sampler", ["grid", "tpe"])
@pytest.mark.parametrize("axis", [{"low": 1, "high": 10, "step": 4, "int": True}, {"low": 1, "high": 10, "step": 4}])
def test_the_last_step_is_below_the_bound(sampler: str, axis: dict[str, Any]) -> None:
    options = Search.model_validate({"space": {"x": axis}, "trials": 3, "sampler": sampler})
    assert {params["x"] for params in undisturbed(options, 3 if sampler == "grid" else 20)} == {1, 5, 9}


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_seeds_distinguish_searches(sampler: str) -> None:
    first, second = (undisturbed(search(sampler, seed=seed), 3) for seed in (0, 1))
    assert first != second


def test_the_grid_sampler_visits_every_point_once() -> None:
    options = search("grid", trials=27)
    points = {(params["x"], params["kind"]) for params in undisturbed(options, 27)}
    assert points == {(index / 8, kind) for index in range(9) for kind in range(3)}


def test_a_grid_that_continues_a_search_visits_what_is_left() -> None:
    """Neither the sampler nor its seed starts a search anew."""
    earlier = undisturbed(search("grid", trials=27, seed=1), 20)
    study = Study(search("grid", trials=27), LENGTH)
    for number, params in enumerate(earlier):
        study.recall(number, params)
    left = [study.ask(number) for number in range(20, 27)]
    assert len({(params["x"], params["kind"]) for params in [*earlier, *left]}) == 27


@pytest.mark.parametrize("sampler", ["cmaes", "qmc"])
def test_proposals_of_several_at_a_time_are_recalled_as_they_were(sampler: str) -> None:
    options = search(sampler)
    study = Study(options, LENGTH)
    proposals = [study.ask(0), study.ask(1)]  # the second without knowing the first's value
    again = Study(options, LENGTH)
    for number, params in enumerate(proposals):
        again.recall(number, params)
        again.tell(number, Outcome("finished", value(params)))
    assert again.ask(2) not in proposals


def test_evidence_steers_it() -> None:
    """All good planned trials have x > 0.9, so proposals should concentrate there."""
    study = Study(search("tpe"), LENGTH)
    for index in range(40):
        params = {"x": index / 40, "weight": 0.01, "count": 5}
        study.add_evidence(params, 1.0 if index > 36 else 0.0, {})
    proposed = []
    for number in range(10):
        proposed.append(study.ask(number)["x"])
        study.tell(number, Outcome("finished", float(proposed[-1] > 0.9)))
    assert sum(x > 0.85 for x in proposed) >= 5


def test_evidence_outside_the_space_is_left_out() -> None:
    options = search("random")
    study = Study(options, LENGTH)
    study.add_evidence({"x": 7.0, "weight": 0.01, "count": 5}, 1.0, {})
    study.add_evidence({"x": 0.5, "weight": 0.01, "count": 5}, math.nan, {})
    assert study.ask(0) == Study(options, LENGTH).ask(0)


def test_failures_and_values_that_are_no_numbers_do_not_end_it() -> None:
    study = Study(search("tpe"), LENGTH)
    for number, told in enumerate([Outcome("failed"), Outcome("finished", math.nan), Outcome("pruned")]):
        study.ask(number)
        study.tell(number, told)
    assert study.ask(3)


@pytest.mark.parametrize(("score", "is_behind"), [(0.0, True), (0.5, False)])
def test_halving_judges_each_iteration_of_trials_whose_scores_are_read_at_once(score: float, is_behind: bool) -> None:
    """They are read at once after a restart; those at iteration 10 are compared with it, and not the last ones."""
    options = search("random", pruner="halving")
    study, first = Study(options, LENGTH), Study(options, LENGTH)
    for number in range(8):
        study.recall(number, first.ask(number))
        study.report(number, {10: 0.1, 20: 0.6, 40: 0.9})
        study.tell(number, Outcome("finished", 0.9))
    study.ask(8)
    assert not study.report(8, {})
    assert study.report(8, {10: score}) is is_behind


CONDITIONAL = {
    "count": {"low": 1, "high": 9, "int": True},
    "kind": ["a", "b", "c"],
    "x": {"low": 0.0, "high": 1.0, "step": 0.125},
    "y": {"low": 0.0, "high": 1.0, "step": 0.125},
    "weight": {"low": 1, "high": 4, "int": True},
    "when": {"count": {"kind": ["b", "c"]}, "weight": {"kind": "c"}},
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_axes_are_proposed_only_where_they_apply(sampler: str) -> None:
    options = Search.model_validate({"space": CONDITIONAL, "trials": 24, "sampler": sampler})
    count = PROPOSALS.get(sampler, 24)
    study, proposals = Study(options, LENGTH), []
    for number in range(count):
        proposals.append(study.ask(number))
        study.tell(number, Outcome("finished", -((proposals[-1]["x"] - 0.3) ** 2)))
    expected = {0: {"kind", "x", "y"}, 1: {"kind", "x", "y", "count"}, 2: {"kind", "x", "y", "count", "weight"}}
    assert all(params.keys() == expected[params["kind"]] for params in proposals)
    assert {params["kind"] for params in proposals} == {0, 1, 2}
    again = Study(options, LENGTH)
    for number, params in enumerate(proposals[:-1]):
        again.recall(number, params)
        again.tell(number, Outcome("finished", -((params["x"] - 0.3) ** 2)))
    assert again.ask(count - 1) == proposals[-1]


def test_evidence_without_the_axes_that_do_not_apply_counts() -> None:
    options = Search.model_validate({"space": CONDITIONAL, "trials": 24})
    study = Study(options, LENGTH)
    for index in range(30):
        x = index % 9 / 8
        study.add_evidence({"kind": 0, "x": x, "y": 0.5}, float(x > 0.8), {})
        study.add_evidence({"kind": 1, "x": x, "y": 0.5, "count": 3}, 0.0, {})
    proposed = []
    for number in range(10):
        proposed.append(study.ask(number))
        study.tell(number, Outcome("finished", float(proposed[-1]["x"] > 0.8 and proposed[-1]["kind"] == 0)))
    assert sum(params["kind"] == 0 and params["x"] > 0.8 for params in proposed) >= 5
