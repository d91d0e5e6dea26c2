"""The files of a trial that runs on a node which does not see the home: copied there before it runs, and sent back.

Before a trial runs, its folder and its training's are copied from the driver, so that it resumes from the last
checkpoint.  While it runs, a thread sends all changes to the driver's `TrialFileServer`.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from jobs.config import TrialConfig
from results.records.atomic import PARTIAL
from results.records.home import training_folder, trial_folder
from results.records.training_folder import read_training
from results.records.trial_folder import CHECKPOINTS_FOLDER, LOCK_FILENAME, PRUNE_FILENAME, RESULT_FILENAME
from sweep.run.executors.ray.file_server import GROWING, TrialMovedError
from sweep.run.executors.ray.scratch import occupied
from sweep.run.stop import request_prune, request_stop

#: Seconds between two transfers to the driver.
INTERVAL_S = 1.0
_PIECE = 16 << 20

#: Calls a method of the `TrialFileServer` by its name.
Call = Callable[..., Any]


class TrialSync:
    """Synchronises the folders of a trial and its training between the scratch home and the driver's home.

    On entry, it waits until no other trial runs the training, then fetches the files.  Inside, a thread sends changes
    every second.  On exit, it sends the remaining changes.  The folders in the scratch home are deleted in any case.
    Entry and exit raise the errors of `call`, such as `TrialMovedError` and `DiskFullError`; the thread raises none.
    """

    def __init__(self, call: Call, key: str, training: str | None, scratch: Path) -> None:
        self._call, self._key, self._worker = call, key, f"{socket.gethostname()}-{uuid.uuid4().hex}"
        self._training, self._scratch = training, scratch
        self._folder = trial_folder(scratch, key)
        self._folders = [self._folder, *([training_folder(scratch, training)] if training is not None else [])]
        self._is_holder = False
        self._sent: dict[str, Any] = {}  # name -> the file's state, or its length, when it was last sent
        self._lock = threading.Lock()  # files are either sent or fetched
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._send_now_and_then, name="sync", daemon=True)

    def __enter__(self) -> TrialSync:
        with ExitStack() as stack:
            own = stack.enter_context(occupied(self._scratch, self._worker, self._folders))
            #: the stop file that the trial watches; it is synchronised with the driver's in both directions
            self.stop_file = own / "stop"
            self._is_holder = self._fetch()
            self._pass_on_stop()
            if self._is_holder:
                self._thread.start()
            self._occupied = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._occupied:
            if not self._is_holder:
                return
            self._done.set()
            self._thread.join()
            self.send()
            self._pass_on_stop()
            self._call("leave", self._key, self._worker)

    def send(self) -> None:
        """Sends all changes.

        The order keeps the driver's copy consistent: a journal arrives before its checkpoints, and a result after the
        files that it was computed from.  All files are opened first, since the trial may replace a checkpoint while
        another file is being sent.
        """
        with self._lock:
            self._send()

    def _send(self) -> None:
        growing, whole = self._files()
        whole.sort(key=lambda name: (Path(name).name == RESULT_FILENAME, name.endswith(".json"), name))
        with ExitStack() as opened:
            streams: dict[str, BinaryIO] = {}
            for name in whole:
                with suppress(FileNotFoundError):
                    streams[name] = opened.enter_context((self._scratch / name).open("rb"))
            for name in growing:
                self._extend(name)
            for name, stream in streams.items():
                state = _state(os.fstat(stream.fileno()))
                if self._sent.get(name) != state:
                    self._replace(name, stream)
                    self._sent[name] = state
        checkpoints = [name for name in streams if Path(name).parent.name == CHECKPOINTS_FOLDER]
        if self._training is not None and (checkpoints or read_training(self._folders[-1]) is not None):
            self._call("keep_checkpoints", self._key, self._training, self._worker, checkpoints)

    def continue_training(self, config: TrialConfig, fingerprint: str, weights: Mapping[str, str]) -> None:
        """Lets the training continue a finished one of the driver's home, if it can, and fetches its state.

        fingerprint, weights: those of the dataset and of the frozen weights that the trial uses.
        """
        if self._training is None:
            return
        plain = config.model_dump(mode="json")
        with self._lock:
            names = self._call(
                "continue_training", self._key, self._training, self._worker, plain, fingerprint, dict(weights)
            )
            self._download(names)

    def _fetch(self) -> bool:
        """Takes the trial over and fetches its files; False where a stop came while another trial ran the training."""
        while (names := self._call("take_over", self._key, self._training, self._worker)) is None:
            self._pass_on_stop()
            if self.stop_file.exists():
                return False
            time.sleep(INTERVAL_S)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        self._download(names)
        return True

    def _download(self, names: Iterable[str]) -> None:
        for name in names:
            path = self._scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                while piece := self._call("read", name, stream.tell(), _PIECE):
                    stream.write(piece)
            self._sent[name] = _whole_lines(path) if path.name in GROWING else _state(path.stat())

    def _send_now_and_then(self) -> None:
        while not self._done.wait(INTERVAL_S):
            try:
                self._pass_on_stop()
                self.send()
            except TrialMovedError as error:
                request_stop(self.stop_file, "request", str(error))
                return  # this stop is the worker's own, not the sweep's
            except Exception:  # the driver's node is busy, or its disk full: the next transfer sends everything
                continue

    def _pass_on_stop(self) -> None:
        """Copies a stop request between driver and worker, and a prune request to the worker that holds the trial."""
        here, there = self.stop_file.exists(), self._call("stop")
        if there is not None and not here:
            self.stop_file.write_text(there, encoding="utf-8")
        elif here and there is None and (request := self.stop_file.read_text(encoding="utf-8")):
            self._call("ask_to_stop", request)  # an empty file is being written, or its disk is full
        if self._is_holder and (reason := self._call("prune_request", self._key)) is not None:
            request_prune(self._folder, reason)

    def _files(self) -> tuple[list[str], list[str]]:
        """The names of growing files, and of files that are replaced as a whole."""
        found = [path for folder in self._folders for path in folder.rglob("*") if path.is_file()]
        growing = [path for path in found if path.name in GROWING]
        passed_over = (*GROWING, PRUNE_FILENAME, LOCK_FILENAME)
        whole = [path for path in found if path.suffix != PARTIAL and path.name not in passed_over]
        return [self._name(path) for path in growing], [self._name(path) for path in whole]

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._scratch))

    def _extend(self, name: str) -> None:
        path, sent = self._scratch / name, self._sent.get(name)
        if (end := _whole_lines(path)) == sent:
            return
        with path.open("rb") as stream:
            stream.seek(offset := sent or 0)
            self._call("extend", self._key, self._worker, name, offset, stream.read(end - offset))
        self._sent[name] = end

    def _replace(self, name: str, stream: BinaryIO) -> None:
        """Sends the content of a file in pieces."""
        offset, piece, is_last = 0, stream.read(_PIECE), False
        while not is_last:
            following = stream.read(_PIECE)
            is_last = not following
            self._call("replace", self._key, self._worker, name, offset, piece, is_last)
            offset, piece = offset + len(piece), following


def _state(found: os.stat_result) -> tuple[int, int, int]:
    """A value that changes when a file is written or replaced."""
    return found.st_mtime_ns, found.st_size, found.st_ino


def _whole_lines(path: Path) -> int:
    """The length of a file up to its last newline."""
    return path.read_bytes().rfind(b"\n") + 1
