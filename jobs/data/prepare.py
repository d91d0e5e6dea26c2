"""From a dataset's name and options to its packed store, imported on first use.

The store of a dataset lies under `home/data/`, named after the dataset and a hash of its resolved options, so
different options never share a store and equal ones never import twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock

from jobs.data import DATASETS
from jobs.data.importers.base import Importer, ImportFailedError, Item, Progress
from jobs.data.importers.files import read_bytes, read_text
from jobs.data.importers.workers import load_in_order, usable_cores
from jobs.data.store import FORMAT_VERSION, Frames, RecordedFile, Remark, Store
from jobs.data.writer import StoreWriter
from model.options import parse_options as parse
from model.registry import resolve
from results.records.home import cache_folder, data_folder

_REASONS_TOLD = 20


class MissingDatasetError(ValueError):
    """A dataset that has to be imported from a folder of the user's first; the message says how."""


def parse_options(name: str, options: Mapping[str, Any]) -> Any:
    """The importer's frozen `Options` with every value resolved.

    Raises `UnknownChoiceError` for an unknown dataset, `OptionsError` with all that is wrong with options.
    """
    return parse(_importer_class(name).Options, options, choice=name, where="data.options")


def needs_source(name: str) -> bool:
    """Whether the dataset is imported from a folder that the user has."""
    return _importer_class(name).needs_source is not None


def store_path(name: str, options: Mapping[str, Any], home: Path) -> Path:
    """Where the store of these options is, or would be."""
    versions = [FORMAT_VERSION, _importer_class(name).version]
    identity = {"versions": versions, "options": _resolved(name, options)}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return data_folder(home) / f"{name}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"


def find_store(name: str, options: Mapping[str, Any], home: Path) -> Store | None:
    """The dataset's store where it is prepared; nothing is imported."""
    path = store_path(name, options, home)
    return Store.open(path) if path.exists() else None


def prepare(
    name: str,
    options: Mapping[str, Any],
    home: Path,
    progress: Progress | None = None,
    workers: int | None = None,
    *,
    source: Path | None = None,
    files: Mapping[str, Sequence[Path]] | None = None,
) -> Path:
    """Import a dataset unless its store is there already; returns the store's path.

    `workers` processes read objects (default: one per usable core; 1 stays in this process); their number
    does not change a byte of the store.  Processes that ask for the same store at once wait for the first.
    An import that was killed goes on where it was.
    `source` is the folder of a dataset that needs one, `files` what else the user names, by role.  Neither decides
    where the store is; files are recorded in it, and a store that was made with others is refused.
    Raises ValueError for bad options or paths, `MissingDatasetError` without a `source` that is needed,
    `ImportFailedError` where too many objects cannot be read.
    """
    path = store_path(name, options, home)
    cls = _importer_class(name)
    recorded = _recorded(cls, name, files or {})
    if path.exists():
        _check_same_files(path, recorded)
        return path
    importer = cls(
        parse_options(name, options), cache_folder(home), _source(cls, name, options, source), dict(files or {})
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            _import(importer, name, path, recorded, progress or _silent, workers or usable_cores())
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
    #: what the user's folder must hold; None where none is needed
    needs_source: str | None
    #: files that the user may name, and what they say
    file_roles: dict[str, str]
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
                needs_source=cls.needs_source,
                file_roles=dict(cls.file_roles),
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


def _source(cls: type[Importer], name: str, options: Mapping[str, Any], source: Path | None) -> Path | None:
    """The user's folder, made absolute, where the dataset wants one."""
    if cls.needs_source is None:
        if source is not None:
            raise ValueError(f"dataset {name!r} makes or fetches its own data and reads no folder, got {str(source)!r}")
        return None
    if source is None:
        settings = "".join(f" --set {option}={value}" for option, value in options.items())
        raise MissingDatasetError(
            f"dataset {name!r} is not prepared with these options, and is imported from a folder that has "
            f"{cls.needs_source}; run: splatsweep data prepare {name}{settings} --source DIR"
        )
    if not source.is_dir():
        raise ValueError(f"source {str(source)!r} is not a folder; {name} needs {cls.needs_source}")
    return source.absolute()


def _recorded(cls: type[Importer], name: str, files: Mapping[str, Sequence[Path]]) -> dict[str, list[RecordedFile]]:
    """What the manifest keeps of the user's files."""
    for role in files:
        if role not in cls.file_roles:
            allowed = ", ".join(sorted(cls.file_roles)) or "none"
            raise ValueError(f"dataset {name!r} reads no file {role!r}; allowed: {allowed}")
    return {
        role: [
            RecordedFile(name=path.name, sha256=hashlib.sha256(read_bytes(path)).hexdigest(), content=read_text(path))
            for path in paths
        ]
        for role, paths in sorted(files.items())
    }


def _check_same_files(path: Path, recorded: Mapping[str, Sequence[RecordedFile]]) -> None:
    """Refuse a store that was made with other files than those that are given now; giving none accepts it."""
    made_with = Store.open(path).manifest.files
    for role, files in recorded.items():
        if [file.sha256 for file in files] != [file.sha256 for file in made_with.get(role, [])]:
            names = ", ".join(file.name for file in made_with.get(role, [])) or "none"
            raise ValueError(
                f"{path} was made with other {role!r} files ({names}) than those given; delete it to prepare it again"
            )


def _import(
    importer: Importer,
    name: str,
    path: Path,
    files: dict[str, list[RecordedFile]],
    progress: Progress,
    workers: int,
) -> None:
    items = importer.items(progress)
    _check_items(importer, items)
    capacity = sum(item.num_frames for item in items)
    with StoreWriter(path, capacity, _import_identity(importer, items, files)) as writer:
        with closing(load_in_order(importer, items[writer.done :], workers)) as loaded:
            for item, result in loaded:
                _write(writer, item, result)
                _check_skipped(importer, writer, len(items))
                progress(writer.done, len(items), item.name)
        near, far = importer.depth_bounds()
        writer.finish(
            importer=name,
            options=dataclasses.asdict(importer.options),
            source=importer.source,
            licence=importer.licence,
            near=near,
            far=far,
            bounds_from_origin=importer.bounds_from_origin,
            source_distance=importer.source_distance,
            background=importer.background,
            evaluation=_evaluation(importer, items),
            files=files,
            remarks=[Remark(object=item.name, text=item.remark) for item in items if item.remark],
        )


def _write(writer: StoreWriter, item: Item, result: Frames | str) -> None:
    if isinstance(result, str):
        writer.skip(item.name, result)
        return
    try:
        writer.append(result, name=item.name, split=item.split, category=item.category, geometry=item.geometry)
    except ValueError as error:  # it does not fit the objects before it, of which most are right
        writer.skip(item.name, str(error))


def _check_items(importer: Importer, items: Sequence[Item]) -> None:
    if not items:
        where = importer.source_path or importer.source
        raise ValueError(
            f"{where} holds no object" + (f"; needed: {importer.needs_source}" if importer.needs_source else "")
        )
    names = Counter(item.name for item in items)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"{importer.source_path}: {len(twice)} objects are listed more than once, first {twice[0]!r}")


def _import_identity(importer: Importer, items: Sequence[Item], files: Mapping[str, Sequence[RecordedFile]]) -> str:
    """Equal for imports of which one may go on where the other stopped."""
    listed = [(item.name, item.split, item.category, item.geometry, item.num_frames) for item in items]
    hashes = {role: [file.sha256 for file in recorded] for role, recorded in files.items()}
    canonical = json.dumps([FORMAT_VERSION, importer.version, str(importer.source_path), hashes, listed])
    return hashlib.sha256(canonical.encode()).hexdigest()


def _evaluation(importer: Importer, items: Sequence[Item]) -> dict[str, Any]:
    """The importer's protocol, with the objects that have a source frame of their own."""
    own = {item.name: item.source_frame for item in items if item.source_frame is not None}
    return dict(importer.evaluation) | ({"objects": own} if own else {})


def _check_skipped(importer: Importer, writer: StoreWriter, total: int) -> None:
    skipped = writer.skipped
    if len(skipped) > importer.max_skipped_share * total:
        reasons = "".join(f"\n  {entry.object}: {entry.reason}" for entry in skipped[:_REASONS_TOLD])
        more = f"\n  and {len(skipped) - _REASONS_TOLD} more" if len(skipped) > _REASONS_TOLD else ""
        tried = writer.done
        writer.discard()  # the next import shall try these objects again
        raise ImportFailedError(
            f"{len(skipped)} of {total} objects could not be read ({tried} tried), more than the "
            f"{importer.max_skipped_share:.0%} that are tolerated:{reasons}{more}"
        )


def _silent(done: int, total: int, what: str) -> None:
    """Progress that nobody watches."""
