"""Seeds that are added until rows are decided; trials are not trained, and a known function gives their scores."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from results.records.frozen_plans import freeze, read_plan
from results.records.home import training_folder
from results.records.journal import Journal
from results.records.plan import Plan, PlannedTrial
from sweep.file.schema import Sweep
from sweep.plan.estimate import estimate
from sweep.plan.planner import make_plan, plan_table
from sweep.seeds.source import SeedQueue
from tests.homes import write_result

#: row -> its difference to the baseline in standard deviations of a training
EFFECTS = {"baseline": 0.0, "large": 40.0, "small": -2.0, "none": 0.0}


def sweep(tiny: Callable[..., dict[str, Any]], **rule: Any) -> Sweep:
    rows = {"baseline": {}} | {name: {"train.batch_size": 3 + i} for i, name in enumerate(list(EFFECTS)[1:])}
    seeds = {"at_least": 3, "at_most": 6, "until": "decided"} | rule
    return Sweep.model_validate({"name": "s", "base": tiny(), "trials": rows, "seeds": seeds})


def score(trial: PlannedTrial) -> float:
    noise = np.random.default_rng([trial.seed, sorted(EFFECTS).index(trial.name)]).standard_normal()
    return 20 + EFFECTS[trial.name] + float(noise)


def finish(home: Path, trial: PlannedTrial) -> None:
    write_result(home / "trials" / trial.key, metrics={"novel/psnr": score(trial)})


def fail(home: Path, trial: PlannedTrial) -> None:
    with Journal(home / "trials" / trial.key) as journal:
        journal.start(0)
        journal.failed("of its own")


def source(options: Sweep, home: Path, **more: Any) -> SeedQueue:
    plan = make_plan(options, home)
    return SeedQueue(options, home, plan, [trial for trial in plan.trials if trial.is_unfinished], **more)


def drain(
    trials: SeedQueue, home: Path, at_once: int = 1, end: Callable[[Path, PlannedTrial], None] = finish, most: int = 99
) -> list[PlannedTrial]:
    """Runs at most `most` trials of the source, `at_once` at a time; the last one to start ends first."""
    ran: list[PlannedTrial] = []
    running: list[PlannedTrial] = []
    while True:
        while len(running) < at_once and len(ran) < most and (trial := trials.next()) is not None:
            ran.append(trial)
            running.append(trial)
        if not running:
            return ran
        assert trials.is_growing
        trial = running.pop()
        end(home, trial)
        trials.ended(trial)


def seeds_of(plan: Plan) -> dict[str, list[int]]:
    return {name: [trial.seed for trial in plan.trials if trial.name == name] for name in EFFECTS}


def test_rows_get_seeds_until_they_are_decided(home, tiny) -> None:
    said: list[str] = []
    trials = source(sweep(tiny), home, say=said.append)
    assert seeds_of(trials.plan) == {name: [0, 1, 2] for name in EFFECTS}
    drain(trials, home)
    plan, ran = trials.settled()
    states = {ruling.row: (ruling.state, ruling.seeds) for ruling in plan.seeds.rulings}
    assert states["large"][0] == "better"
    assert states["large"][1] < 6
    assert states["none"][0] in ("futile", "undecided")
    assert {name: len(seeds) for name, seeds in seeds_of(plan).items() if name != "baseline"} == {
        name: seeds for name, (_, seeds) in states.items()
    }
    assert seeds_of(plan)["baseline"] == list(range(max(seeds for _, seeds in states.values())))
    assert [trial.key for trial in ran] == [trial.key for trial in plan.trials]
    (ruling,) = [text for text in said if "large" in text]
    assert re.match(r"large after \d+ seeds: better than the baseline \(novel_psnr \+", ruling)
    assert trials.next() is None
    assert not trials.is_growing


@pytest.mark.parametrize("killed_after", [1, 5, 12, 14, 16])
@pytest.mark.parametrize("at_once", [1, 3])
def test_killed_and_run_again_it_decides_the_same(home, tiny, killed_after, at_once) -> None:
    options = sweep(tiny)
    drain(source(options, home), home, at_once=2, most=killed_after)
    resumed = source(options, home)
    drain(resumed, home, at_once)
    plan, _ = resumed.settled()
    other = home.parent / "other"
    other.mkdir()
    (other / "data").symlink_to(home / "data")
    whole = source(options, other)
    drain(whole, other)
    assert whole.settled()[0].seeds == plan.seeds
    assert make_plan(options, home).seeds == plan.seeds
    assert [trial.key for trial in make_plan(options, home).trials] == [trial.key for trial in plan.trials]


def test_the_plan_grows_before_a_trial_is_handed_out_and_is_read_back(home, tiny) -> None:
    plans: list[Plan] = []
    trials = source(sweep(tiny), home, on_growth=plans.append)
    for trial in drain(trials, home):
        assert trial.key in {planned.key for planned in (plans[-1] if plans else trials.plan).trials}
    freeze(trials.plan, home)
    assert read_plan("s", home).seeds == trials.plan.seeds


def test_a_failed_trial_holds_its_own_row_alone(home, tiny) -> None:
    def end(folder: Path, trial: PlannedTrial) -> None:
        (fail if (trial.name, trial.seed) == ("small", 1) else finish)(folder, trial)

    trials = source(sweep(tiny), home)
    drain(trials, home, end=end)
    plan, _ = trials.settled()
    states = {ruling.row: ruling for ruling in plan.seeds.rulings}
    assert (states["small"].state, states["small"].seeds) == ("open", 1)
    assert states["large"].state == "better"
    assert states["none"].is_final
    again = make_plan(sweep(tiny), home)
    assert [trial.name for trial in again.failed] == ["small"]
    retried = SeedQueue(sweep(tiny), home, again, again.failed, is_to_run=lambda _: True)
    drain(retried, home)
    assert all(ruling.is_final for ruling in retried.settled()[0].seeds.rulings)


def test_a_stopped_sweep_counts_the_seeds_that_would_come(home, tiny, tmp_path) -> None:
    stop = tmp_path / "stop"
    trials = source(sweep(tiny), home, stop_file=stop)
    ran = drain(trials, home, most=12)
    stop.touch()
    assert trials.next() is None
    plan, involved = trials.settled()
    assert len(involved) > len(ran) or all(ruling.is_final for ruling in plan.seeds.rulings)
    assert any(trial.is_unfinished for trial in involved)


def train(home: Path, trial: PlannedTrial) -> None:
    folder = training_folder(home, str(trial.training))
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").touch()
    (folder / "training.json").write_text(json.dumps({"key": trial.training}))


def test_an_evaluation_anew_reaches_the_seeds_that_were_added_and_trains_nothing(home, tiny) -> None:
    first = source(sweep(tiny), home)
    ran = drain(first, home, end=lambda folder, trial: (train(folder, trial), finish(folder, trial)))
    anew = sweep(tiny)
    anew = Sweep.model_validate(anew.model_dump() | {"base": tiny(eval={"objects": 1})})
    plan = make_plan(anew, home)
    assert len(plan.trials) < len(ran), "the rows begin with their first seeds"
    judged = [trial for trial in plan.trials if trial.status == "to be evaluated"]
    trials = SeedQueue(anew, home, plan, judged, is_to_run=lambda trial: trial.status == "to be evaluated")
    assert len(drain(trials, home)) == len(ran)
    assert seeds_of(trials.settled()[0]) == seeds_of(first.settled()[0])


def test_an_evaluation_anew_waits_for_no_training(home, tiny) -> None:
    first = source(sweep(tiny), home)
    for trial in first.plan.trials:
        train(home, trial)
    plan = make_plan(sweep(tiny), home)
    trials = SeedQueue(sweep(tiny), home, plan, plan.trials, is_to_run=lambda trial: trial.status == "to be evaluated")
    ran = drain(trials, home)
    plan, involved = trials.settled()
    assert [trial.key for trial in involved] == [trial.key for trial in ran] == [t.key for t in first.plan.trials]
    assert len(plan.trials) > len(ran), "an open row lacks a seed that is not trained"


def test_only_some_rows_get_more_seeds(home, tiny) -> None:
    trials = source(sweep(tiny), home, is_wanted=lambda name: name == "none")
    drain(trials, home)
    assert {name: len(seeds) for name, seeds in seeds_of(trials.plan).items() if name != "none"} == {
        "baseline": 3,
        "large": 3,
        "small": 3,
    }


def test_finished_seeds_of_another_sweep_are_not_run_again(home, tiny) -> None:
    listed = sweep(tiny).model_copy(update={"seeds": (0, 1, 2, 3, 4, 5)})
    for trial in make_plan(listed, home).trials:
        finish(home, trial)
    trials = source(sweep(tiny), home)
    assert drain(trials, home) == []
    assert all(ruling.is_final for ruling in trials.settled()[0].seeds.rulings)


def test_possible_seeds_are_shown_and_estimated(home, tiny) -> None:
    plan = make_plan(sweep(tiny), home)
    assert sum(plan.seeds.may_come.values()) == 4 * 3
    console = Console(width=80)
    with console.capture() as shown:
        console.print(plan_table(plan))
    words = " ".join(shown.get().split())
    assert "3 to 6 seeds a row until novel_psnr is decided against baseline: 0 of 3 rows stopped" in words
    assert "up to 12 more trials may come" in words
    expected = estimate(plan, home, sweep(tiny).run)
    assert len(expected.further) == 12
    assert "up to 12 more may come" in str(expected)
    assert expected.as_json()["further_trials"] == 12
    finished = source(sweep(tiny), home)
    drain(finished, home)
    assert estimate(make_plan(sweep(tiny), home), home, sweep(tiny).run).further == []


def test_a_changed_rule_is_remembered_once_a_trial_was_trained(home, tiny) -> None:
    first, longer = sweep(tiny), sweep(tiny, at_most=8)
    freeze(make_plan(first, home), home)
    plan = make_plan(longer, home)
    assert plan.seeds.former == ()
    freeze(plan, home)
    finish(home, plan.trials[0])
    changed = make_plan(first, home)
    assert changed.seeds.former == ("3 to 8 seeds until novel_psnr is decided against baseline, alpha 0.05",)
    freeze(changed, home)
    assert make_plan(first, home).seeds.former == changed.seeds.former
    assert make_plan(longer, home).seeds.former == (changed.seeds.rule,), "it is the rule again"


def test_fewer_rows_another_baseline_and_listed_seeds_are_other_rules(home, tiny) -> None:
    options = sweep(tiny)
    listed = options.model_copy(update={"seeds": (0, 1)})
    freeze(make_plan(listed, home), home)
    finish(home, make_plan(listed, home).trials[0])
    plan = make_plan(options, home)
    assert plan.seeds.former == ("seeds 0, 1 for all rows",)
    freeze(plan, home)
    fewer = options.model_copy(update={"trials": {k: v for k, v in options.trials.items() if k != "small"}})
    rule = "3 to 6 seeds until novel_psnr is decided against baseline, alpha 0.05"
    assert make_plan(fewer, home).seeds.former[1:] == (f"{rule}, also for small",)
    against = make_plan(options.model_copy(update={"baseline": "none"}), home)
    assert rule in " ".join(against.seeds.former)
    assert "against none" in against.seeds.rule
    new_names = {"baseline": "plain", "small": "little"}
    renamed = {new_names.get(name, name): row for name, row in options.trials.items()}
    plan = make_plan(options.model_copy(update={"trials": renamed, "baseline": "plain"}), home)
    assert "against plain" in plan.seeds.rule
    assert plan.seeds.former == ("seeds 0, 1 for all rows",), "other names are no other rule"
