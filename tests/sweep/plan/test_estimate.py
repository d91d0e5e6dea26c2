import json
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from jobs.config import TrialConfig
from jobs.continuation import Beginning
from jobs.model_file import export_trial
from jobs.trial import TrialResult
from model.weights import WeightStore
from results.records.journal import Journal
from results.records.trial_folder import RESULT_FILENAME
from sweep.file.schema import RunOptions
from sweep.plan.estimate import (
    _COUNTED,
    _WARM_UP,
    Cost,
    Estimate,
    _shortened,
    _step_seconds,
    estimate,
    measure,
    trials_at_once,
)
from sweep.plan.planner import Plan, PlannedTrial
from sweep.run.progress import shape
from tests.trained import trained

INLINE = RunOptions(executor="inline")
STAGES = [
    {"iterations": 30, "lr": 1e-3, "losses": {"l2": 1.0}},
    {"iterations": 10, "lr": 1e-4, "losses": {"l2": 0.9, "lpips": 0.1}},
]


def _config(**sections: Any) -> TrialConfig:
    return TrialConfig.model_validate({"train": {"stages": STAGES}, **sections})


def _stages(scale: int = 1, **changes: Any) -> dict[str, Any]:
    return {"train": {"stages": [{**stage, "iterations": stage["iterations"] * scale, **changes} for stage in STAGES]}}


def _trial(config: TrialConfig, key: str) -> PlannedTrial:
    return PlannedTrial(key, (key,), config.seed, config, "pending")


def _plan(*configs: TrialConfig) -> Plan:
    trials = [_trial(config, f"planned{index}") for index, config in enumerate(configs)]
    return Plan("a", "now", tuple(t for t in trials if t.config.is_trained), ())


def _set_times(folder: Path, times: Iterable[float]) -> None:
    """Replaces the times of a journal's events."""
    path = folder / "journal.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [json.dumps(event | {"time": time}) + "\n" for event, time in zip(events, times, strict=True)]
    path.write_text("".join(lines))


def _finish(
    home: Path, key: str, config: TrialConfig, *, step_s: float = 0.5, host: str | None = None, device: str = "cpu"
) -> None:
    """Writes the files of a finished trial that trained for `step_s` per iteration and took another 7 s."""
    folder = home / "trials" / key
    with Journal(folder) as journal:
        journal.start(0)
        steps = config.train.iterations
        journal.metrics(steps, {"time/train_s": steps * step_s})
    _set_times(folder, [0, steps * step_s + 7])
    (folder / "config.json").write_text(json.dumps(config.identity()))
    environment = {"host": host or socket.gethostname(), "arithmetic": [{"device": device}]}
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / RESULT_FILENAME).write_text("{}")
    (folder / "training.json").write_text(json.dumps({"key": f"training of {key}"}))
    training = home / "trainings" / f"training of {key}"
    training.mkdir(parents=True)
    (training / "weights.safetensors").write_bytes(bytes(1_000_000))


@pytest.mark.parametrize(
    "sections",
    [
        {"seed": 3},
        _stages(lr=0.5),
        _stages(scale=7),
        {"train": {"stages": [STAGES[0], *STAGES, STAGES[1] | {"lr": 1e-5}]}},
        {"data": {"name": "chairs", "options": {"views": 3}}},
    ],
)
def test_what_costs_nothing_is_not_in_the_shape(sections: dict[str, Any]) -> None:
    assert shape(_config(**sections).identity()) == shape(_config().identity())


@pytest.mark.parametrize(
    "sections",
    [
        {"depth": {"model": "oracle"}},
        {"data": {"resolution": 64}},
        _stages(losses={"l2": 1.0, "tv": 0.1}),
        {"eval": {"every": 5}},
        {"model": {"name": "blank"}},
    ],
)
def test_what_costs_is_in_the_shape(sections: dict[str, Any]) -> None:
    assert shape(_config(**sections).identity()) != shape(_config().identity())


def test_costs_are_estimated_from_finished_trials_of_the_same_shape(tmp_path: Path) -> None:
    for key, step_s in (("first", 0.5), ("second", 0.6), ("third", 2.0)):
        _finish(tmp_path, key, _config(), step_s=step_s)
    found = estimate(_plan(_config(seed=1), _config(**_stages(scale=10))), tmp_path, INLINE)
    assert found.seconds == {"planned0": pytest.approx(40 * 0.6 + 7), "planned1": pytest.approx(400 * 0.6 + 7)}
    assert found.disk_bytes == pytest.approx(2e6, rel=0.01)
    assert found.wall_s == pytest.approx(440 * 0.6 + 14)
    assert str(found) == "2 to run: about 5 min, 1 at once, and 2.0 MB"


def test_only_the_iterations_that_are_left_of_a_continued_training_take_time(tmp_path: Path) -> None:
    _finish(tmp_path, "first", _config(), step_s=0.5)
    plan = _plan(_config(**_stages(scale=10)), _config(**_stages(scale=10), seed=1))
    continued = {
        "planned0": Beginning("before", 300, is_whole=True),
        "planned1": Beginning("before", 300, is_whole=False, obstacle="its state was not kept"),
    }
    found = estimate(plan, tmp_path, INLINE, continued=continued)
    assert found.seconds == {"planned0": pytest.approx(100 * 0.5 + 7), "planned1": pytest.approx(400 * 0.5 + 7)}


def test_a_trial_that_was_resumed_tells_only_what_its_iterations_took(tmp_path: Path) -> None:
    for key in ("first", "second", "whole"):
        _finish(tmp_path, key, _config())
        if key != "whole":
            with Journal(tmp_path / "trials" / key) as journal:
                journal.start(20)
                journal.metrics(40, {"time/train_s": 20.0})
    assert estimate(_plan(_config(seed=1)), tmp_path, INLINE).seconds == {"planned0": pytest.approx(40 * 0.5 + 7)}


def test_other_shapes_and_other_machines_tell_nothing(tmp_path: Path) -> None:
    _finish(tmp_path, "elsewhere", _config(), host="another")
    _finish(tmp_path, "other", _config(depth={"model": "oracle"}))
    found = estimate(_plan(_config()), tmp_path, INLINE)
    assert found.seconds == {"planned0": None}
    assert found.unknown == 1
    assert "--estimate measures them" in str(found)
    assert found.as_json()["unknown_trials"] == 1


def test_trials_on_a_cpu_tell_nothing_of_a_gpu(tmp_path: Path) -> None:
    _finish(tmp_path, "on the cpu", _config(), step_s=0.5)
    _finish(tmp_path, "on a gpu", _config(), step_s=0.1, device="cuda")
    for gpus, step_s in ((0, 0.5), (1, 0.1)):
        options = RunOptions(executor="inline", gpus_per_trial=gpus)
        assert estimate(_plan(_config()), tmp_path, options).seconds == {"planned0": pytest.approx(40 * step_s + 7)}


@pytest.mark.parametrize("damaged", ["journal.jsonl", "config.json", "environment.json"])
def test_damaged_trials_are_passed_over(tmp_path: Path, damaged: str) -> None:
    _finish(tmp_path, "whole", _config(), step_s=1)
    _finish(tmp_path, "damaged", _config(), step_s=50)
    (tmp_path / "trials" / "damaged" / damaged).write_text("{}\n" if damaged != "journal.jsonl" else "")
    assert estimate(_plan(_config()), tmp_path, INLINE).seconds == {"planned0": pytest.approx(47)}


def test_each_unknown_shape_is_probed_once(tmp_path: Path) -> None:
    _finish(tmp_path, "known", _config(), step_s=1)
    asked = []

    def probe(trial: PlannedTrial) -> Cost:
        asked.append(trial.key)
        return Cost(2.0, 1.0, 5.0)

    depth = {"depth": {"model": "oracle"}}
    plan = _plan(_config(seed=2), _config(**depth), _config(**depth, seed=1))
    found = estimate(plan, tmp_path, INLINE, probe)
    assert asked == ["planned1"]
    assert found.seconds == {"planned0": pytest.approx(47), "planned1": 81, "planned2": 81}


def test_the_longest_trial_bounds_the_whole() -> None:
    assert Estimate({"a": 10.0, "b": 1.0, "c": None}, 0, at_once=4).wall_s == 10
    assert Estimate(dict.fromkeys("abcdefgh", 10.0), 0, at_once=4).wall_s == 20
    assert str(Estimate({}, 0, 1)) == "nothing to run"


def test_how_many_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert trials_at_once(INLINE) == 1
    assert trials_at_once(RunOptions(cpus_per_trial=3)) == 2
    assert trials_at_once(RunOptions(max_concurrent=5)) == 5
    assert trials_at_once(RunOptions(cpus_per_trial=16)) == 1
    assert trials_at_once(RunOptions(gpus_per_trial=0.5)) == 4
    assert trials_at_once(RunOptions(gpus_per_trial=0.4)) == 4, "a share lies within one GPU"
    assert trials_at_once(RunOptions(gpus_per_trial=1)) == 2


def test_where_processes_are_not_bound_to_cores_all_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert trials_at_once(RunOptions(cpus_per_trial=4)) == 2


def test_a_probe_measures_and_leaves_nothing_behind(home: Path, tiny: Callable[..., dict[str, Any]]) -> None:
    config = TrialConfig.model_validate(tiny(depth={"model": "oracle", "fusion": "input"}))  # with features to compute
    before = sorted(path.name for path in home.iterdir())
    said: list[str] = []
    cost = measure(home, INLINE, said.append)(_trial(config, "key"))
    assert cost is not None
    assert 0 < cost.step_s < 10
    assert 0 < cost.rest_s < 600
    assert cost.disk_bytes > 100_000, "the weights"
    assert said == ["measuring key"]
    assert sorted(path.name for path in home.iterdir()) == sorted({*before, "cache", "data"})
    blank = measure(home, INLINE, said.append)(_trial(TrialConfig.model_validate(tiny(model={"name": "blank"})), "b"))
    assert blank is not None
    assert blank.step_s == 0


def test_a_probe_of_a_network_that_is_evaluated_as_it_is_takes_no_steps(
    home: Path, tiny: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLATSWEEP_WEIGHTS", str(tmp_path / "weights"))
    export_trial(home / "trials" / trained(home).key, tmp_path / "own.safetensors")
    WeightStore(tmp_path / "weights").adopt("network:own", tmp_path / "own.safetensors")
    config = TrialConfig.model_validate(tiny(train={"start": "network:own", "stages": []}))
    cost = measure(home, INLINE, print)(_trial(config, "given"))
    assert cost is not None
    assert cost.step_s == 0
    assert 0 < cost.rest_s < 600


@pytest.mark.parametrize(("every", "validations"), [(6, 3), (7, 4)])
def test_a_probe_counts_start_up_and_pictures_once(
    every: int, validations: int, home: Path, tiny: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps take 1 s; after the last one come three objects of 2 s, and 24 s of other work."""

    def run_trial(config: TrialConfig, home: Path, _runtime: object) -> TrialResult:
        steps = config.train.iterations
        with Journal(home) as journal:
            journal.start(0)
            for step in range(1, steps + 1):
                journal.metrics(step, {})
            journal.metrics(steps, {"time/object_s": 2.0})
        _set_times(home, [*range(steps + 1), steps + 30])
        return TrialResult("key", home, {}, 0, None)

    monkeypatch.setattr("sweep.plan.estimate.run_trial", run_trial)
    sections = tiny(data={"name": "chairs", "options": {"train": 2, "val": 1, "test": 4, "views": 4, "image_size": 16}})
    sections["eval"]["every"] = every
    cost = measure(home, INLINE, print)(_trial(TrialConfig.model_validate(sections), "key"))
    assert cost is not None
    assert cost.step_s == 1
    assert cost.rest_s == 24 + (2 + validations) * 2, "two objects at the end, and one at each validation"


def test_a_probe_of_a_gpu_counts_replays_alone() -> None:
    """Three steps that warm up and one that captures a graph take 9 s each, and a replay 1 s."""
    warm_up = _WARM_UP["cuda"]
    shortened = _shortened(_config(), warm_up + _COUNTED)
    seconds = [9.0 if index < 4 else 1.0 for stage in shortened.train.stages for index in range(stage.iterations)]
    events = [{"time": time} for time in accumulate(seconds, initial=0.0)]
    assert _step_seconds(_config(), events, warm_up) == 1


def test_a_failed_probe_is_no_estimate(home: Path, tiny: Callable[..., dict[str, Any]]) -> None:
    stages = [{"iterations": 12, "lr": 1e30, "losses": {"l2": 1.0}}]
    config = TrialConfig.model_validate(tiny(train={"batch_size": 2, "views_per_object": 3, "stages": stages}))
    said: list[str] = []
    assert measure(home, INLINE, said.append)(_trial(config, "key")) is None
    assert "finite" in said[-1]


def test_finished_trainings_cost_their_evaluation_and_shared_ones_cost_once(tmp_path: Path) -> None:
    _finish(tmp_path, "finished", _config(), step_s=0.5)
    iterations = _config().train.iterations
    trials = (
        replace(_trial(_config(seed=1), "judged"), status="to be evaluated", training="a"),
        replace(_trial(_config(seed=2), "first"), training="b"),
        replace(_trial(_config(seed=2), "second"), training="b"),
    )
    expected = estimate(Plan("a", "now", trials, ()), tmp_path, INLINE)
    assert expected.seconds == pytest.approx({"judged": 7, "first": 0.5 * iterations + 7, "second": 7})
    assert 1_000_000 < expected.disk_bytes < 1_100_000, "one training's"


def test_a_network_that_is_evaluated_as_it_is_costs_its_evaluation(tmp_path: Path) -> None:
    given = TrialConfig.model_validate({"train": {"start": "network:own", "stages": []}})
    _finish(tmp_path, "given", given)
    planned = Plan("a", "now", (_trial(given, "planned"),), ())
    assert estimate(planned, tmp_path, INLINE).seconds == {"planned": 7}


def test_a_trial_without_training_measures_its_evaluation(tmp_path: Path) -> None:
    _finish(tmp_path, "judged", _config(), step_s=0.5)
    path = tmp_path / "trials" / "judged" / "journal.jsonl"
    start, last = [json.loads(line) for line in path.read_text().splitlines()]
    steps = _config().train.iterations
    start |= {"step": steps, "time": last["time"] - 3}
    path.write_text(json.dumps(start) + "\n" + json.dumps(last) + "\n")
    planned = Plan("a", "now", (_trial(_config(seed=1), "planned"),), ())
    assert estimate(planned, tmp_path, INLINE).seconds == pytest.approx({"planned": 0.5 * steps + 3})
