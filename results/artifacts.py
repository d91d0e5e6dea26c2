"""Artifacts of runs as local files; artifacts of a server are downloaded once.

A run records the SHA-256 of each of its artifacts.  A file with that hash is the artifact wherever it lies: in the
trial's own folder, or in the home's cache of downloads.  A number can thus be traced to its run even if the file was
copied, and a file that was damaged or changed since it was recorded is never used.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from results import mlflow_settings
from results.address import reason
from results.errors import ResultsError
from results.records import tags
from results.records.hashing import file_sha256
from results.records.home import artifacts_folder, cache_folder, trials_folder
from results.runs import Run


class Artifacts:
    """Artifacts of the runs of one store, as seen from one home."""

    def __init__(self, home: Path, uri: str) -> None:
        self._trials, self._cache, self._uri = trials_folder(home), cache_folder(home) / "artifacts", uri
        self._own = artifacts_folder(home)

    @contextmanager
    def file(self, run: Run, name: str) -> Iterator[Path]:
        """A local file with the artifact; it may be deleted when the context ends, if the run records no hash of it.

        Raises `FileNotFoundError` where there is none or it cannot be fetched, and `ResultsError` for one that does not
        match its recorded hash.
        """
        recorded = self._local(run, name)
        sha256 = tags.artifact_hash(run.tags, name)
        if sha256 is not None:
            yield self._identical(run, name, sha256, recorded)
        elif recorded is not None:
            yield _existing(recorded, run, name)
        else:
            with tempfile.TemporaryDirectory(prefix="splatsweep-") as folder:
                yield self._download(run, name, Path(folder))

    def _identical(self, run: Run, name: str, sha256: str, recorded: Path | None) -> Path:
        cached = self._cache / f"{sha256}{Path(name).suffix}"
        copies = [self._trials / run.key / name, cached, recorded]
        for path in copies:
            if path is not None and path.is_file() and file_sha256(path) == sha256:
                return path
        if recorded is not None:
            raise _damaged(_existing(recorded, run, name), run)
        self._cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._cache) as folder:
            path = self._download(run, name, Path(folder))
            if file_sha256(path) != sha256:
                raise _damaged(name, run)
            return path.replace(cached)

    def _local(self, run: Run, name: str) -> Path | None:
        """Path of an artifact that the store keeps in a folder; None for one on a server.

        The recorded address may be that of the home before it was moved or copied, so the home is searched first.
        """
        parts = urlsplit(run.artifact_uri)
        if parts.scheme not in ("", "file"):
            return None
        here = self._own / run.run_id / "artifacts" / name
        return here if here.is_file() else Path(unquote(parts.path)) / name

    def _download(self, run: Run, name: str, folder: Path) -> Path:
        mlflow_settings.set_defaults()
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        try:
            # The public `download_artifacts` first requests a listing, to find out whether it is a folder.
            get_artifact_repository(run.artifact_uri, tracking_uri=self._uri)._download_file(name, str(folder / name))
        except Exception as error:  # each kind of storage has errors of its own, or lacks a package
            raise FileNotFoundError(f"run {run.run_id}: artifact {name} cannot be fetched: {reason(error)}") from error
        return folder / name


def _existing(path: Path, run: Run, name: str) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"run {run.run_id} has no artifact {name}")
    return path


def _damaged(what: Path | str, run: Run) -> ResultsError:
    return ResultsError(f"run {run.run_id}: {what} is not what was recorded, by its SHA-256")
