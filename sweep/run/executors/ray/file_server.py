"""The driver's side of trials on nodes that do not see the home: it writes the files that they send under the home.

A `TrialFileServer` is an actor on the driver's node.  It writes the files that workers send into the folders of the
trial and of its training.  Journals, checkpoints and results are therefore in their usual places, and readers need
no special case.  Names of files are relative to the home.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from results.records.atomic import PARTIAL
from results.records.disk import DiskFullError, full_disk_explained
from results.records.home import training_folder, trial_folder
from results.records.permissions import widen_umask
from results.records.trial_folder import (
    CHECKPOINTS_FOLDER,
    JOURNAL_FILENAME,
    LOCK_FILENAME,
    LOG_FILENAME,
    MEASUREMENTS_FILENAME,
    PRUNE_FILENAME,
    RESULT_FILENAME,
)
from sweep.run.stop import request_stop

#: Names of files that grow line by line; all others are replaced as a whole.
GROWING = (JOURNAL_FILENAME, LOG_FILENAME)
_INCOMING = ".incoming"
#: Suffixes of files that killed writers leave behind.
_UNFINISHED = (_INCOMING, PARTIAL)


class TrialMovedError(RuntimeError):
    """Another worker has taken the trial over, so this worker's writes are rejected."""


class TrialFileServer:
    """Reads and writes trials' files under one home, for one worker per trial at a time.

    Only the worker that took a trial over last may write.  An earlier one that was presumed dead, but is alive, gets
    `TrialMovedError`.
    """

    def __init__(self, home: str, stop_file: str) -> None:
        self._home, self._stop_file = Path(home), Path(stop_file)
        widen_umask(self._home)
        self._workers: dict[str, str] = {}  # trial -> its current worker
        self._held: dict[Path, tuple[str, FileLock]] = {}  # folder -> the trial that works in it, and the held lock

    def sees_home(self) -> bool:
        """Whether the sweep's folder, which would contain the stop file, exists on this node."""
        return self._stop_file.parent.is_dir()

    def take_over(self, key: str, training: str | None, worker: str) -> list[str] | None:
        """Assigns the trial to `worker`; returns the names of the files that it resumes from.

        Returns None and changes nothing while another process runs the trial, or another trial the training.
        """
        trial = self._folder(key)
        folders = [trial, *([training_folder(self._home, training)] if training is not None else [])]
        if not all(self._hold(folder, key) for folder in folders):
            self._let_go(key)
            return None
        self._workers[key] = worker
        own = [trial / name for name in (*GROWING, MEASUREMENTS_FILENAME, RESULT_FILENAME)]
        return self._names([*own, *(path for folder in folders[1:] for path in folder.rglob("*"))])

    def continue_training(
        self, key: str, training: str, worker: str, config: dict[str, Any], fingerprint: str, weights: dict[str, str]
    ) -> list[str]:
        """Lets the trial's training continue a finished one of this home, if it was not begun and one is its beginning.

        config: of the trial; fingerprint, weights: of its dataset and frozen weights.  Returns the names of the
        training's files where it does, else none.
        """
        from jobs.config import TrialConfig
        from jobs.continuation import continue_training  # torch: seconds and half a gigabyte, which few need here

        self._check_worker(key, worker, training_folder(self._home, training))
        found = continue_training(TrialConfig.model_validate(config), training, fingerprint, weights, self._home)
        return [] if found is None else self._names(training_folder(self._home, training).rglob("*"))

    def leave(self, key: str, worker: str) -> None:
        """Releases the trial and its training, so that others may run them."""
        if self._workers.get(key) == worker:
            self.release(key)

    def release(self, key: str) -> None:
        """Releases what a worker held that has left, or died; one that is alive may write no more."""
        self._workers[key] = ""
        self._let_go(key)

    def _let_go(self, key: str) -> None:
        for folder, (holder, lock) in list(self._held.items()):
            if holder == key:
                lock.release()
                del self._held[folder]

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Up to `size` bytes of a file from `offset` on; empty past its end."""
        with self._home.joinpath(name).open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)

    def extend(self, key: str, worker: str, name: str, offset: int, data: bytes) -> None:
        """Truncates a growing file at `offset` and appends `data`."""
        self._write(key, worker, self._home / name, offset, data)

    def replace(self, key: str, worker: str, name: str, offset: int, data: bytes, is_last: bool) -> None:
        """Writes the next piece of a file; the last piece puts the file in place of the older one."""
        path = self._home / name
        incoming = path.with_name(path.name + _INCOMING)
        self._write(key, worker, incoming, offset, data, sync=is_last)
        if is_last:
            incoming.replace(path)

    def keep_checkpoints(self, key: str, training: str, worker: str, names: list[str]) -> None:
        """Deletes all checkpoints of the training except these."""
        folder = training_folder(self._home, training)
        self._check_worker(key, worker, folder)
        for path in sorted((folder / CHECKPOINTS_FOLDER).glob("*")):
            if str(path.relative_to(self._home)) not in names:
                path.unlink()

    def stop(self) -> str | None:
        """The content of the stop file; None where there is none."""
        return self._stop_file.read_text(encoding="utf-8") if self._stop_file.exists() else None

    def prune_request(self, key: str) -> str | None:
        """The reason why a search prunes the trial; None where it does not."""
        path = self._folder(key) / PRUNE_FILENAME
        return path.read_text(encoding="utf-8") if path.exists() else None

    def report_full_disk(self, reason: str) -> None:
        """Requests a stop because the disk of a worker's node is full."""
        request_stop(self._stop_file, "disk", reason)

    def ask_to_stop(self, request: str) -> None:
        """Writes the stop file, unless it exists."""
        if not self._stop_file.exists():
            self._stop_file.write_text(request, encoding="utf-8")

    def _names(self, paths: Iterable[Path]) -> list[str]:
        return [
            str(path.relative_to(self._home))
            for path in paths
            if path.is_file() and path.suffix not in _UNFINISHED and path.name != LOCK_FILENAME
        ]

    def _hold(self, folder: Path, key: str) -> bool:
        """Whether the trial holds the lock of its folder or its training's: no other works there, on any machine."""
        if folder in self._held:
            return self._held[folder][0] == key
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILENAME, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._held[folder] = key, lock
        return True

    def _write(self, key: str, worker: str, path: Path, offset: int, data: bytes, sync: bool = False) -> None:
        self._check_worker(key, worker, self._home.joinpath(*path.relative_to(self._home).parts[:2]))
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

    def _check_worker(self, key: str, worker: str, folder: Path) -> None:
        # A restarted file server accepts the first worker that calls, and takes its locks again.
        if self._workers.setdefault(key, worker) != worker or not self._hold(folder, key):
            raise TrialMovedError(f"trial {key} was taken over by another worker")

    def _folder(self, key: str) -> Path:
        return trial_folder(self._home, key)
