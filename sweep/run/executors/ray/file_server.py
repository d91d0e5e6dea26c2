"""The driver's side of trials that run where the home is not seen: their files, written under the home as they come.

A `Keeper` is an actor on the driver's node.  What it is told to write it writes below the trial's folder there, so
that journals, checkpoints and results are where they always are, and who reads them needs to know nothing of this.
"""

from __future__ import annotations

import os
from pathlib import Path

from results.records.atomic import PARTIAL
from results.records.disk import DiskFullError, full_disk_explained
from results.records.home import trial_folder
from results.records.trial_folder import CHECKPOINTS_FOLDER, JOURNAL_FILENAME, LOG_FILENAME, PRUNE_FILENAME
from sweep.run.stop import request_stop

#: Grow by whole lines; all other files of a trial are replaced as a whole.
GROWING = (JOURNAL_FILENAME, LOG_FILENAME)
_INCOMING = ".incoming"
#: Left by writers that were killed.
_UNFINISHED = (_INCOMING, PARTIAL)


class TrialMovedError(RuntimeError):
    """Another worker has taken the trial over since; what this one does no longer counts."""


class Keeper:
    """Reads and writes files of trials under one home, for one worker per trial at a time.

    The worker that took a trial over last is the one that may write: one that was believed dead, and is not, is
    refused with `TrialMovedError`.
    """

    def __init__(self, home: str, stop_file: str) -> None:
        self._home, self._stop_file = Path(home), Path(stop_file)
        self._workers: dict[str, str] = {}  # trial -> the worker that has it

    def sees_home(self) -> bool:
        """Whether the driver's folder for the sweep, where the stop file would be, is seen from here."""
        return self._stop_file.parent.is_dir()

    def take_over(self, key: str, worker: str) -> list[str]:
        """From now on `worker` has the trial; returns the names of the files that it goes on from."""
        self._workers[key] = worker
        folder = self._folder(key)
        found = [*folder.glob(f"{CHECKPOINTS_FOLDER}/*"), *(folder / name for name in GROWING)]
        return [str(path.relative_to(folder)) for path in found if path.is_file() and path.suffix not in _UNFINISHED]

    def read(self, key: str, name: str, offset: int, size: int) -> bytes:
        """At most `size` bytes of a file, from `offset` on; none behind its end."""
        with self._folder(key).joinpath(name).open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)

    def extend(self, key: str, worker: str, name: str, offset: int, data: bytes) -> None:
        """Let a growing file end with `data` from `offset` on."""
        self._write(key, worker, self._folder(key) / name, offset, data)

    def replace(self, key: str, worker: str, name: str, offset: int, data: bytes, is_last: bool) -> None:
        """One piece of a file, in order; with the last one the file is there, in place of an older one."""
        path = self._folder(key) / name
        incoming = path.with_name(path.name + _INCOMING)
        self._write(key, worker, incoming, offset, data, sync=is_last)
        if is_last:
            incoming.replace(path)

    def keep_checkpoints(self, key: str, worker: str, names: list[str]) -> None:
        """Delete the trial's checkpoints but these."""
        self._check_worker(key, worker)
        folder = self._folder(key)
        for path in sorted(folder.glob(f"{CHECKPOINTS_FOLDER}/*")):
            if str(path.relative_to(folder)) not in names:
                path.unlink()

    def stop(self) -> str | None:
        """What stands in the stop file; None where there is none."""
        return self._stop_file.read_text(encoding="utf-8") if self._stop_file.exists() else None

    def prune_request(self, key: str) -> str | None:
        """Why a search wants the trial given up, if it does."""
        path = self._folder(key) / PRUNE_FILENAME
        return path.read_text(encoding="utf-8") if path.exists() else None

    def ask_to_stop(self, request: str) -> None:
        """Write the stop file, unless another has."""
        if not self._stop_file.exists():
            self._stop_file.write_text(request, encoding="utf-8")

    def _write(self, key: str, worker: str, path: Path, offset: int, data: bytes, sync: bool = False) -> None:
        self._check_worker(key, worker)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with full_disk_explained(path), os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "rb+") as stream:
                stream.truncate(offset)
                stream.seek(offset)
                stream.write(data)
                stream.flush()
                if sync:
                    os.fsync(stream.fileno())
        except DiskFullError as error:
            request_stop(self._stop_file, "disk", str(error))
            raise

    def _check_worker(self, key: str, worker: str) -> None:
        # A keeper that was started again believes the first one who comes.
        if self._workers.setdefault(key, worker) != worker:
            raise TrialMovedError(f"trial {key} runs elsewhere by now")

    def _folder(self, key: str) -> Path:
        return trial_folder(self._home, key)
