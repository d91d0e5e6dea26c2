"""The state of trials, and the time that all of them still take."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from results.records.home import trial_folder
from results.records.journal import Journal
from results.records.monitor import Monitor
from results.records.plan import PlannedTrial
from results.records.trial_folder import JOURNAL_FILENAME
from sweep.run.progress import Clock, Totals, TrialState, in_words, shape, trial_state, unfinished_first

CONFIG = {
    "data": {"name": "chairs", "resolution": 32, "options": {"train": 4}},
    "train": {"batch_size": 2, "stages": [{"iterations": 100, "lr": 1e-4, "losses": {"l2": 1.0}}]},
    "eval": {"split": "test"},
    "seed": 0,
}


def planned(key: str, config: dict[str, Any] | None = None, **members: Any) -> PlannedTrial:
    return PlannedTrial(key, (f"trial {key}",), 0, config or CONFIG, **{"status": "pending", **members})


def write(home: Path, key: str, *events: dict[str, Any]) -> None:
    """Writes a journal with times in seconds after a common start."""
    folder = trial_folder(home, key)
    with Journal(folder) as journal:
        journal.start(0)
    path = folder / JOURNAL_FILENAME
    start = json.loads(path.read_text())
    moment = time.time() - 1000
    lines = [start | {"time": moment}, *({**event, "time": moment + event["time"]} for event in events)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def metrics(seconds: float, step: int, **values: float) -> dict[str, Any]:
    named = {name.replace("_", "/"): value for name, value in values.items()}
    return {"event": "metrics", "time": seconds, "step": step, "values": named}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (725, "12 min"),
        (3600, "1 h 0 min"),
        (4320, "1 h 12 min"),
        (3599, "1 h 0 min"),
        (97200, "1 d 3 h"),
        (86399, "1 d 0 h"),
    ],
)
def test_durations_are_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_validation_and_final_scores_are_two_numbers(tmp_path: Path) -> None:
    write(
        tmp_path, "a", metrics(50, 50, train_loss=0.5, val_psnr=14.28), metrics(100, 100, train_loss=0.4, val_psnr=14.5)
    )
    state = trial_state(planned("a"), Monitor(tmp_path))
    assert (state.validation_score, state.score) == (14.5, None)
    assert (state.step, state.steps, state.rate) == (100, 100, pytest.approx(1.0))
    write(tmp_path, "b", metrics(100, 100, val_psnr=14.5), metrics(160, 100, novel_psnr=13.58))
    state = trial_state(planned("b"), Monitor(tmp_path))
    assert (state.validation_score, state.score, state.evaluation_s) == (14.5, 13.58, pytest.approx(60))


def test_time_left_includes_the_evaluation(tmp_path: Path) -> None:
    """The first trial's evaluation took 60 s; the second has 50 s of training left, and the third all 100 s."""
    write(tmp_path, "done", metrics(100, 100, train_loss=0.4), metrics(160, 100, novel_psnr=13.58))
    write(tmp_path, "half", metrics(50, 50, train_loss=0.5))
    trials = [planned("done"), planned("half"), planned("waiting")]
    states = [trial_state(trial, Monitor(tmp_path)) for trial in trials]
    states[0] = TrialState(**{**vars(states[0]), "status": "finished"})
    left = Clock().left(trials, states)
    assert left == [0.0, pytest.approx(50 + 60), pytest.approx(100 + 60)]
    assert Totals.of(states, left, at_once=1).seconds_left == pytest.approx(270)
    assert Totals.of(states, left, at_once=2).seconds_left == pytest.approx(160), "the longest bounds the whole"


def test_a_training_of_several_trials_counts_once() -> None:
    """As in the estimate of `plan`; the last trial's is finished already."""
    trainings = ("a", "a", "b", "b", None, None)
    trials = [planned(str(number), training=training) for number, training in enumerate(trainings)]
    trials.append(planned("trained", training="c", status="to be evaluated"))
    states = [TrialState(trial.key, "x", 0, "pending", 0, 100) for trial in trials]
    states[1] = TrialState("1", "x", 0, "running", 50, 100, rate=2.0)
    assert Clock().left(trials, states) == pytest.approx([0, 25, 50, 0, 50, 50, 0])
    states[1] = TrialState("1", "x", 0, "finished", 100, 100, rate=2.0, evaluation_s=7.0)
    assert Clock().left(trials, states) == pytest.approx([7, 0, 57, 7, 57, 57, 7])


def test_trials_of_unknown_shape_are_estimated_from_all_others() -> None:
    clock, trials = Clock(), [planned("a"), planned("b", CONFIG | {"train": CONFIG["train"] | {"batch_size": 8}})]
    states = [TrialState(trial.key, "x", 0, "pending", 0, 100) for trial in trials]
    assert clock.left(trials, states) == [None, None]
    assert "time left not known yet" in str(Totals.of(states, [None, None], 1))
    states[0] = TrialState("a", "x", 0, "running", 50, 100, rate=2.0)
    assert clock.left(trials, states) == [pytest.approx(25), pytest.approx(50)]


def test_each_shape_is_estimated_once_however_many_trials_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    medians: list[int] = []
    monkeypatch.setattr("statistics.median", lambda values: medians.append(len(values)) or 1.0)
    trials = [planned(str(number)) for number in range(50)]
    states = [TrialState(trial.key, "x", 0, "running", 50, 100, rate=2.0) for trial in trials]
    Clock().left(trials, states)
    assert len(medians) <= 6, "one for each shape and one for all, of three quantities"


def test_shapes_leave_out_what_costs_nothing() -> None:
    def with_stage(**changes: Any) -> str:
        stage = CONFIG["train"]["stages"][0] | changes
        return shape(CONFIG | {"seed": 7, "train": CONFIG["train"] | {"stages": [stage]}})

    assert with_stage(lr=1.0, losses={"l2": 3.0}, iterations=7) == shape(CONFIG)
    assert with_stage(losses={"l2": 1.0, "lpips": 0.1}) != shape(CONFIG)
    assert with_stage(losses={"l2": {"weight": 1.0, "views": 1}}) != shape(CONFIG)


def test_totals_are_one_line() -> None:
    states = [
        *[TrialState(f"f{i}", "x", i, "finished", 100, 100) for i in range(13)],
        *[TrialState(f"r{i}", "x", i, "running", 50, 100) for i in range(2)],
        *[TrialState(f"p{i}", "x", i, "pending", 0, 100) for i in range(3)],
        TrialState("e", "x", 0, "failed", 10, 100),
    ]
    totals = Totals.of(states, [0.0] * 13 + [1080.0] * 2 + [2160.0] * 3 + [0.0], at_once=2, before=1)
    assert str(totals) == "14 of 20 done, 2 running, 1 failed, about 1 h 12 min left"
    assert str(Totals.of(states[:13], [0.0] * 13, 2)) == "13 of 13 done"


def test_running_trials_are_first() -> None:
    states = [TrialState(s, s, 0, s, 0, 1) for s in ("finished", "pending", "failed", "running", "interrupted")]
    order = [states[index].status for index in unfinished_first(states)]
    assert order == ["running", "interrupted", "failed", "pending", "finished"]
