"""A folder of verified weights as safetensors, filled from the table's sources on demand."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.networks import is_given_network
from model.weights.loading import not_loadable
from model.weights.looks import is_of_other_sizes, mistaken
from model.weights.readers import Published
from model.weights.sources import Delivery, WeightsSourceError, file_sha256, raise_if_disk_full, read
from model.weights.table import Weight, fetch_command, find_weight

#: Suffixes of published files that a user may put into the folder.
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")

log = logging.getLogger(__name__)


class MissingWeightsError(RuntimeError):
    """Weights are unavailable or invalid; the message lists the sources tried."""


@dataclass(frozen=True)
class WeightStore:
    """Weights in `folder`, one safetensors file each, beside a JSON file with its hash and source.

    A published file or folder there, named after the weights (`clip_vit_b32/`, `midas_small.pt`), has priority
    over all other sources.
    """

    folder: Path

    def load(self, name: str) -> dict[str, Tensor]:
        """The tensors of one entry of the table in their published order, fetched first if missing.

        Raises `UnknownChoiceError` for a name not in the table and `MissingWeightsError` where no source can
        deliver or the stored file is damaged.
        """
        path = self.fetch(name)
        problem = self.problem(name)
        if problem:
            raise MissingWeightsError(problem)
        # safetensors sorts the names; some readers need the published order.
        order = self._published(name)["order"]
        with safe_open(path, framework="pt") as stream:
            return {key: stream.get_tensor(key) for key in order}

    def config(self, name: str) -> dict[str, Any]:
        """The published `config.json` of the architecture; empty where there is none.  Raises as `load`."""
        self.fetch(name)
        config: dict[str, Any] = self._published(name)["config"]
        return config

    def preprocessor(self, name: str) -> dict[str, Any]:
        """The published `preprocessor_config.json` of the input; empty where there is none."""
        self.fetch(name)
        preprocessor: dict[str, Any] = self._published(name)["preprocessor"]
        return preprocessor

    def fetch(self, name: str) -> Path:
        """The path of the stored file, fetched first if missing.  Raises as `load`."""
        weight = find_weight(name)
        if not self.has(name):
            with self._lock(name):
                if not self.has(name):
                    self._write(weight, self._acquire(weight))
                    shutil.rmtree(self._downloads(name), ignore_errors=True)
        return self._path(name)

    def adopt(self, name: str, path: Path) -> Path:
        """Store the published file or folder at `path`, replacing the stored one.

        Raises as `load`, also for the tensors of another model; then the stored one is kept.
        """
        weight = find_weight(name)
        with self._lock(name):
            self._write(weight, self._read_local(weight, path))
        return self._path(name)

    def has(self, name: str) -> bool:
        """Whether the file and its record exist; `problem` checks that they are valid."""
        return self._path(name).is_file() and self._record(name).is_file()

    def names(self) -> list[str]:
        """Names of all stored weights."""
        names = []
        for record in (path.with_suffix(".json") for path in self.folder.glob("*.safetensors")):
            try:
                names += [_read_record(record)["name"]] if record.is_file() else []
            except MissingWeightsError as error:
                log.warning("%s", error)
        return sorted(names)

    def problem(self, name: str) -> str | None:
        """Describes the problem of the stored file, or None."""
        find_weight(name)
        if not self.has(name):
            return f"weights {name!r} are not in {self.folder}; run: {fetch_command(name)}"
        try:
            expected = self._recorded(name)["sha256"]
        except MissingWeightsError as error:
            return str(error)
        found = file_sha256(self._path(name))
        if found != expected:
            return (
                f"{self._path(name)} is damaged (sha256 {found}, expected {expected}); "
                f"delete it and run: {fetch_command(name)}"
            )
        if not self._recorded(name)["genuine"] and (reason := mistaken(name, self._shapes(name))):
            return f"{self._path(name)}: {reason}; delete it and run: {fetch_command(name)}"
        return None

    def identity(self, name: str) -> str | None:
        """The sha256 that identifies these weights in trial keys.

        It is the table's hash if the stored weights come from a file with a verified hash or are not stored yet, since
        no source may deliver others; otherwise that of the stored file, which also covers the architecture.  A
        published file or folder that a user put into the store's folder is stored first.  None if there is no hash, or
        that cannot be done, or the record is damaged.
        """
        known = find_weight(name).sha256
        if not self.has(name) and self._local(name) is None:
            return known
        try:
            self.fetch(name)
            recorded = self._recorded(name)
        except (MissingWeightsError, OSError) as error:  # only the trials that need them are blocked
            log.warning("%s", error)
            return None
        return known if known and recorded["genuine"] else recorded["sha256"]

    def source(self, name: str) -> str | None:
        """Origin of the stored file; None where it is not stored, or its record is damaged."""
        try:
            return str(self._recorded(name)["source"]) if self.has(name) else None
        except MissingWeightsError:
            return None

    def _stem(self, name: str) -> str:
        return name.replace(":", "--").replace("/", "--")

    def _path(self, name: str) -> Path:
        return self.folder / f"{self._stem(name)}.safetensors"

    def _record(self, name: str) -> Path:
        return self.folder / f"{self._stem(name)}.json"

    def _downloads(self, name: str) -> Path:
        """The folder of downloads; it keeps partial files."""
        return self.folder / "downloads" / self._stem(name)

    def _recorded(self, name: str) -> dict[str, Any]:
        return _read_record(self._record(name))

    def _published(self, name: str) -> dict[str, Any]:
        try:
            with safe_open(self._path(name), framework="pt") as stream:
                content: dict[str, Any] = json.loads(stream.metadata()["published"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(self._path(name), f"{type(error).__name__}: {error}") from error
        return content

    def _shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        with safe_open(self._path(name), framework="pt") as stream:
            return {key: tuple(stream.get_slice(key).get_shape()) for key in stream.keys()}  # noqa: SIM118  # no mapping

    def _lock(self, name: str) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self._path(name).with_suffix(".lock"))

    def _acquire(self, weight: Weight) -> Delivery:
        local = self._local(weight.name)
        if local is not None:
            return self._read_local(weight, local)
        downloads = self._downloads(weight.name)
        downloads.mkdir(parents=True, exist_ok=True)
        tried = []
        for method in ("cached", "download"):
            for source in weight.sources:
                if method == "download":
                    log.info("fetching weights %s (%s MB) from %s", weight.name, weight.megabytes or "?", source)
                try:
                    delivery = source.cached() if method == "cached" else source.download(downloads)
                except WeightsSourceError as error:
                    tried.append(str(error))
                    continue
                if delivery is None:
                    tried.append(f"{source}: not in this machine's caches")
                elif weight.sha256 and not delivery.genuine:  # their own hash would change keys that are planned
                    tried.append(f"{delivery.origin}: not known to be what the table's sha256, {weight.sha256}, means")
                else:
                    return delivery
        raise MissingWeightsError(
            f"weights {weight.name!r} ({weight.description}) could not be obtained. Tried:\n  "
            + "\n  ".join([f"{self.folder / self._stem(weight.name)}{{,{','.join(_SUFFIXES)}}}: not there", *tried])
            + self._remedy(weight)
        )

    def _remedy(self, weight: Weight) -> str:
        """Ways to obtain weights that no source has delivered."""
        if is_given_network(weight.name):
            return f"\nFrom a published file, or one that `splatsweep export` wrote: {fetch_command(weight.name)}"
        return (
            f"\nOn a machine with a network run: {fetch_command(weight.name)}"
            f"\nthen copy {self._path(weight.name).name} and {self._record(weight.name).name} to {self.folder}"
            f"\nOr, from a published file or folder: {fetch_command(weight.name)} --from PATH"
            + ("; if its hash is not the table's, its own one enters keys" if weight.sha256 else "")
        )

    def _local(self, name: str) -> Path | None:
        """A published file or folder that a user put into the store's folder."""
        folder = self.folder / self._stem(name)
        files = [self.folder / f"{self._stem(name)}{suffix}" for suffix in _SUFFIXES]
        return next((path for path in (folder, *files) if path.exists()), None)

    def _read_local(self, weight: Weight, path: Path) -> Delivery:
        """Reads a file in the format of the source with its hash, or else in that of the first source."""
        if not path.exists():
            raise MissingWeightsError(f"there is no {path} to read weights {weight.name!r} from")
        found = file_sha256(path) if path.is_file() else ""
        origin = next((source for source in weight.sources if source.sha256 and found.startswith(source.sha256)), None)
        try:
            content = read((origin or weight.sources[0]).read, path)
        except WeightsSourceError as error:
            raise MissingWeightsError(f"weights {weight.name!r}: {error}") from error
        if origin is None:
            self._check(weight.name, content, path)
        if weight.sha256 and origin is None and path.is_file():
            log.warning("%s is not the published file (sha256 %s); used with its own hash", path, found)
        return Delivery(content, str(path), genuine=origin is not None)

    def _check(self, name: str, content: Published, path: Path) -> None:
        """Raises `MissingWeightsError` where the tensors are those of another model, or do not fit this one."""
        shapes = {key: tuple(tensor.shape) for key, tensor in content.tensors.items()}
        problem = mistaken(name, shapes) or not_loadable(name, content)
        if problem:
            whose = f" ({content.release})" if content.release else ""
            raise MissingWeightsError(f"{path}{whose} is not stored as weights {name!r}: {problem}")
        if sizes := is_of_other_sizes(name, shapes):
            log.warning("%s holds %s; used with its own hash", path, sizes)

    def _write(self, weight: Weight, delivery: Delivery) -> None:
        """Store both files, or none: on a full disk the old ones stay, and the system's OSError is raised."""
        content = delivery.content
        path, record = self._path(weight.name), self._record(weight.name)
        partial, record_partial = path.with_suffix(".partial"), record.with_suffix(".json.partial")
        # A single key: safetensors writes several in arbitrary order, and equal content must have equal hashes.
        published = {
            "order": list(content.tensors),
            "config": content.config,
            "preprocessor": content.preprocessor,
        }
        try:
            save_file(_unshared(content), partial, metadata={"published": json.dumps(published, sort_keys=True)})
            facts = {
                "name": weight.name,
                "sha256": file_sha256(partial),
                "source": delivery.origin,
                "genuine": delivery.genuine,
            }
            record_partial.write_text(json.dumps(facts, indent=2))
            shutil.copymode(record_partial, partial)  # safetensors creates files that only their owner can read
            for file in (partial, record_partial):
                _sync(file)
            # The record is renamed first: a file without a record would be read as one that a user put here.
            record_partial.replace(record)
            partial.replace(path)
        except BaseException as error:
            for file in (partial, record_partial):
                file.unlink(missing_ok=True)
            raise_if_disk_full(error, partial)
            raise


def _unshared(content: Published) -> dict[str, Tensor]:
    """Copies tensors that share memory, such as tied weights, as safetensors requires."""
    seen: set[int] = set()
    copies = {}
    for name, tensor in content.tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        copies[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return copies


def _sync(path: Path) -> None:
    """Sync a file's bytes to disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _read_record(path: Path) -> dict[str, Any]:
    """The record beside a stored file.  Raises `MissingWeightsError`, with the remedy, where it is damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        kinds = {"name": str, "sha256": str, "source": str, "genuine": bool}
        wrong = [name for name, kind in kinds.items() if not isinstance(content[name], kind)]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        reason = "it is empty" if path.is_file() and not path.stat().st_size else f"{type(error).__name__}: {error}"
        raise _damaged(path, reason) from error
    if wrong:
        raise _damaged(path, f"its {', '.join(wrong)} has the wrong type")
    return content


def _damaged(path: Path, reason: str) -> MissingWeightsError:
    name = path.stem.replace("--", ":", 1).replace("--", "/")
    return MissingWeightsError(
        f"{path} is damaged ({reason}); delete {path.with_suffix('.json').name} and "
        f"{path.with_suffix('.safetensors').name} there and run: {fetch_command(name)}"
    )
