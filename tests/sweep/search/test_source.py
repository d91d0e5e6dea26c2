"""The source of a search, with trials that are not trained: a known function gives their results."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results.records.journal import Journal
from results.records.ledger import FILENAME, read_proposals
from results.records.monitor import Monitor
from results.records.trial_folder import PRUNE_FILENAME, trial_status
from sweep.file.schema import Sweep
from sweep.plan.plan_diff import reasons
from sweep.plan.planner import Plan, PlannedTrial, make_plan
from sweep.search.source import SearchQueue
from tests.homes import write_result
from tests.processes import wait_for

WEIGHT = "train.stages.0.losses.tv.weight"
LR = "train.stages.0.lr"


def sweep(
    tiny: Callable[..., dict[str, Any]],
    *,
    trials: int = 6,
    planned: dict[str, Any] | None = None,
    seeds: tuple[int, ...] = (0,),
    **more: Any,
) -> Sweep:
    options = {
        "space": {
            WEIGHT: {"low": 1e-4, "high": 1.0, "log": True},
            LR: {"low": 1e-5, "high": 1e-1, "log": True},
        },
        "trials": trials,
        "sampler": "random",
    }
    top = {"name": "s", "base": tiny(), "trials": planned or {}, "seeds": list(seeds)}
    return Sweep.model_validate(top | {"search": options | more})


def score(trial: PlannedTrial) -> float:
    """The simulated PSNR of a trial; its maximum is 30, at weight 0.02 and learning rate 0.003."""
    stage = trial.config.train.stages[0]
    distance = math.log10(stage.losses["tv"].weight / 0.02) ** 2 + math.log10(stage.lr / 0.003) ** 2
    return 30 - distance - trial.seed


def finish(home: Path, trial: PlannedTrial) -> None:
    write_result(home / "trials" / trial.key, metrics={"novel/psnr": score(trial)})


def source(options: Sweep, home: Path, **more: Any) -> SearchQueue:
    plan = make_plan(options, home)
    (home / "sweeps" / "s").mkdir(parents=True, exist_ok=True)
    return SearchQueue(options, home, plan, [trial for trial in plan.trials if trial.is_unfinished], **more)


def drain(trials: SearchQueue, home: Path, end: Callable[[Path, PlannedTrial], None] = finish) -> list[PlannedTrial]:
    """Runs all trials of the source, one at a time."""
    ran = []
    while (trial := trials.next()) is not None:
        ran.append(trial)
        end(home, trial)
        trials.ended(trial)
    return ran


def ledger(home: Path) -> list[str]:
    return (home / "sweeps" / "s" / FILENAME).read_text().splitlines()


def test_it_proposes_the_configured_number(home, tiny):
    ran = drain(source(sweep(tiny), home), home)
    assert [trial.name for trial in ran] == [f"search-{number:04}" for number in range(6)]
    plan = make_plan(sweep(tiny), home)
    assert [trial.key for trial in plan.trials] == [trial.key for trial in ran]
    assert (plan.search.proposed, plan.search.ended, plan.search.left) == (6, 6, 0)
    assert "6 of 6 configurations tried, 0 left" in str(plan.search)
    assert drain(source(sweep(tiny), home), home) == []


def test_the_plan_grows_before_a_trial_is_handed_out(home, tiny):
    plans: list[Plan] = []
    trials = source(sweep(tiny), home, on_growth=plans.append)
    first = trials.next()
    assert [trial.key for trial in plans[-1].trials] == [first.key]
    assert plans[-1].search.open == ()
    assert plans[-1].refreshed(Monitor(home)).search.open == (0,)


@pytest.mark.parametrize("state", ["never began", "was interrupted", "had ended"])
def test_after_a_crash_the_study_continues(home, tiny, tmp_path, state):
    options = sweep(tiny, sampler="tpe")
    trials = source(options, home)
    for _ in range(3):
        trial = trials.next()
        finish(home, trial)
        trials.ended(trial)
    hanging = trials.next()
    if state == "was interrupted":
        with Journal(home / "trials" / hanging.key) as journal:
            journal.start(0)
            journal.stopped()
    elif state == "had ended":
        finish(home, hanging)
    ran = drain(source(options, home), home)
    assert (hanging.key in [trial.key for trial in ran]) == (state != "had ended")
    assert len(ran) == (2 if state == "had ended" else 3)
    interrupted = ledger(home)
    for folder in ("trials", "sweeps"):
        (home / folder).rename(tmp_path / folder)
    drain(source(options, home), home)
    assert interrupted == ledger(home)


def test_a_line_that_a_crash_cut_short_was_never_proposed(home, tiny):
    trials = source(sweep(tiny), home)
    trials.next()
    path = home / "sweeps" / "s" / FILENAME
    whole = path.read_text()
    path.write_text(whole + whole[: len(whole) // 2])
    drain(source(sweep(tiny), home), home)
    assert [json.loads(line)["number"] for line in ledger(home)] == list(range(6))


def test_what_has_a_result_is_not_run(home, tiny):
    """All points of this space have results: two from planned trials, one from another sweep."""
    space = {"train.batch_size": [2, 3], "train.ema": [None]}
    planned = {"a": {"train.batch_size": 2, WEIGHT: 1.0}, "b": {"train.batch_size": 3}}
    options = sweep(tiny, space={**space, WEIGHT: [1.0]}, sampler="grid", trials=2, planned=planned)
    trials = source(options, home)
    ran = drain(trials, home, lambda home, trial: finish(home, trial) if trial.name != "b" else None)
    assert [trial.name for trial in ran[:2]] == ["a", "b"]
    assert [trial.config.train.batch_size for trial in ran[2:]] == [3], "batch size 2 was planned, and had run"
    folded = {name for trial in trials.plan.trials for name in trial.names if trial.names[0] == "a"}
    assert folded > {"a"}
    assert trials.plan.refreshed(Monitor(home)).search.ended == 2


def test_planned_trials_run_first_and_count_as_evidence(home, tiny):
    """The sampler learns the optimum from them, and proposes only points near it."""
    planned = {
        f"{weight} {lr}": {WEIGHT: weight, LR: lr}
        for weight in (1e-4, 1e-3, 0.02, 0.1, 1.0)
        for lr in (1e-5, 1e-3, 3e-3, 1e-1)
    }
    ran = drain(source(sweep(tiny, sampler="tpe", trials=20, planned=planned), home), home)
    assert [trial.name for trial in ran[: len(planned)]] == list(planned)
    proposed = [score(trial) for trial in ran[len(planned) :]]
    assert len(proposed) == 20
    assert sum(proposed[:10]) / 10 > 27


def test_several_seeds_are_one_configuration(home, tiny):
    ran = drain(source(sweep(tiny, trials=2, seeds=(0, 5)), home), home)
    assert [(trial.name, trial.seed) for trial in ran] == [
        ("search-0000", 0),
        ("search-0000", 5),
        ("search-0001", 0),
        ("search-0001", 5),
    ]


def fail(home: Path, trial: PlannedTrial) -> None:
    with Journal(home / "trials" / trial.key) as journal:
        journal.failed("of itself")


def prune(home: Path, trial: PlannedTrial) -> None:
    with Journal(home / "trials" / trial.key) as journal:
        journal.start(0)
        journal.pruned("behind")


def test_failures_count_and_can_be_retried(home, tiny):
    options = sweep(tiny, trials=4)
    ran = drain(source(options, home), home, fail)
    assert len(ran) == 4
    assert make_plan(options, home).search.left == 0
    more = sweep(tiny, trials=5)
    again = drain(source(more, home, retried={ran[1].key}), home)
    assert [trial.name for trial in again] == ["search-0001", "search-0004"]


def test_after_a_stop_nothing_is_proposed(home, tiny):
    stop_file = home / "stop"
    trials = source(sweep(tiny), home, stop_file=stop_file)
    assert trials.next() is not None
    stop_file.touch()
    assert trials.next() is None
    assert len(ledger(home)) == 1


def test_another_space_is_another_study(home, tiny):
    drain(source(sweep(tiny, trials=2), home), home)
    other = sweep(tiny, trials=2, space={WEIGHT: {"low": 1e-3, "high": 1.0, "log": True}})
    ran = drain(source(other, home), home)
    assert [trial.name for trial in ran] == ["search-0000", "search-0001"]
    assert len(ledger(home)) == 4
    study = make_plan(other, home).search.study
    assert len(read_proposals(home / "sweeps" / "s", study)) == 2


def test_a_trial_behind_the_others_gets_a_prune_request(home, tiny):
    """Five good trials, then a bad one: while it trains, the pruner writes its file."""
    options = sweep(tiny, trials=6, pruner="median")
    trials = source(options, home)
    for _ in range(5):
        trial = trials.next()
        with Journal(home / "trials" / trial.key) as journal:
            journal.start(0)
            journal.metrics(6, {"val/psnr": 20.0})
        finish(home, trial)
        trials.ended(trial)
    bad = trials.next()
    folder = home / "trials" / bad.key
    with trials.pruning(), Journal(folder) as journal:
        journal.start(0)
        journal.metrics(6, {"val/psnr": 5.0})
        wait_for((folder / PRUNE_FILENAME).exists, "a prune request")
        journal.pruned((folder / PRUNE_FILENAME).read_text())
    trials.ended(bad)
    assert trials.next() is None
    plan = make_plan(options, home)
    assert plan.trials[-1].status == "pruned"
    assert not plan.trials[-1].is_unfinished
    assert plan.search.left == 0


def evaluate(home: Path, trial: PlannedTrial, psnr: float) -> Path:
    """Starts a trial and evaluates it once; returns the file of a prune request."""
    folder = home / "trials" / trial.key
    with Journal(folder) as journal:
        journal.start(0)
        journal.metrics(6, {"val/psnr": psnr})
    return folder / PRUNE_FILENAME


def test_planned_trials_inform_the_pruner_and_are_not_pruned(home, tiny):
    planned = {f"planned {number}": {WEIGHT: number / 10} for number in range(1, 7)}
    space = {WEIGHT: {"low": 0.1, "high": 0.7, "step": 0.1}}
    trials = source(sweep(tiny, trials=7, sampler="grid", pruner="median", planned=planned, space=space), home)
    *good, kept = [trials.next() for _ in planned]
    for trial in good:
        evaluate(home, trial, 20.0)
        finish(home, trial)
        trials.ended(trial)
    requests = [evaluate(home, trial, 5.0) for trial in (kept, trials.next())]
    assert trials.next() is None
    trials._prune()
    assert [request.exists() for request in requests] == [False, True]


def bad_after_five_good(home: Path, tiny: Callable[..., dict[str, Any]]) -> tuple[SearchQueue, Path]:
    """A search whose first proposal is behind five planned trials, and the file of its prune request."""
    planned = {f"planned {number}": {WEIGHT: number / 10, LR: 1e-3} for number in range(1, 6)}
    trials = source(sweep(tiny, trials=1, pruner="median", planned=planned), home)
    for _ in planned:
        trial = trials.next()
        evaluate(home, trial, 20.0)
        finish(home, trial)
        trials.ended(trial)
    request = evaluate(home, trials.next(), 5.0)
    return trials, request


def test_scores_of_planned_trials_are_compared_before_any_proposal_has_ended(home, tiny):
    trials, request = bad_after_five_good(home, tiny)
    trials._prune()
    assert request.exists()


def test_a_prune_request_that_cannot_be_written_is_repeated(home, tiny, caplog):
    trials, request = bad_after_five_good(home, tiny)
    request.mkdir()
    trials._prune()
    assert str(request) in caplog.text
    request.rmdir()
    trials._prune()
    assert request.is_file()


def test_what_was_pruned_runs_on_once_the_search_has_no_pruner(home, tiny):
    (pruned,) = drain(source(sweep(tiny, trials=1, pruner="median"), home), home, prune)
    request = home / "trials" / pruned.key / PRUNE_FILENAME
    request.write_text("behind")
    assert source(sweep(tiny, trials=1, pruner="median"), home).next() is None
    assert request.exists()
    assert source(sweep(tiny, trials=1), home).next().key == pruned.key
    assert not request.exists()


def test_tree_structured_estimators_beat_random_draws(home, tiny):
    """The optimum is 30; after the same number of proposals, the distance to it is a fraction of random's."""
    missing = {}
    for sampler in ("random", "tpe"):
        ran = drain(source(sweep(tiny, trials=250, sampler=sampler), home), home)
        assert len(ran) == 250
        missing[sampler] = 30 - max(score(trial) for trial in ran)
        for folder in ("trials", "sweeps"):
            (home / folder).rename(home / f"{folder} of {sampler}")
    assert missing["tpe"] < missing["random"] / 4


def test_the_status_of_a_pruned_trial_is_shown(tmp_path):
    with Journal(tmp_path) as journal:
        journal.start(0)
        journal.pruned("behind")
    assert trial_status(tmp_path) == "pruned"


def test_what_was_pruned_runs_again_only_where_it_is_planned(home, tiny):
    options = sweep(tiny, trials=1)
    (pruned,) = drain(source(options, home), home, prune)
    plan = make_plan(options, home)
    assert (plan.pending, reasons(plan, home).keys() & {pruned.key}) == (plan.controls, set())
    stage = pruned.config.train.stages[0]
    planned = sweep(tiny, trials=1, planned={"again": {WEIGHT: stage.losses["tv"].weight, LR: stage.lr}})
    plan = make_plan(planned, home)
    assert [(trial.names, trial.is_unfinished) for trial in plan.trials] == [(("again", "search-0000"), True)]
    assert str(reasons(plan, home)[pruned.key]) == "pruned: at iteration 0 of 18"
