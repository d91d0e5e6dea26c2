"""From a dataset's name and options to its packed store, imported on first use.

The store of a dataset lies under `home/data/`, named after the dataset and a hash of its resolved options, so
different options never share a store and equal ones never import twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from loky import ProcessPoolExecutor
from loky.backend import get_context
from pydantic import ValidationError

from jobs.data import DATASETS
from jobs.data.importer import Importer, Item, Progress, UnreadableObjectError
from jobs.data.store import FORMAT_VERSION, Frames, Skipped, Store, StoreWriter
from model.registry import nearest, resolve


class OptionsError(ValueError):
    """Options that a dataset does not have, or values of the wrong type.

    `problems` lists (option, what is wrong), one for each.
    """

    def __init__(self, dataset: str, problems: Sequence[tuple[str, str]]) -> None:
        self.dataset, self.problems = dataset, list(problems)
        super().__init__("; ".join(f"data.options.{option}: {problem}" for option, problem in problems))


class ImportFailedError(ValueError):
    """More objects of a source were unreadable than its importer tolerates."""


def parse_options(name: str, options: Mapping[str, Any]) -> Any:
    """The importer's frozen `Options` with every value resolved.

    Raises `UnknownChoiceError` for an unknown dataset, `OptionsError` with all that is wrong with options.
    """
    cls = _importer_class(name).Options
    try:
        return cls(**options)
    except ValidationError as error:
        allowed = sorted(field.name for field in dataclasses.fields(cls))
        raise OptionsError(name, [_problem(name, dict(detail), allowed) for detail in error.errors()]) from error


def store_path(name: str, options: Mapping[str, Any], home: Path) -> Path:
    """Where the store of these options is, or would be."""
    versions = [FORMAT_VERSION, _importer_class(name).version]
    identity = {"versions": versions, "options": _resolved(name, options)}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return home / "data" / f"{name}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"


def prepare(
    name: str,
    options: Mapping[str, Any],
    home: Path,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Path:
    """Import a dataset unless its store is there already; returns the store's path.

    `workers` processes read objects (default: one per usable core; 1 stays in this process); their number
    does not change a byte of the store.  Processes that ask for the same store at once wait for the first.
    Raises ValueError for bad options, `ImportFailedError` where too many objects cannot be read.
    """
    path = store_path(name, options, home)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            _remove_leftovers(path)
            importer = _importer_class(name)(parse_options(name, options), home / "cache")
            _import(importer, name, path, progress or _silent, workers or _usable_cores())
    return path


def open_dataset(name: str, options: Mapping[str, Any], home: Path, progress: Progress | None = None) -> Store:
    """The dataset's store, prepared first where it is missing."""
    return Store.open(prepare(name, options, home, progress))


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """What `splatsweep data list` shows of one dataset."""

    name: str
    description: str
    source: str
    licence: str
    #: every option with its default
    options: dict[str, Any]
    #: stores of this dataset under the home, whatever their options
    prepared: list[Path]


def describe(home: Path | None = None) -> list[DatasetFacts]:
    """Every dataset that there is."""
    facts = []
    for name in DATASETS:
        cls = _importer_class(name)
        stores = sorted(home.glob(f"data/{name}-*/manifest.json")) if home else []
        facts.append(
            DatasetFacts(
                name=name,
                description=cls.description,
                source=cls.source,
                licence=cls.licence,
                options=_resolved(name, {}),
                prepared=[file.parent for file in stores],
            )
        )
    return facts


def _importer_class(name: str) -> type[Importer]:
    cls: type[Importer] = resolve(DATASETS, name, "dataset")
    return cls


def _resolved(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options as plain JSON values."""
    return dataclasses.asdict(parse_options(name, options))


def _problem(name: str, detail: Mapping[str, Any], allowed: list[str]) -> tuple[str, str]:
    option = ".".join(str(part) for part in detail["loc"])
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        hint = nearest(option, allowed)
        problem = f"{name} has no such option; allowed: {', '.join(allowed)}"
        return option, problem + (f"; did you mean {hint!r}?" if hint else "")
    return option, f"{detail['msg']}, got {detail['input']!r}"


def _import(importer: Importer, name: str, path: Path, progress: Progress, workers: int) -> None:
    items = importer.items(progress)
    skipped: list[Skipped] = []
    with StoreWriter(path, capacity=sum(item.num_frames for item in items)) as writer:
        with _map(workers) as mapped:
            for done, (item, result) in enumerate(mapped(importer, items), start=1):
                if isinstance(result, Frames):
                    writer.append(
                        result,
                        name=item.name,
                        split=item.split,
                        category=item.category,
                        geometry=item.geometry,
                    )
                else:
                    skipped.append(Skipped(object=item.name, reason=result))
                progress(done, len(items), item.name)
        _check_skipped(importer, skipped, len(items))
        writer.finish(
            importer=name,
            options=dataclasses.asdict(importer.options),
            source=importer.source,
            licence=importer.licence,
            near=importer.near,
            far=importer.far,
            background=importer.background,
            evaluation=dict(importer.evaluation),
            skipped=skipped,
        )


def _remove_leftovers(path: Path) -> None:
    """Delete what imports that were killed left behind; whoever holds the lock is the only writer."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)


def _check_skipped(importer: Importer, skipped: Sequence[Skipped], total: int) -> None:
    if len(skipped) > importer.max_skipped_share * total:
        reasons = "".join(f"\n  {entry.object}: {entry.reason}" for entry in skipped)
        raise ImportFailedError(
            f"{len(skipped)} of {total} objects could not be read, more than the "
            f"{importer.max_skipped_share:.0%} that are tolerated:{reasons}"
        )


Mapped = Callable[[Importer, Sequence[Item]], Iterator[tuple[Item, Frames | str]]]


@contextmanager
def _map(workers: int) -> Iterator[Mapped]:
    """A function that loads items in order, in `workers` processes."""
    if workers == 1:
        yield lambda importer, items: ((item, _load(importer, item)) for item in items)
        return
    # loky's processes start clean, where forking one that has run torch or Ray threads may deadlock, and do not
    # import the main module again, so that scripts need no `if __name__ == "__main__":`.
    with ProcessPoolExecutor(workers, context=get_context("loky")) as pool:
        try:
            yield lambda importer, items: zip(items, pool.map(_load, [importer] * len(items), items), strict=True)
        except BaseException:
            pool.shutdown(kill_workers=True)
            raise


def _load(importer: Importer, item: Item) -> Frames | str:
    """An object's pictures, or why there are none."""
    try:
        return importer.load(item)
    except UnreadableObjectError as error:
        return str(error)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _silent(done: int, total: int, what: str) -> None:
    """Progress that nobody watches."""
