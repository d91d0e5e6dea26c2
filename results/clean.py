"""Files of a home that no plan needs: listed, and removed only on request, in steps that may be interrupted.

A plan needs its trials, their trainings, and their dataset; earlier plans of a sweep count as plans.  Whatever runs, or
may run on another machine, is kept.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from results.records.disk import size_of
from results.records.frozen_plans import earlier_plans, freeze, read_plan, sweep_names
from results.records.home import (
    cache_folder,
    data_folder,
    driver_lock_file,
    earlier_plans_folder,
    ray_folder,
    removed_folder,
    reports_folder,
    sweeps_folder,
    training_folder,
    trainings_folder,
    trial_folder,
)
from results.records.locks import is_held
from results.records.monitor import Monitor
from results.records.plan import FrozenPlan
from results.records.training_folder import read_training, training_of
from results.records.trial_folder import CHECKPOINTS_FOLDER, LOCK_FILENAME, read_config
from results.trials import begun_keys

#: Kinds of what can be removed, with their meanings.
KINDS: dict[str, str] = {
    "trials": "trials that no plan has",
    "failed": "failed trials, and trainings that only they started",
    "trainings": "trainings that no plan has",
    "optimisers": "optimiser states of finished trainings",
    "caches": "features of models that no plan uses, scores as reports read them, downloads, Ray's state",
    "datasets": "datasets that no plan uses",
    "plans": "earlier plans, and trials that only these have",
    "left-over": "files that a killed command left",
}

#: Beginning of the names of removed things that could not be moved into their folder.
_HIDDEN = ".removed-"
#: Seconds without a change after which the temporary files of a command count as left by a killed one.
_ABANDONED_S = 3600

#: A trial's configuration -> the folder of its dataset.
StoreOf = Callable[[Mapping[str, Any]], Path | None]


@dataclass(frozen=True)
class Waste:
    """One thing that can be removed."""

    kind: str
    #: folder or file
    path: Path
    size: int
    #: key of the trial, for trials; whose run in MLflow goes too
    key: str | None = None
    #: why it stays unless its kind is named; empty for what goes by default
    reserved: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": self.kind, "path": str(self.path), "bytes": self.size, "key": self.key, "kept": self.reserved}


@dataclass(frozen=True)
class SweepSize:
    """Disk space of a sweep's trials and trainings, those that it shares with other sweeps included."""

    sweep: str
    trials: int
    size: int


@dataclass(frozen=True)
class Survey:
    """A home's waste, and the sizes of its sweeps."""

    wastes: tuple[Waste, ...]
    sweeps: tuple[SweepSize, ...]
    #: sentences about files that are kept because trials run
    remarks: tuple[str, ...]

    def chosen(self, kinds: Sequence[str]) -> list[Waste]:
        """The waste of these kinds; of all by default, but for what is removed only where it is named."""
        return [waste for waste in self.wastes if (waste.kind in kinds if kinds else not waste.reserved)]


class _Needs:
    """Trials, trainings and configurations that plans have."""

    def __init__(self, home: Path) -> None:
        self.plans: dict[str, FrozenPlan] = {name: read_plan(name, home) for name in sweep_names(home)}
        self.earlier = [
            (name, read_plan(name, home, plan)) for name in self.plans for plan in earlier_plans(name, home)
        ]
        self.current = {trial.key for plan in self.plans.values() for trial in plan.everything}
        self.trials = self.current | {trial.key for _, plan in self.earlier for trial in plan.everything}
        plans = [*self.plans.values(), *(plan for _, plan in self.earlier)]
        self.everything = [trial for plan in plans for trial in plan.everything]
        self.configs = [dict(trial.plain_config) for trial in self.everything]
        self.trainings = {trial.training for trial in self.everything if trial.training}
        # Plans of earlier versions do not name trainings.
        self.trainings |= {found for key in self.trials if (found := training_of(trial_folder(home, key)))}


def survey(home: Path, store_of: StoreOf, imported: Callable[[Path], bool]) -> Survey:
    """Look for everything that could be removed; removes nothing.

    store_of: the folder of a configuration's dataset; imported: whether a dataset came from a folder of the user's, so
    that it cannot be made again here.  Raises `PlanError` for a plan that cannot be read, as its needs are unknown.
    """
    needs, monitor, remarks = _Needs(home), Monitor(home), list[str]()
    begun = sorted(begun_keys(home))
    states = {key: monitor.look(key).status for key in begun}
    running = {key for key in begun if states[key] == "running" or _is_locked(trial_folder(home, key))}
    busy = {name for name in _sweeps(home) if is_held(driver_lock_file(home, name))}
    if running:
        remarks.append(f"trials that run, or may run on another machine: {len(running)}; they and all caches are kept")
    if busy:
        remarks.append(f"being run: {', '.join(sorted(busy))}; failed trials, datasets and all caches are kept")
    left = [*_children(removed_folder(home)), *sorted(home.glob(f"*/{_HIDDEN}*")), *_abandoned(home)]
    wastes = [Waste("left-over", path, size_of(path)) for path in left]
    gone: set[str] = set()
    for key in begun:
        folder = trial_folder(home, key)
        if key in running:
            continue
        if key not in needs.trials:
            wastes.append(Waste("trials", folder, size_of(folder), key))
        elif key not in needs.current:
            wastes.append(Waste("plans", folder, size_of(folder), key, reserved="an earlier plan has it"))
        elif states[key] == "failed" and not busy:
            wastes.append(Waste("failed", folder, size_of(folder), key))
        else:
            continue
        if wastes[-1].kind in ("trials", "failed"):
            gone.add(key)
    wastes += _earlier_plans(home, busy)
    wastes += _trainings(home, needs, [key for key in begun if key not in gone], running)
    wastes += _optimisers(home, running)
    if not running and not busy:
        wastes += _caches(home, needs.configs)
    if not busy:
        unplanned = (read_config(trial_folder(home, key)) for key in begun if key not in gone)
        configs = [*needs.configs, *(config for config in unplanned if config is not None)]
        wastes += _datasets(home, configs, store_of, imported)
    return Survey(tuple(wastes), tuple(_sizes(home, needs, begun)), tuple(remarks))


def _sweeps(home: Path) -> list[str]:
    """Names of the sweeps that were planned, or are being planned for the first time."""
    return [folder.name for folder in _children(sweeps_folder(home)) if folder.is_dir()]


def _earlier_plans(home: Path, busy: set[str]) -> Iterator[Waste]:
    for name in sweep_names(home):
        for plan in earlier_plans(name, home) if name not in busy else ():
            path = earlier_plans_folder(home, name) / f"{plan}.json"
            yield Waste("plans", path, size_of(path), reserved="it can be reported with `report --plan`")


def _trainings(home: Path, needs: _Needs, kept: Sequence[str], running: set[str]) -> Iterator[Waste]:
    used = {found for key in kept if (found := training_of(trial_folder(home, key)))}
    active = {found for key in running if (found := training_of(trial_folder(home, key)))}
    waiting = {
        trial.training for trial in needs.everything if trial.key in kept or not trial_folder(home, trial.key).is_dir()
    }
    for folder in _children(trainings_folder(home)):
        if folder.name in active or _is_locked(folder):
            continue
        if folder.name not in needs.trainings and folder.name not in used:
            yield Waste("trainings", folder, size_of(folder))
        elif folder.name not in waiting | used and read_training(folder) is None:
            yield Waste("failed", folder, size_of(folder))


def _optimisers(home: Path, running: set[str]) -> Iterator[Waste]:
    """Checkpoints beside the final weights."""
    active = {training_of(trial_folder(home, key)) for key in running}
    for folder in _children(trainings_folder(home)):
        checkpoints = folder / CHECKPOINTS_FOLDER
        record = read_training(folder) if checkpoints.is_dir() and folder.name not in active else None
        if record is not None:
            reserved = "run.keep_optimizer keeps them, to continue trainings" if record.get("keeps_optimizer") else ""
            yield Waste("optimisers", checkpoints, size_of(checkpoints), reserved=reserved)


def _caches(home: Path, configs: Iterable[Mapping[str, Any]]) -> Iterator[Waste]:
    sections = [section for config in configs for section in config.values() if isinstance(section, Mapping)]
    used = {value for section in sections for value in section.values() if isinstance(value, str)}
    for path in _children(cache_folder(home)):
        if path.name != "features":
            yield Waste("caches", path, size_of(path))
            continue
        for file in _children(path):
            if file.name.rpartition("-")[0] not in used:
                yield Waste("caches", file, size_of(file))
    for path in _children(ray_folder(home)):
        yield Waste("caches", path, size_of(path))


def _datasets(
    home: Path, configs: Iterable[Mapping[str, Any]], store_of: StoreOf, imported: Callable[[Path], bool]
) -> Iterator[Waste]:
    used = {store_of(config) for config in configs}
    for folder in _children(data_folder(home)):
        if (folder / "manifest.json").is_file() and folder not in used:
            reserved = "it was imported from your own folder" if imported(folder) else ""
            yield Waste("datasets", folder, size_of(folder), reserved=reserved)


def _sizes(home: Path, needs: _Needs, begun: Sequence[str]) -> Iterator[SweepSize]:
    for name, plan in needs.plans.items():
        yield SweepSize(name, len(plan.everything), _size_of_trials(home, [trial.key for trial in plan.everything]))
    others = [key for key in begun if key not in needs.current]
    if others:
        yield SweepSize("", len(others), _size_of_trials(home, others))


def _size_of_trials(home: Path, keys: Iterable[str]) -> int:
    folders = [trial_folder(home, key) for key in keys]
    trainings = {found for folder in folders if (found := training_of(folder))}
    return sum(map(size_of, [*folders, *(training_folder(home, key) for key in trainings)]))


# Removing


def remove(
    wastes: Sequence[Waste],
    home: Path,
    store_of: StoreOf,
    forget: Callable[[Sequence[str]], None],
) -> int:
    """Remove what `survey` found, and return the number of bytes; what began to run meanwhile, or is planned, stays.

    store_of: the folder of a configuration's dataset; forget: deletes the runs of trials from MLflow.  May be killed at
    any moment: each thing is first moved out of the reach of all readers, as a whole, and a later call removes what is
    left.  Plans are frozen anew with the states that their trials have afterwards.  Folders are deleted last, when
    sweeps may run again.
    """
    freed, condemned = 0, list[Path]()
    with ExitStack() as locks:
        names = _sweeps(home)
        held = [name for name in names if _hold(driver_lock_file(home, name), locks)]
        needs = _Needs(home)
        used, is_busy = {store_of(config) for config in needs.configs}, len(held) < len(names)
        wastes = [waste for waste in wastes if not _is_needed_now(waste, needs, used, is_busy=is_busy)]
        trials = [waste for waste in wastes if waste.key is not None and _is_removable(waste, needs, home)]
        forget([waste.key for waste in trials if waste.key is not None])
        for waste in (*trials, *(waste for waste in wastes if waste.key is None)):
            if not waste.path.exists() or _is_locked(waste.path):
                continue
            if waste.kind == "left-over":
                condemned.append(waste.path)
            elif waste.path.is_file():
                waste.path.unlink()
            else:
                condemned.append(_moved_away(waste, home))
            freed += waste.size
        for name in needs.plans.keys() & set(held):
            plan = read_plan(name, home)
            refreshed = plan.refreshed(Monitor(home))
            if refreshed != plan:
                freeze(refreshed, home)
    for path in dict.fromkeys(condemned):
        _delete(path)
    return freed


def _is_needed_now(waste: Waste, needs: _Needs, used: set[Path | None], *, is_busy: bool) -> bool:
    """Whether a plan needs something by now, or a sweep that runs by now may; used: the datasets of all plans."""
    if waste.kind in ("failed", "caches", "datasets") and is_busy:
        return True
    return waste.path in used or (waste.kind == "trainings" and waste.path.name in needs.trainings)


def _is_removable(waste: Waste, needs: _Needs, home: Path) -> bool:
    """Whether a trial may still be removed: it exists, does not run, and no new plan has it."""
    assert waste.key is not None
    if not waste.path.is_dir() or _is_locked(waste.path) or Monitor(home).look(waste.key).status == "running":
        return False
    if waste.kind == "trials":
        return waste.key not in needs.trials
    return waste.kind == "failed" or waste.key not in needs.current


def _moved_away(waste: Waste, home: Path) -> Path:
    """Rename a folder to where nothing is looked for; returns its new path.

    That is in the folder of removed things, or, where that lies on another disk, hidden in a folder of the home.
    """
    name = f"{waste.path.parent.name}-{waste.path.name}"
    target = removed_folder(home) / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _renamed(waste.path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    return _renamed(waste.path, home / waste.path.relative_to(home).parts[0] / f"{_HIDDEN}{name}")


def _renamed(path: Path, target: Path) -> Path:
    if target.exists():
        _delete(target)
    return path.rename(target)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _children(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def _abandoned(home: Path) -> list[Path]:
    """Temporary folders of reports and of measurements that nothing has changed for an hour."""
    folders = [*home.glob(".probe-*"), *reports_folder(home).glob(".*")]
    return sorted(filter(_is_abandoned, folders))


def _is_abandoned(folder: Path) -> bool:
    try:
        return time.time() - _last_change(folder) > _ABANDONED_S
    except FileNotFoundError:  # its command has ended meanwhile
        return False


def _last_change(folder: Path) -> float:
    """Time of the last change in a folder, as `time.time`."""
    times = [folder.lstat().st_mtime]
    times += [Path(parent, name).lstat().st_mtime for parent, _, names in os.walk(folder) for name in names]
    return max(times)


def _is_locked(folder: Path) -> bool:
    """Whether a process works in a trial's or a training's folder."""
    return is_held(folder / LOCK_FILENAME)


def _hold(lock: Path, stack: ExitStack) -> bool:
    """Take a lock until the stack ends; False where another process holds it."""
    try:
        stack.enter_context(FileLock(lock).acquire(timeout=0))
    except Timeout:
        return False
    return True
