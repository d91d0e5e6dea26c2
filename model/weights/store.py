"""A folder of verified weights as safetensors: looked up first, filled from the table's sources."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.weights.loading import not_loadable
from model.weights.looks import is_of_other_sizes, mistaken
from model.weights.readers import Published
from model.weights.sources import Delivery, WeightsSourceError, file_sha256, read
from model.weights.table import Weight, find_weight

#: Endings of a published file that somebody put into the folder by hand.
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")

log = logging.getLogger(__name__)


class MissingWeightsError(RuntimeError):
    """Weights are nowhere to be had, or not what they should be; the message lists what was tried."""


@dataclass(frozen=True)
class WeightStore:
    """Weights in `folder`, one safetensors file each, with a JSON file of its hash and source beside it.

    A published file or folder that lies there under the weights' name (`clip_vit_b32/`, `midas_small.pt`) is read
    before any other place is looked into.
    """

    folder: Path

    def load(self, name: str) -> dict[str, Tensor]:
        """The tensors of one entry of the table in their published order, fetched first where they are missing.

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
        """The path of the stored file, after fetching it where it is missing.  Raises as `load`."""
        weight = find_weight(name)
        if not self.has(name):
            with self._lock(name):
                if not self.has(name):
                    self._write(weight, self._acquire(weight))
                    shutil.rmtree(self._partly(name), ignore_errors=True)
        return self._path(name)

    def adopt(self, name: str, path: Path) -> Path:
        """Store a published file or folder that lies at `path`, in place of what is here.

        Raises as `load`, also for the tensors of another model; what is here stays then.
        """
        weight = find_weight(name)
        with self._lock(name):
            self._write(weight, self._read_local(weight, path))
        return self._path(name)

    def has(self, name: str) -> bool:
        """Whether the file and its record are there; `problem` says whether they are sound."""
        return self._path(name).is_file() and self._record(name).is_file()

    def names(self) -> list[str]:
        """Names of all weights that are here."""
        records = [path.with_suffix(".json") for path in self.folder.glob("*.safetensors")]
        return sorted(json.loads(record.read_text())["name"] for record in records if record.is_file())

    def problem(self, name: str) -> str | None:
        """Describes the problem of the stored file, or None."""
        find_weight(name)
        if not self.has(name):
            return f"weights {name!r} are not in {self.folder}; run: splatsweep weights fetch {name}"
        expected = self._recorded(name)["sha256"]
        found = file_sha256(self._path(name))
        if found != expected:
            return (
                f"{self._path(name)} is damaged (sha256 {found}, expected {expected}); "
                f"delete it and run: splatsweep weights fetch {name}"
            )
        if not self._recorded(name)["genuine"] and (reason := mistaken(name, self._shapes(name))):
            return f"{self._path(name)}: {reason}; delete it and run: splatsweep weights fetch {name}"
        return None

    def identity(self, name: str) -> str | None:
        """The sha256 that stands for these weights in trial keys.

        The table's, where the stored weights come from a file whose hash was compared with a published one, and
        where they are yet to be fetched; else that of the stored file, which covers the architecture too.  None
        where the table has none and the file is not here.
        """
        known = find_weight(name).sha256
        if not self.has(name):
            return known
        recorded = self._recorded(name)
        return known if known and recorded["genuine"] else recorded["sha256"]

    def source(self, name: str) -> str | None:
        """Where the stored file came from."""
        return self._recorded(name)["source"] if self.has(name) else None

    def _stem(self, name: str) -> str:
        return name.replace(":", "--").replace("/", "--")

    def _path(self, name: str) -> Path:
        return self.folder / f"{self._stem(name)}.safetensors"

    def _record(self, name: str) -> Path:
        return self.folder / f"{self._stem(name)}.json"

    def _partly(self, name: str) -> Path:
        """Where downloads are gathered, and kept when they break off."""
        return self.folder / "downloads" / self._stem(name)

    def _recorded(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._record(name).read_text())
        return content

    def _published(self, name: str) -> dict[str, Any]:
        with safe_open(self._path(name), framework="pt") as stream:
            content: dict[str, Any] = json.loads(stream.metadata()["published"])
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
        partly = self._partly(weight.name)
        partly.mkdir(parents=True, exist_ok=True)
        tried = []
        for attempt in ("cached", "download"):
            for source in weight.sources:
                if attempt == "download":
                    log.info("fetching weights %s (%s MB) from %s", weight.name, weight.megabytes or "?", source)
                try:
                    delivery = source.cached() if attempt == "cached" else source.download(partly)
                except WeightsSourceError as error:
                    tried.append(str(error))
                    continue
                if delivery is not None:
                    return delivery
                tried.append(f"{source}: not in this machine's caches")
        raise MissingWeightsError(
            f"weights {weight.name!r} ({weight.description}) could not be had. Tried:\n  "
            + "\n  ".join([f"{self.folder / self._stem(weight.name)}{{,{','.join(_SUFFIXES)}}}: not there", *tried])
            + f"\nOn a machine with a network run: splatsweep weights fetch {weight.name}"
            f"\nthen copy {self._path(weight.name).name} and {self._record(weight.name).name} to {self.folder}"
            f"\nOr, with the published file at hand: splatsweep weights fetch {weight.name} --from PATH"
        )

    def _local(self, name: str) -> Path | None:
        """A published file or folder that was put here by hand."""
        folder = self.folder / self._stem(name)
        files = [self.folder / f"{self._stem(name)}{suffix}" for suffix in _SUFFIXES]
        return next((path for path in (folder, *files) if path.exists()), None)

    def _read_local(self, weight: Weight, path: Path) -> Delivery:
        """Read by the source whose hash it has, else by the first, whose format is the usual one."""
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
            log.warning("%s is not the published file (sha256 %s); used under a hash of its own", path, found)
        return Delivery(content, str(path), genuine=origin is not None)

    def _check(self, name: str, content: Published, path: Path) -> None:
        """Raises `MissingWeightsError` where the tensors are those of another model, or cannot be put into this one."""
        shapes = {key: tuple(tensor.shape) for key, tensor in content.tensors.items()}
        problem = mistaken(name, shapes) or not_loadable(name, content)
        if problem:
            whose = f" ({content.release})" if content.release else ""
            raise MissingWeightsError(f"{path}{whose} is not stored as weights {name!r}: {problem}")
        if sizes := is_of_other_sizes(name, shapes):
            log.warning("%s holds %s; used under a hash of its own", path, sizes)

    def _write(self, weight: Weight, delivery: Delivery) -> None:
        content = delivery.content
        partial = self._path(weight.name).with_suffix(".partial")
        # One key only: safetensors writes several in any order, and the file's hash shall be a function of its content.
        published = {
            "order": list(content.tensors),
            "config": content.config,
            "preprocessor": content.preprocessor,
        }
        save_file(_apart(content), partial, metadata={"published": json.dumps(published, sort_keys=True)})
        record = {
            "name": weight.name,
            "sha256": file_sha256(partial),
            "source": delivery.origin,
            "genuine": delivery.genuine,
        }
        # The record first: a file of tensors alone would be taken for one that somebody put here.
        record_partial = self._record(weight.name).with_suffix(".json.partial")
        record_partial.write_text(json.dumps(record, indent=2))
        shutil.copymode(record_partial, partial)  # safetensors makes files that are private to their owner
        record_partial.replace(self._record(weight.name))
        partial.replace(self._path(weight.name))


def _apart(content: Published) -> dict[str, Tensor]:
    """Tensors that share no memory, as safetensors wants them; tied weights do."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in content.tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return apart
