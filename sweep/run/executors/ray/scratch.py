"""The scratch home of a node that does not see the driver's home, and the folders that workers occupy in it.

The scratch home is `$SPLATSWEEP_SCRATCH`, or a folder of this user in the system's temporary directory.  It persists
between trials, because it holds the node's own datasets, weights and features.  The folders of a trial and its training
are there only while it runs.

Each worker has a folder in `workers`, with a lock that it holds while it lives and a list of the folders that it
occupies.  What a killed worker leaves is removed before the next trial of the node: no trial resumes from it, because
all resume from the driver's files.  Other folders, such as those of sweeps with this home, are never removed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from results.records.atomic import write_json
from results.records.damage import DamagedFileError, member, read_object
from results.records.home import trainings_folder, trials_folder, user_path
from results.records.locks import is_held

SCRATCH_VARIABLE = "SPLATSWEEP_SCRATCH"

_WORKERS, _LOCK_FILENAME, _FOLDERS_FILENAME = "workers", "lock", "folders.json"


def scratch_home() -> Path:
    """The home of trials on a node that does not see the driver's."""
    named = os.environ.get(SCRATCH_VARIABLE)
    folder = user_path(named) if named else Path(tempfile.gettempdir()) / f"splatsweep-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not named and folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; name another folder in {SCRATCH_VARIABLE}")
    return folder.absolute()


def require_apart(scratch: Path, home: Path) -> None:
    """Raises ValueError where the scratch home's trials or trainings, which are deleted, may be the home's own."""
    mine, theirs = (
        [folder(place).resolve() for folder in (trials_folder, trainings_folder)] for place in (scratch, home)
    )
    if any(one.is_relative_to(other) or other.is_relative_to(one) for one in mine for other in theirs):
        raise ValueError(
            f"{SCRATCH_VARIABLE} is {os.environ.get(SCRATCH_VARIABLE, '')!r}, so the scratch home {scratch} would "
            f"share trials with the home {home}, and they would be lost; name another folder in {SCRATCH_VARIABLE}"
        )


@contextmanager
def occupied(scratch: Path, worker: str, folders: Sequence[Path]) -> Iterator[Path]:
    """Occupies folders of the scratch home, and yields the worker's own folder for its other files.

    At the end, however it comes, all of them are removed; those that another worker occupies too, which waits for them,
    stay.  What killed workers left is removed at both ends.
    """
    own = scratch / _WORKERS / worker
    changing = FileLock(scratch / _WORKERS / _LOCK_FILENAME)  # held while workers come and go
    alive = FileLock(own / _LOCK_FILENAME)  # makes the folder, too
    with changing:
        _remove_abandoned(scratch)
        alive.acquire()
        write_json(own / _FOLDERS_FILENAME, {"folders": [str(folder.relative_to(scratch)) for folder in folders]})
    try:
        yield own
    finally:
        with changing:
            alive.release()
            _remove_abandoned(scratch)


def _remove_abandoned(scratch: Path) -> None:
    """Removes the folders of workers that are dead, and those that they alone occupied."""
    workers = [path for path in (scratch / _WORKERS).iterdir() if path.is_dir()]
    living = {path for path in workers if is_held(path / _LOCK_FILENAME)}
    in_use = {name for path in living for name in _folders(path)}
    for path in workers:
        if path not in living:
            for name in _folders(path) - in_use:
                shutil.rmtree(scratch / name, ignore_errors=True)
            shutil.rmtree(path, ignore_errors=True)


def _folders(worker: Path) -> set[str]:
    """The folders that a worker occupies; none where it was killed before it wrote them down."""
    path = worker / _FOLDERS_FILENAME
    try:
        return set(member(read_object(path), "folders", list, path))
    except (FileNotFoundError, DamagedFileError):
        return set()
