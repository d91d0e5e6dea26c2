"""The contract of every executor, and the options of all together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from model.registry import resolve
from results.records.home import trial_folder
from results.records.journal import read_events
from results.records.trial_folder import trial_status
from sweep.file.schema import RunOptions
from sweep.run.executors import EXECUTORS
from sweep.run.executors.base import Assignment, ExecutorOptions, unused_gpus
from sweep.run.executors.queue import FixedQueue
from sweep.run.stop import request_stop
from tests import works


class Watched(FixedQueue):
    """Records which trials were reported as ended."""

    def __init__(self, trials: list[Any]) -> None:
        super().__init__(trials)
        self.reported: list[str] = []

    def ended(self, trial: Any) -> None:
        self.reported.append(trial.key)


class Growing(Watched):
    """Hands out each trial only once the one before has ended."""

    is_growing = True

    def __init__(self, trials: list[Any]) -> None:
        super().__init__(trials)
        self.given = 0

    def next(self) -> Any:
        if self.given > len(self.reported):
            return None
        self.is_growing = self.given + 1 < len(self.trials)
        self.given += 1
        return super().next()


@pytest.fixture(scope="module")
def running_ray() -> Iterator[None]:
    """Ray for all tests of this file, since a start takes ten seconds."""
    from sweep.run.executors.ray import tune

    with pytest.MonkeyPatch.context() as patch:
        works.start_ray(patch)
        patch.setattr(tune, "disconnect", lambda: None)
        yield
    tune.disconnect()


@pytest.fixture(params=sorted(EXECUTORS))
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Watched]:
    executor = resolve(EXECUTORS, request.param, "executor")
    if request.param == "ray":
        request.getfixturevalue("running_ray")

    def run(
        *seeds: int,
        fail_fast: bool = False,
        work: Any = works.work,
        is_stopped: bool = False,
        kind: type[Watched] = Watched,
        begin: Callable[[], None] = lambda: None,
        gpus: float = 0,
    ) -> Watched:
        stop_file = tmp_path / "sweeps" / "s" / "stop"
        stop_file.parent.mkdir(parents=True)
        if is_stopped:
            request_stop(stop_file, "request", "before it began")
        source = kind([works.trial_of(seed) for seed in seeds])
        options = executor.Options(gpus_per_trial=gpus)
        executor.run(Assignment(source, tmp_path, stop_file, work, works.Silent(), fail_fast, begin), options)
        return source

    return run


def state(home: Path, seed: int) -> str:
    return trial_status(trial_folder(home, f"{seed:016x}"))


def test_every_trial_is_brought_to_an_end_and_reported(run, tmp_path: Path) -> None:
    source = run(1, works.FAILING, works.RAISING, 2)
    assert sorted(source.reported) == sorted(trial.key for trial in source.trials)
    assert [state(tmp_path, seed) for seed in (1, works.FAILING, works.RAISING, 2)] == [
        "finished",
        "failed",
        "failed",
        "finished",
    ]
    (failure,) = [e for e in read_events(trial_folder(tmp_path, f"{works.RAISING:016x}")) if e["event"] == "failed"]
    assert failure["error"] == "ValueError: before it could say why"


def test_nothing_starts_after_a_stop_request(run, tmp_path: Path) -> None:
    run(1, 2, is_stopped=True)
    assert {state(tmp_path, 1), state(tmp_path, 2)} == {"pending"}


def test_the_sweep_begins_once_before_its_first_trial(run, tmp_path: Path) -> None:
    before: list[str] = []
    run(1, 2, begin=lambda: before.append(state(tmp_path, 1)))
    assert before == ["pending"]


def test_a_sweep_whose_trials_fit_nowhere_does_not_begin(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ValueError, match="no trial could ever start"):
        run(1, gpus=1, begin=lambda: pytest.fail("it has begun"))
    assert state(tmp_path, 1) == "pending"


# Options


@pytest.mark.parametrize("name", EXECUTORS)
def test_options_belong_to_the_executor_and_to_sweep_files(name: str) -> None:
    executor = resolve(EXECUTORS, name, "executor")
    assert issubclass(executor.Options, ExecutorOptions)
    options = RunOptions(executor=name)
    assert isinstance(options, executor.Options), "a sweep's `run` section is what the executor takes"
    assert executor.at_once(options) >= 1


def test_an_option_that_two_executors_have_is_one_option() -> None:
    seen: dict[str, Any] = {}
    for name in EXECUTORS:
        for field, info in resolve(EXECUTORS, name, "executor").Options.model_fields.items():
            assert repr(seen.setdefault(field, info)) == repr(info), f"{name}: {field}"


def test_a_file_may_have_the_options_of_all_executors_whichever_is_chosen() -> None:
    values = {"max_concurrent": 1, "max_failures": 0, "scratch": "always", "cpus_per_trial": 2}
    for name in EXECUTORS:
        assert RunOptions.model_validate({"executor": name, **values}).model_dump().items() >= values.items()
    with pytest.raises(ValidationError, match="max_concurent"):
        RunOptions.model_validate({"max_concurent": 1})


@pytest.mark.parametrize("number", [-1, 0.001, 1.5, 8])
def test_gpus_that_no_trial_can_use_are_refused_before_anything_runs(number: float) -> None:
    with pytest.raises(ValidationError, match=r"0 or a share from 0.01 to 1, since a trial trains on one GPU"):
        RunOptions(gpus_per_trial=number)


def test_unused_gpus_are_reported_with_the_option_that_uses_them() -> None:
    assert unused_gpus(0, ExecutorOptions(), 0.25) is None
    assert unused_gpus(2, ExecutorOptions(gpus_per_trial=0.5), 0.25) is None
    assert "a GPU here" in str(unused_gpus(1, ExecutorOptions(), 1))
    assert str(unused_gpus(2, ExecutorOptions(), 0.25)).endswith("--set run.gpus_per_trial=0.25")


def test_inline_reports_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    executor, notices = resolve(EXECUTORS, "inline", "executor"), works.Silent()
    source = Watched([works.trial_of(1), works.trial_of(2)])
    executor.run(Assignment(source, tmp_path, tmp_path / "stop", works.work, notices), executor.Options())
    assert len(notices.said) == 1


def test_inline_refuses_gpus_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    executor, source = resolve(EXECUTORS, "inline", "executor"), Watched([works.trial_of(1)])
    assignment = Assignment(source, tmp_path, tmp_path / "stop", works.work, works.Silent())
    with pytest.raises(ValueError, match=r"gpus_per_trial is 1, .*--set run.gpus_per_trial=0"):
        executor.run(assignment, executor.Options(gpus_per_trial=1))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    executor.run(assignment, executor.Options(gpus_per_trial=1, cpus_per_trial=1000))  # threads alone
    assert len(source.reported) == 1


def test_a_source_may_grow_by_what_ended(run, tmp_path: Path) -> None:
    source = run(1, 2, 3, kind=Growing)
    assert source.reported == [f"{seed:016x}" for seed in (1, 2, 3)]
    assert {state(tmp_path, seed) for seed in (1, 2, 3)} == {"finished"}
