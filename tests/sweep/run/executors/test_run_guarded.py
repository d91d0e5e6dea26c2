"""A trial that runs out of memory on a shared GPU is put back; on a whole GPU it fails with advice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from jobs import memory
from jobs.device import GpuLostError
from jobs.memory import is_out_of_memory
from jobs.trial import Runtime, TrialResult
from results.records.disk import DiskFullError
from results.records.home import trial_folder
from results.records.journal import Journal, read_events
from results.records.trial_folder import trial_status
from sweep.run.executors import run_guarded as module
from sweep.run.executors.base import ExecutorOptions
from sweep.run.executors.run_guarded import run_guarded, runtime_of
from sweep.run.stop import Stop, stop_requested
from tests.works import finish, trial_of, work


def _raised_while_handling(first: Exception) -> RuntimeError:
    """As the end of a capture that ran out of memory."""
    try:
        try:
            raise first
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
    except RuntimeError as error:
        return error


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    _raised_while_handling(torch.OutOfMemoryError("CUDA out of memory.")),
]


def end_with(error: Exception, home: Path, gpu_share: float):
    trial = trial_of(1)

    def work(*_: object) -> NoReturn:
        with Journal(trial_folder(home, trial.key)) as journal:
            journal.start(3)
        raise error

    attempted = run_guarded(trial.key, trial.config, home, Runtime(), False, work, gpu_share)
    return attempted, trial_folder(home, trial.key)


def test_every_option_of_a_run_reaches_its_trials(tmp_path: Path) -> None:
    options = ExecutorOptions(
        cpus_per_trial=3, gpus_per_trial=0.25, compile="never", log_every=7, checkpoint_every=9, keep_optimizer=True
    )
    stop_file = str(tmp_path / "stop")
    assert runtime_of(options, tmp_path / "stop") == Runtime(3, "cuda", "never", 7, 9, True, stop_file)
    assert runtime_of(ExecutorOptions(), tmp_path / "stop").device == "cpu", "also where there is a GPU"


def test_a_trial_whose_data_changed_since_it_was_planned_fails(tmp_path: Path) -> None:
    trial = trial_of(1)
    run_guarded("0" * 16, trial.config, tmp_path, Runtime(), False, work)
    (failed,) = read_events(trial_folder(tmp_path, "0" * 16))
    assert failed["error"] == f"the data or weights changed since it was planned: its key is now {trial.key}"
    assert trial_status(trial_folder(tmp_path, trial.key)) == "finished"


@pytest.mark.parametrize("has_stop_file", [True, False])
def test_a_full_disk_stops_the_sweep_and_fails_no_trial(tmp_path: Path, has_stop_file: bool) -> None:
    def full(*_: object) -> NoReturn:
        raise DiskFullError("no space left")

    trial, stop_file = trial_of(1), tmp_path / "stop"
    runtime = Runtime(stop_file=str(stop_file) if has_stop_file else None)
    run_guarded(trial.key, trial.config, tmp_path, runtime, True, full)
    assert trial_status(trial_folder(tmp_path, trial.key)) == "pending"
    assert stop_requested(stop_file) == (Stop("disk", "no space left") if has_stop_file else None)


def test_nothing_starts_once_a_stop_is_requested(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    trial, runtime = trial_of(1), Runtime(stop_file=str(tmp_path / "stop"))
    run_guarded(trial.key, trial.config, tmp_path, runtime, False, lambda *_: pytest.fail("it has started"))
    assert trial_status(trial_folder(tmp_path, trial.key)) == "pending"


def test_the_memory_of_a_trial_is_measured_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reused worker has the peak of its trial before."""
    peak = [1 << 30]
    monkeypatch.setattr(module, "watch_gpu_memory", lambda: peak.append(0))
    monkeypatch.setattr(module, "peak_gpu_memory", lambda: peak[-1])
    trial = trial_of(1)

    def work(_: object, home: Path, __: object) -> TrialResult:
        peak.append(peak[-1] + 5)
        return finish(trial.key, home)

    assert run_guarded(trial.key, trial.config, tmp_path, Runtime(), False, work).gpu_bytes == 5


def test_the_files_of_a_trial_in_the_home_of_a_group_can_be_written_by_it(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(0o775)
    trial, before = trial_of(1), os.umask(0o022)
    try:
        run_guarded(trial.key, trial.config, tmp_path / "home", Runtime(), False, work)
    finally:
        os.umask(before)
    modes = [path.stat().st_mode for path in (tmp_path / "home" / "trials").rglob("*")]
    assert modes
    assert all(mode & 0o020 for mode in modes)


@pytest.mark.parametrize("is_fail_fast", [True, False])
def test_a_failure_stops_the_others_where_that_is_wanted_alone(tmp_path: Path, is_fail_fast: bool) -> None:
    def work(*_: object) -> NoReturn:
        raise ValueError("no")

    trial, stop_file = trial_of(1), tmp_path / "stop"
    run_guarded(trial.key, trial.config, tmp_path, Runtime(stop_file=str(stop_file)), is_fail_fast, work)
    assert stop_file.exists() == is_fail_fast


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_beside_others_a_trial_is_put_back(error: Exception, tmp_path: Path) -> None:
    attempted, folder = end_with(error, tmp_path, 0.25)
    assert attempted.is_put_back
    assert trial_status(folder) == "interrupted"
    (stopped,) = [event for event in read_events(folder) if event["event"] == "stopped"]
    assert stopped["reason"].startswith(
        "out of memory with 0.25 of a GPU; queued again to run with fewer trials on the GPU"
    )


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_alone_on_its_gpu_a_trial_fails_with_advice(error: Exception, tmp_path: Path) -> None:
    attempted, folder = end_with(error, tmp_path, 1.0)
    assert not attempted.is_put_back
    assert trial_status(folder) == "failed"
    (failed,) = [event for event in read_events(folder) if event["event"] == "failed"]
    assert "train.batch_size" in failed["error"]


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), MemoryError("host"), ValueError("out of memory")]
)
def test_other_errors_are_the_trials_own(error: Exception, tmp_path: Path) -> None:
    assert not is_out_of_memory(error)
    attempted, folder = end_with(error, tmp_path, 0.25)
    assert not attempted.is_put_back
    assert trial_status(folder) == "failed"


def test_a_process_that_lost_its_gpu_runs_no_other_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> NoReturn:
        raise GpuLostError("no answer")

    monkeypatch.setattr(module, "require_gpu", lost)
    with pytest.raises(GpuLostError):
        end_with(RuntimeError("CUDA error: an illegal memory access was encountered"), tmp_path, 1.0)
    (failed,) = [event for event in read_events(trial_folder(tmp_path, trial_of(1).key)) if event["event"] == "failed"]
    assert "illegal memory access" in failed["error"]


@pytest.mark.parametrize("needs_more", [False, True])
def test_a_trial_that_runs_out_goes_on_without_caches(
    needs_more: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is put back, or fails on a whole GPU, only where it runs out without them as well."""
    monkeypatch.setattr(memory, "free_gpu_memory", lambda _: 100)
    monkeypatch.setattr(memory, "_has_cached", False)
    trial, cached, freed = trial_of(1), [], []
    monkeypatch.setattr(module, "keep_only", freed.append)
    monkeypatch.setattr(module, "watch_gpu_memory", lambda: freed.append("memory"))

    def work(_config: object, home: Path, _runtime: Runtime) -> TrialResult:
        cached.append(memory.may_cache(20, 0.4, torch.device("cuda")))
        with Journal(trial_folder(home, trial.key)) as journal:
            journal.start(0)
        if cached[-1] or needs_more:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return finish(trial.key, home)

    attempted = run_guarded(trial.key, trial.config, tmp_path, Runtime(), False, work, 0.5)
    assert cached == [True, False]
    assert freed == ["memory", None, "memory"], "of the first attempt, which also had the larger peak"
    assert attempted.is_put_back is needs_more
    reasons = [
        event["reason"] for event in read_events(trial_folder(tmp_path, trial.key)) if event["event"] == "stopped"
    ]
    assert reasons[0].startswith("out of memory; it goes on without its dataset and features on the GPU (OutOfMemory")
    assert trial_status(trial_folder(tmp_path, trial.key)) == ("interrupted" if needs_more else "finished")
    assert memory.may_cache(20, 0.4, torch.device("cuda")), "the next trial has caches again"


def test_another_error_is_not_tried_again_without_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_has_cached", True)
    _, folder = end_with(RuntimeError("shapes do not match"), tmp_path, 1.0)
    assert [event["event"] for event in read_events(folder)] == ["start", "failed"]


def test_a_failure_without_a_stop_file_is_only_recorded(tmp_path: Path) -> None:
    def fail(*_: object) -> NoReturn:
        raise ValueError("no")

    trial = trial_of(1)
    run_guarded(trial.key, trial.config, tmp_path, Runtime(), True, fail)
    assert trial_status(trial_folder(tmp_path, trial.key)) == "failed"
