"""Only what no plan needs and nothing uses is removed, however often the removal is killed."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from results import clean
from results.clean import remove, survey
from results.records.atomic import write_json
from results.records.frozen_plans import freeze, read_plan
from results.records.home import driver_lock_file, training_folder, trial_folder
from results.records.journal import Journal
from results.records.locks import is_held
from results.records.plan import Plan, PlannedTrial
from tests.homes import finish

FIRST, SECOND = "2026-11-26T10:00:00+00:00", "2026-11-26T11:00:00+00:00"


def planned(key: str, training: str | None = None, data: str = "used", **more: object) -> PlannedTrial:
    config = {"data": {"name": data}, "depth": {"model": "midas_small"}}
    return PlannedTrial(key, (key,), 0, config, "pending", training=training, **more)  # type: ignore[arg-type]


def fail(home: Path, key: str) -> None:
    with Journal(trial_folder(home, key)) as journal:
        journal.start(0)
        journal.failed("ValueError: no")


def train(home: Path, key: str, *, finished: bool, checkpoints: bool = True) -> None:
    folder = training_folder(home, key)
    folder.mkdir(parents=True)
    if checkpoints:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "000000010.safetensors").write_bytes(bytes(300))
    if finished:
        (folder / "weights.safetensors").write_bytes(bytes(100))
        write_json(folder / "training.json", {"key": key})


def of_training(home: Path, trial: str, training: str) -> None:
    write_json(trial_folder(home, trial) / "training.json", {"key": training})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one item of every kind of waste, beside needed ones that look like it."""
    home = tmp_path
    trials = (planned("good", "t-good"), planned("bad", "t-bad"), planned("new", "t-new"), planned("cut", "t-cut"))
    freeze(Plan("sweep", FIRST, (*trials, planned("old", "t-old", "old-data")), ()), home)
    freeze(Plan("sweep", SECOND, trials, ()), home)
    for key, training in (("good", "t-good"), ("old", "t-old"), ("lost", "t-lost")):
        finish(home, key)
        of_training(home, key, training)
        train(home, training, finished=True, checkpoints=training == "t-good")
    fail(home, "bad")
    of_training(home, "bad", "t-bad")
    train(home, "t-bad", finished=False)
    with Journal(trial_folder(home, "cut")) as journal:  # killed, and goes on later
        journal.start(3)
        journal.stopped()
    of_training(home, "cut", "t-cut")
    train(home, "t-cut", finished=False)
    with Journal(trial_folder(home, "elsewhere")) as journal:
        journal.start(0)
    _on_another_host(trial_folder(home, "elsewhere") / "journal.jsonl")
    of_training(home, "elsewhere", "t-elsewhere")
    train(home, "t-elsewhere", finished=False)
    for name in ("used", "old-data", "unused", "mine"):
        (home / "data" / name).mkdir(parents=True)
        (home / "data" / name / "manifest.json").write_text("{}")
    (home / "cache" / "features").mkdir(parents=True)
    for name in ("midas_small-0123.npy", "clip_vit_b32-4567.npy"):
        (home / "cache" / "features" / name).write_bytes(bytes(50))
    (home / "cache" / "downloads").mkdir()
    (home / "cache" / "downloads" / "wheel").write_bytes(bytes(20))
    (home / "removed" / "trials-half").mkdir(parents=True)
    for folder, age_s in ((".probe-killed", 4000), (".probe-running", 100)):
        (home / folder / "trials").mkdir(parents=True)
        (home / folder / "data").symlink_to(home / "data")
        _change_all(home / folder, age_s)
    for folder, age_s in ((".sweep.0123.former", 4000), ("sweep", 4000)):
        (home / "reports" / folder).mkdir(parents=True)
        _change_all(home / "reports" / folder, age_s)
    return home


def _change_all(folder: Path, age_s: float) -> None:
    """Dates a folder and all in it back."""
    then = time.time() - age_s
    for path in (*folder.iterdir(), folder):
        os.utime(path, (then, then), follow_symlinks=False)


def _on_another_host(journal: Path) -> None:
    journal.write_text(journal.read_text().replace(socket.gethostname(), "another-host"))


def store_of(home: Path) -> clean.StoreOf:
    return lambda config: home / "data" / str(config.get("data", {}).get("name"))


def look(home: Path) -> clean.Survey:
    return survey(
        home,
        store_of=store_of(home),
        imported=lambda folder: folder.name == "mine",
    )


def idle(home: Path) -> None:
    """Ends the trial on another host, so that nothing runs."""
    with Journal(trial_folder(home, "elsewhere")) as journal:
        journal.stopped()


def names(found: clean.Survey, kind: str, reserved: bool = False) -> list[str]:
    return sorted(waste.path.name for waste in found.wastes if waste.kind == kind and bool(waste.reserved) == reserved)


def nothing(*_: object) -> None:
    pass


def tree(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and path.name != "lock"}


def test_of_each_kind_what_is_waste(home: Path) -> None:
    idle(home)
    found = look(home)
    assert names(found, "trials") == ["elsewhere", "lost"]
    assert names(found, "failed") == ["bad", "t-bad"]
    assert names(found, "trainings") == ["t-elsewhere", "t-lost"]
    assert [waste.path.parent.name for waste in found.wastes if waste.kind == "optimisers"] == ["t-good"]
    assert names(found, "caches") == ["clip_vit_b32-4567.npy", "downloads"]
    assert names(found, "datasets") == ["unused"]
    assert names(found, "datasets", reserved=True) == ["mine"]
    assert names(found, "plans", reserved=True) == ["2026-11-26T100000.json", "old"]
    assert names(found, "left-over") == [".probe-killed", ".sweep.0123.former", "trials-half"]
    assert not found.remarks


def test_a_report_that_replaces_its_folder_meanwhile_is_passed_over(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its temporary folder has another name by then."""
    look_at = Path.lstat

    def vanished(path: Path) -> os.stat_result:
        if path.name == ".sweep.0123.former":
            raise FileNotFoundError(path)
        return look_at(path)

    monkeypatch.setattr(Path, "lstat", vanished)
    assert names(look(home), "left-over") == [".probe-killed", "trials-half"]


def test_optimiser_states_that_were_kept_to_continue_go_where_they_are_named(home: Path) -> None:
    idle(home)
    write_json(training_folder(home, "t-good") / "training.json", {"key": "t-good", "keeps_optimizer": True})
    assert not [waste for waste in look(home).chosen([]) if waste.kind == "optimisers"]
    (waste,) = look(home).chosen(["optimisers"])
    assert waste.reserved == "run.keep_optimizer keeps them, to continue trainings"
    remove([waste], home, store_of(home), nothing)
    assert not (training_folder(home, "t-good") / "checkpoints").exists()
    assert (training_folder(home, "t-good") / "weights.safetensors").exists()


def test_sizes_by_sweep(home: Path) -> None:
    sweep, others = look(home).sweeps
    assert (sweep.sweep, sweep.trials) == ("sweep", 4)
    folders = [*(home / "trials" / key for key in ("good", "bad", "cut"))]
    folders += [home / "trainings" / f"t-{key}" for key in ("good", "bad", "cut")]
    assert sweep.size == sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    assert (others.sweep, others.trials) == ("", 3)


def test_what_runs_keeps_its_trial_training_and_all_caches(home: Path) -> None:
    found = look(home)
    assert names(found, "trials") == ["lost"]
    assert names(found, "trainings") == ["t-lost"]
    assert names(found, "caches") == []
    assert "trials that run, or may run on another machine: 1" in found.remarks[0]
    idle(home)
    with FileLock(trial_folder(home, "lost") / "lock"):
        assert names(look(home), "trials") == ["elsewhere"]
        assert names(look(home), "trainings") == ["t-elsewhere"]


def test_what_runs_without_a_plan_keeps_its_dataset_and_its_optimiser_state(home: Path) -> None:
    """It is evaluated, after its training; its plan was removed."""
    write_json(trial_folder(home, "elsewhere") / "config.json", {"data": {"name": "unused"}})
    write_json(training_folder(home, "t-elsewhere") / "training.json", {"key": "t-elsewhere"})
    (training_folder(home, "t-elsewhere") / "weights.safetensors").touch()
    found = look(home)
    assert names(found, "datasets") == []
    assert [waste.path.parent.name for waste in found.wastes if waste.kind == "optimisers"] == ["t-good"]


def test_a_training_in_which_a_process_works_is_kept(home: Path) -> None:
    idle(home)
    with FileLock(training_folder(home, "t-lost") / "lock"):
        assert names(look(home), "trainings") == ["t-elsewhere"]


def test_the_training_of_a_failed_trial_is_kept_for_one_that_waits_for_it(home: Path) -> None:
    idle(home)
    plan = read_plan("sweep", home)
    freeze(replace(plan, trials=(*plan.trials, planned("sharer", "t-bad"))), home)
    assert names(look(home), "failed") == ["bad"]


@pytest.mark.parametrize(("sweep", "plans"), [("sweep", 1), ("planned for the first time", 2)])
def test_a_driver_that_runs_keeps_failed_trials_datasets_and_caches(home: Path, sweep: str, plans: int) -> None:
    idle(home)
    lock = driver_lock_file(home, sweep)
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        found = look(home)
        assert not {"failed", "datasets", "caches"} & {waste.kind for waste in found.wastes}
        assert len(names(found, "plans", reserved=True)) == plans
        assert f"being run: {sweep}; failed trials, datasets and all caches are kept" in found.remarks[0]


def test_nothing_that_a_plan_needs_is_removed(home: Path) -> None:
    idle(home)
    before = tree(home)
    forgotten: list[str] = []
    chosen = look(home).chosen([])
    freed = remove(chosen, home, store_of(home), forgotten.extend)
    gone = before - tree(home)
    assert forgotten == ["bad", "elsewhere", "lost"]
    assert {name.split("/")[1] for name in gone if name.startswith("trials/")} == {"bad", "elsewhere", "lost"}
    trainings = {name for name in gone if name.startswith("trainings/")}
    assert {name.split("/")[1] for name in trainings} == {"t-bad", "t-lost", "t-elsewhere", "t-good"}
    assert {name for name in trainings if "t-good" in name} == {"trainings/t-good/checkpoints/000000010.safetensors"}
    assert not any(name.startswith(("data/used", "data/mine", "data/old-data", "sweeps/")) for name in gone)
    assert "cache/features/midas_small-0123.npy" not in gone
    assert freed == sum(waste.size for waste in chosen)
    assert not [waste for waste in look(home).wastes if not waste.reserved]
    statuses = {trial.key: trial.status for trial in read_plan("sweep", home).trials}
    assert statuses == {"good": "finished", "bad": "pending", "new": "pending", "cut": "interrupted"}


def test_earlier_plans_go_with_their_trials_where_they_are_named(home: Path) -> None:
    idle(home)
    remove(look(home).chosen(["plans"]), home, store_of(home), nothing)
    assert not (home / "trials" / "old").exists()
    assert not list((home / "sweeps" / "sweep" / "plans").iterdir())
    found = look(home)  # and now nothing has their training and dataset
    assert "t-old" in names(found, "trainings")
    assert "old-data" in names(found, "datasets")


def test_a_trial_that_was_planned_meanwhile_stays(home: Path) -> None:
    idle(home)
    chosen = look(home).chosen([])
    freeze(Plan("another", SECOND, (planned("lost", "t-lost"),), ()), home)
    remove(chosen, home, store_of(home), nothing)
    assert (home / "trials" / "lost" / "result.json").exists()
    assert (home / "trainings" / "t-lost" / "weights.safetensors").exists()


def test_a_trial_that_began_meanwhile_stays(home: Path) -> None:
    idle(home)
    chosen = look(home).chosen([])
    with FileLock(trial_folder(home, "lost") / "lock"):
        remove([waste for waste in chosen if waste.kind == "trials"], home, store_of(home), nothing)
    assert (home / "trials" / "lost" / "result.json").exists()


def test_what_began_on_another_machine_or_in_a_training_meanwhile_stays(home: Path) -> None:
    idle(home)
    chosen = look(home).chosen([])
    with Journal(trial_folder(home, "elsewhere")) as journal:
        journal.start(0)
    _on_another_host(trial_folder(home, "elsewhere") / "journal.jsonl")
    with FileLock(training_folder(home, "t-lost") / "lock"):
        remove(chosen, home, store_of(home), nothing)
    assert trial_folder(home, "elsewhere").exists()
    assert (training_folder(home, "t-lost") / "weights.safetensors").exists()


def test_a_dataset_that_was_planned_meanwhile_stays(home: Path) -> None:
    idle(home)
    chosen = look(home).chosen(["datasets"])
    assert home / "data" / "unused" in [waste.path for waste in chosen]
    freeze(Plan("another", SECOND, (planned("x", "t-x", "unused"),), ()), home)
    remove(chosen, home, store_of(home), nothing)
    assert (home / "data" / "unused").exists()
    assert not (home / "data" / "mine").exists()


@pytest.mark.parametrize("sweep", ["sweep", "planned for the first time"])
def test_a_sweep_that_began_meanwhile_keeps_failed_trials_datasets_and_caches(home: Path, sweep: str) -> None:
    idle(home)
    chosen = look(home).chosen([])
    kept = {"failed", "datasets", "caches"}
    assert kept <= {waste.kind for waste in chosen}
    lock, plan = driver_lock_file(home, sweep), home / "sweeps" / "sweep" / "plan.json"
    lock.parent.mkdir(exist_ok=True)
    before = plan.read_bytes()
    with FileLock(lock):
        remove(chosen, home, store_of(home), nothing)
    assert (plan.read_bytes() == before) == (sweep == "sweep"), "its driver writes it"
    left = [waste.path for waste in chosen if waste.path.exists()]
    assert left == [waste.path for waste in chosen if waste.kind in kept]


def test_sweeps_may_run_while_folders_are_deleted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idle(home)
    (home / "removed" / "trials-lost").mkdir()  # of a killed removal; the trial ran again
    lock, delete, is_locked = driver_lock_file(home, "sweep"), clean._delete, dict[str, bool]()

    def look_and_delete(path: Path) -> None:
        is_locked["at the end"] = is_held(lock)
        delete(path)

    monkeypatch.setattr(clean, "_delete", look_and_delete)
    chosen = look(home).chosen([])
    remove(chosen, home, store_of(home), lambda _: is_locked.update({"at first": is_held(lock)}))
    assert is_locked == {"at first": True, "at the end": False}
    assert not [waste for waste in chosen if waste.path.exists()]


def test_what_lies_on_another_disk_is_removed_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the home, such as that of datasets, may be a link or a mount."""
    idle(home)
    for folder in ("data", "trials"):
        (home / folder / ".removed-half").mkdir()  # of a killed removal
    rename = Path.rename

    def rename_on_one_disk(path: Path, target: Path) -> Path:
        if path.relative_to(home).parts[0] != target.relative_to(home).parts[0]:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_on_one_disk)
    found = look(home)
    assert names(found, "left-over") == [
        ".probe-killed",
        ".removed-half",
        ".removed-half",
        ".sweep.0123.former",
        "trials-half",
    ]
    remove(found.chosen([]), home, store_of(home), nothing)
    assert not [waste for waste in look(home).wastes if not waste.reserved]
    assert not list(home.rglob(".removed*"))
    assert trial_folder(home, "good").is_dir()


def kill_at(moment: int, counted: list[int]) -> Callable[..., None]:
    """A function that kills its process at its call number `moment`."""

    def count(*_: object) -> None:
        counted[0] += 1
        if counted[0] == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


@pytest.mark.parametrize("moment", range(1, 26, 2))
def test_a_killed_removal_continues(home: Path, moment: int) -> None:
    """The process dies for real, before a file is deleted, a folder renamed, or MLflow written."""
    idle(home)
    chosen = look(home).chosen([])
    child = os.fork()
    if child == 0:
        tick = kill_at(moment, [0])
        unlink, rename, real = os.unlink, Path.rename, clean._delete
        try:
            os.unlink = lambda *a, **k: (tick(), unlink(*a, **k))[1]
            Path.rename = lambda *a: (tick(), rename(*a))[1]  # type: ignore[method-assign, assignment]
            clean._delete = lambda path: (tick(), real(path))[1]  # type: ignore[func-returns-value]
            remove(chosen, home, store_of(home), tick)
            os._exit(0)
        finally:
            os._exit(1)  # a copy of the test session would go on otherwise
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or (moment > 20 and os.waitstatus_to_exitcode(status) == 0)
    forgotten: list[str] = []
    remove(look(home).chosen([]), home, store_of(home), forgotten.extend)
    assert not [waste for waste in look(home).wastes if not waste.reserved]
    assert not any((home / "removed").iterdir())
    for key in ("bad", "elsewhere", "lost"):
        assert not trial_folder(home, key).exists()
    assert (home / "trials" / "good" / "result.json").exists()
    assert (home / "trainings" / "t-good" / "weights.safetensors").exists()
    assert (home / "trainings" / "t-cut" / "checkpoints").is_dir()
    assert (home / "data" / "used" / "manifest.json").exists()
    statuses = {trial.key: trial.status for trial in read_plan("sweep", home).trials}
    assert statuses == {"good": "finished", "bad": "pending", "new": "pending", "cut": "interrupted"}


def test_trials_of_plans_that_name_no_training_keep_theirs(home: Path) -> None:
    plan = read_plan("sweep", home)
    freeze(replace(plan, trials=tuple(replace(trial, training=None) for trial in plan.trials)), home)
    for earlier in (home / "sweeps" / "sweep" / "plans").iterdir():
        earlier.unlink()
    idle(home)
    assert "t-good" not in names(look(home), "trainings")
    assert "t-cut" not in [*names(look(home), "trainings"), *names(look(home), "failed")]
