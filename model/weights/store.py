"""A folder of verified weights as safetensors: looked up first, filled from the table's sources."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.depth import DEPTH
from model.losses import LOSSES
from model.registry import UnknownChoiceError, resolve
from model.semantic import SEMANTIC
from model.weights.sources import WeightsSourceError
from model.weights.table import WEIGHTS, Weight

#: The trunk that each variant of LPIPS needs.
LPIPS_TRUNKS = {"vgg": "vgg16", "alex": "alexnet"}


class MissingWeightsError(RuntimeError):
    """Weights are nowhere to be had, or not what they should be; the message lists what was tried."""


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class WeightStore:
    """Weights in `folder`, one safetensors file each, with a JSON file of its hash and source beside it."""

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
        with safe_open(path, framework="pt") as stream:
            # safetensors sorts the names; some readers need the published order.
            return {key: stream.get_tensor(key) for key in json.loads(stream.metadata()["order"])}

    def fetch(self, name: str) -> Path:
        """The path of the stored file, after fetching it where it is missing.  Raises as `load`."""
        weight = _entry(name)
        if not self.has(name):
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._path(name).with_suffix(".lock")):
                if not self.has(name):
                    self._acquire(weight)
        return self._path(name)

    def has(self, name: str) -> bool:
        """Whether the file and its record are there; `problem` says whether they are sound."""
        return self._path(name).is_file() and self._record(name).is_file()

    def problem(self, name: str) -> str | None:
        """What is wrong with the stored file, or None."""
        _entry(name)
        if not self.has(name):
            return f"weights {name!r} are not in {self.folder}; run: splatsweep weights fetch {name}"
        expected = json.loads(self._record(name).read_text())["sha256"]
        found = _file_sha256(self._path(name))
        if found != expected:
            return (
                f"{self._path(name)} is damaged (sha256 {found}, expected {expected}); "
                f"delete it and run: splatsweep weights fetch {name}"
            )
        return None

    def source(self, name: str) -> str | None:
        """Where the stored file came from."""
        return json.loads(self._record(name).read_text())["source"] if self.has(name) else None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _acquire(self, weight: Weight) -> None:
        tried = []
        for attempt in ("cached", "download"):
            for source in weight.sources:
                try:
                    tensors = getattr(source, attempt)()
                except WeightsSourceError as error:
                    tried.append(str(error))
                    continue
                if tensors is not None:
                    self._write(weight.name, tensors, str(source))
                    return
        raise MissingWeightsError(
            f"weights {weight.name!r} ({weight.description}) could not be had. Tried:\n  "
            + "\n  ".join(tried)
            + f"\nOn a machine with a network run: splatsweep weights fetch {weight.name}"
            f"\nthen copy {weight.name}.safetensors and {weight.name}.json to {self.folder}"
        )

    def _write(self, name: str, tensors: dict[str, Tensor], source: str) -> None:
        partial = self.folder / f"{name}.partial"
        save_file(tensors, partial, metadata={"order": json.dumps(list(tensors))})
        record = {"sha256": _file_sha256(partial), "source": source}
        self._record(name).write_text(json.dumps(record, indent=2))
        partial.replace(self._path(name))


def _entry(name: str) -> Weight:
    if name not in WEIGHTS:
        raise UnknownChoiceError("weights", name, WEIGHTS)
    return WEIGHTS[name]


def required(*, semantic: str, depth: str, losses: Collection[str], lpips: str) -> dict[str, str]:
    """The frozen weights that a trial uses: name in the table -> sha256.

    semantic, depth: names in their registries, or "none"; losses: names of all losses in use; lpips: the variant
    that evaluation measures with.
    """
    components: Iterable[type] = [
        *(resolve(SEMANTIC, name, "encoder") for name in [semantic] if name != "none"),
        *(resolve(DEPTH, name, "depth model") for name in [depth] if name != "none"),
        *(resolve(LOSSES, name, "loss") for name in losses),
    ]
    names = {LPIPS_TRUNKS[lpips]}.union(*(component.weights for component in components))  # type: ignore[attr-defined]
    return {name: WEIGHTS[name].sha256 for name in sorted(names)}
