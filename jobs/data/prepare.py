"""Finds the packed store of a dataset by its name and options, and imports it on first use.

The store of a dataset lies under `home/data/`, named after the dataset and a hash of its resolved options, so
different options never share a store, and equal options are imported once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from jobs.cores import usable_cores
from jobs.data import DATASETS
from jobs.data.importers.base import Importer, ImportFailedError, Item, Progress, UnreadableObjectError
from jobs.data.importers.files import files_under, read_bytes, read_text
from jobs.data.importers.workers import load_in_order
from jobs.data.inspect import emptiness
from jobs.data.store import FORMAT_VERSION, Frames, RecordedFile, Remark, Store, StoreError, canonical_json
from jobs.data.writer import StoreWriter, partial_path
from jobs.lock import exclusive_lock
from jobs.stop import never
from model.options import parse_options as parse
from model.registry import resolve
from results.invocation import home_command
from results.records.home import cache_folder, data_folder

#: Number of unreadable objects that an error lists; a file beside the store has all of them.
_REASONS_LISTED = 50
UNREADABLE = "unreadable.txt"
#: Sentinel that equals no value of an option.
_NEVER = object()


class MissingDatasetError(ValueError):
    """The dataset must first be imported from a folder of the user; the message says how."""


def parse_options(name: str, options: Mapping[str, Any]) -> Any:
    """The importer's frozen `Options` with every value resolved.

    Raises `UnknownChoiceError` for an unknown dataset, `OptionsError` with all problems of the options.
    """
    return parse(_importer_class(name).Options, options, choice=name, where="data.options")


def needs_source(name: str) -> bool:
    """Whether the dataset is imported from a folder of the user."""
    return _importer_class(name).needs_source is not None


def store_path(name: str, options: Mapping[str, Any], home: Path) -> Path:
    """Path of the store of these options, which need not exist."""
    cls = _importer_class(name)
    parsed = parse_options(name, options)
    identity = {"versions": [FORMAT_VERSION, cls.revision(parsed)], "options": _distinguishing(cls, parsed)}
    return data_folder(home) / f"{name}-{hashlib.sha256(canonical_json(identity)).hexdigest()[:8]}"


def find_prepared(name: str, options: Mapping[str, Any], home: Path) -> Store:
    """The dataset's store.  Raises `MissingDatasetError`, listing the prepared options, where it is missing."""
    path = store_path(name, options, home)
    if path.exists():
        return Store.open(path)
    others = [home_command(home, "data", "check", name, *_settings(given)) for given in prepared_options(name, home)]
    wanted = f"dataset {name!r} is not prepared with {'these' if options else 'its default'} options under {home}"
    if not others:
        raise MissingDatasetError(f"{wanted}; run: {prepare_command(name, options, home)}")
    raise MissingDatasetError(
        f"{wanted}; it is prepared with other options, see: " + "".join(f"\n  {other}" for other in others)
    )


def prepared_options(name: str, home: Path) -> list[dict[str, Any]]:
    """For each store of the dataset under `home`, the options that differ from the defaults."""
    defaults, found = _resolved(name, {}), []
    for folder in _stores(name, home):
        try:
            options = Store.open(folder).manifest.options
        except StoreError:  # damaged, so not listed
            continue
        given = {key: value for key, value in options.items() if key in defaults}
        if store_path(name, given, home) == folder:  # not of an earlier version, nor renamed
            found.append({key: value for key, value in given.items() if value != defaults[key]})
    return found


def _stores(name: str, home: Path) -> list[Path]:
    """All stores of the dataset under `home`, whatever their options."""
    return [file.parent for file in sorted(data_folder(home).glob(f"{name}-*/manifest.json"))]


def prepare_command(name: str, options: Mapping[str, Any], home: Path, source: Path | str = "DIR") -> str:
    """The command that prepares a dataset; `source` is the user's folder, where the dataset needs one."""
    imported = ("--source", str(source)) if needs_source(name) else ()
    return home_command(home, "data", "prepare", name, *_settings(options), *imported)


def _settings(options: Mapping[str, Any]) -> list[str]:
    """Options as the command line takes them."""
    return [word for setting in _assigned(options) for word in ("--set", setting)]


def _assigned(options: Mapping[str, Any]) -> list[str]:
    """OPTION=VALUE for each option."""
    return [f"{key}={_as_yaml(value)}" for key, value in options.items()]


def _as_yaml(value: Any) -> str:
    """The text of a value, which YAML reads back as the same value."""
    if isinstance(value, str):
        with suppress(YAMLError):
            if YAML(typ="safe", pure=True).load(value) == value:
                return value
    return json.dumps(value)


def prepare(
    name: str,
    options: Mapping[str, Any],
    home: Path,
    progress: Progress | None = None,
    workers: int | None = None,
    *,
    source: Path | None = None,
    files: Mapping[str, Sequence[Path]] | None = None,
    max_unreadable: float | None = None,
) -> Path:
    """Import a dataset unless its store is there already; returns the store's path.

    `workers` processes read objects (default: one per usable core; with 1, this process does); their number
    does not change a byte of the store.  Processes that prepare the same store concurrently wait for the first.
    An import that was killed, or found too many unreadable objects, is resumed.
    `source` is the folder of a dataset that needs one, `files` the additional files by role.  Neither affects
    the store's path; both are recorded in the store, and a store made from another folder or with other files is
    rejected.
    max_unreadable: share of the objects, from 0 to 1, that may be unreadable and are then left out; above 0 it allows
    at least one object.  None is the importer's own share, usually 0.05, which allows none of a few objects.
    Raises ValueError for bad options or paths, `MissingDatasetError` without a `source` that is needed,
    `ImportFailedError`, listing the unreadable objects, where they are too many.
    """
    if max_unreadable is not None and not 0 <= max_unreadable <= 1:
        raise ValueError(f"max_unreadable {max_unreadable}; allowed: 0 to 1, a share of the objects")
    path = store_path(name, options, home)
    cls = _importer_class(name)
    recorded = _recorded(cls, name, files or {})
    if path.exists():
        _check_same_input(path, recorded, source)
        return path
    importer = cls(
        parse_options(name, options), cache_folder(home), _source(cls, name, options, home, source), dict(files or {})
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    report = progress or _silent
    with exclusive_lock(
        path.with_name(f".{path.name}.lock"),
        f"the import of {path.name}",
        never,
        lambda: report(0, 1, "another process prepares it; this one waits"),
    ):
        if not path.exists():
            _import(importer, name, home, path, recorded, report, workers or usable_cores(), max_unreadable)
    _check_same_input(path, recorded, source)  # another process may have made it meanwhile
    return path


def open_dataset(name: str, options: Mapping[str, Any], home: Path, progress: Progress | None = None) -> Store:
    """The dataset's store, prepared first where it is missing."""
    return Store.open(prepare(name, options, home, progress))


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """Facts on one dataset that `splatsweep data list` shows."""

    name: str
    description: str
    licence: str
    #: every option with its default
    options: dict[str, Any]
    #: the meaning of each option
    meanings: dict[str, str]
    #: what the user's folder must hold; None where none is needed
    needs_source: str | None
    #: files that the user may name, with their meanings
    file_roles: dict[str, str]
    #: stores of this dataset under the home, whatever their options
    prepared: list[Path]


def describe(home: Path) -> list[DatasetFacts]:
    """Facts on all datasets."""
    return [
        DatasetFacts(
            name=name,
            description=cls.description,
            licence=cls.licence,
            options=_resolved(name, {}),
            meanings=_meanings(cls.Options),
            needs_source=cls.needs_source,
            file_roles=dict(cls.file_roles),
            prepared=_stores(name, home),
        )
        for name, cls in ((name, _importer_class(name)) for name in DATASETS)
    ]


def _meanings(options: Any) -> dict[str, str]:
    """The meaning of each option of a class."""
    return {name: _meaning(field) for name, field in options.__pydantic_fields__.items()}


def _meaning(option: FieldInfo) -> str:
    """The description of an option, with its values where they are names."""
    if get_origin(option.annotation) is not Literal:
        return str(option.description)
    return f"{option.description} ({', '.join(get_args(option.annotation))})"


def _importer_class(name: str) -> type[Importer]:
    cls: type[Importer] = resolve(DATASETS, name, "dataset")
    return cls


def _resolved(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options as plain JSON values."""
    return dataclasses.asdict(parse_options(name, options))


def _distinguishing(cls: type[Importer], parsed: Any) -> dict[str, Any]:
    """Resolved options as plain JSON values, without those added later that are at the former behaviour."""
    resolved = dataclasses.asdict(parsed)
    return {key: value for key, value in resolved.items() if value != cls.later_options.get(key, _NEVER)}


def _source(cls: type[Importer], name: str, options: Mapping[str, Any], home: Path, source: Path | None) -> Path | None:
    """The user's folder as an absolute path; None where the dataset needs none."""
    if cls.needs_source is None:
        if source is not None:
            raise ValueError(f"dataset {name!r} makes or fetches its own data and reads no folder, got {str(source)!r}")
        return None
    if source is None:
        others = " or ".join(" ".join(_assigned(given)) or "its defaults" for given in prepared_options(name, home))
        wanted = "these options" + (f" but with {others}" if others else "")
        raise MissingDatasetError(
            f"dataset {name!r} is not prepared with {wanted}, and is imported from a folder that has "
            f"{cls.needs_source}; run: {prepare_command(name, options, home)}"
        )
    if not source.is_dir():
        raise ValueError(f"source {str(source)!r} is not a folder; {name} needs {cls.needs_source}")
    return source.absolute()


def _recorded(cls: type[Importer], name: str, files: Mapping[str, Sequence[Path]]) -> dict[str, list[RecordedFile]]:
    """Records of the user's files for the manifest."""
    for role, paths in files.items():
        if role in cls.single_files and len(paths) > 1:
            raise ValueError(f"dataset {name!r} reads one file {role!r}; got {', '.join(map(str, paths))}")
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


def _check_same_input(path: Path, recorded: Mapping[str, Sequence[RecordedFile]], source: Path | None) -> None:
    """Reject a store that was made from another folder or with other files than those given; what is not given fits."""
    manifest = Store.open(path).manifest
    if source is not None and manifest.folder not in (None, str(source.resolve())):  # None: of an earlier version
        raise ValueError(
            f"{path} was made from {manifest.folder}, not from {source.resolve()}; if that is the same data at another "
            "place, leave out --source; otherwise use another --home, or delete that store to prepare it again"
        )
    for role, files in recorded.items():
        if [file.sha256 for file in files] != [file.sha256 for file in manifest.files.get(role, [])]:
            names = ", ".join(file.name for file in manifest.files.get(role, [])) or "none"
            raise ValueError(
                f"{path} was made with other {role!r} files ({names}) than those given; delete it to prepare it again"
            )


def _import(
    importer: Importer,
    name: str,
    home: Path,
    path: Path,
    files: dict[str, list[RecordedFile]],
    progress: Progress,
    workers: int,
    max_unreadable: float | None,
) -> None:
    items = _items(importer, home, progress)
    stamps = {item.name: _stamp(importer, item) for item in items}
    capacity = sum(item.num_frames for item in items)
    with StoreWriter(path, capacity, _import_identity(importer, files)) as writer:
        writer.keep(stamps)
        done = writer.names()
        waiting = [item for item in items if item.name not in done]
        with closing(load_in_order(importer, waiting, workers)) as loaded:
            for item, result in loaded:
                _write(writer, item, result, stamps[item.name], importer.background)
                progress(writer.done, len(items), item.name)
        _check_skipped(importer, writer, len(items), max_unreadable)
        near, far = importer.depth_bounds()
        writer.finish(
            [item.name for item in items],
            _recipe(importer, name, items) if importer.renders else None,
            importer=name,
            options=dataclasses.asdict(importer.options),
            source=importer.source,
            folder=None if importer.source_path is None else str(importer.source_path.resolve()),
            licence=importer.licence,
            near=near,
            far=far,
            bounds_from_origin=importer.bounds_from_origin,
            source_distance=importer.scaled_to(),
            background=importer.background,
            evaluation=_evaluation(importer, items),
            files=files,
            remarks=[Remark(object=item.name, text=item.remark) for item in items if item.remark],
        )


def _write(
    writer: StoreWriter, item: Item, result: Frames | str, stamp: str, background: tuple[float, float, float]
) -> None:
    if isinstance(result, str):
        writer.skip(item.name, result, stamp)
        return
    try:
        writer.append(
            result,
            name=item.name,
            split=item.split,
            category=item.category,
            geometry=item.geometry,
            stamp=stamp,
            remark=emptiness(result, background),
        )
    except ValueError as error:  # it does not match the previous objects, most of which are assumed correct
        writer.skip(item.name, str(error), stamp)


def _stamp(importer: Importer, item: Item) -> str:
    """A stamp that changes when an object or its files change."""
    listed = [item.name, item.split, item.category, item.geometry, item.num_frames, repr(item.payload)]
    listed.append(item.source_sha256)
    for source in importer.sources(item):
        inside = sorted(files_under(source, "*")) if source.is_dir() else [source]
        listed += [(str(path), found.st_size, found.st_mtime_ns) for path in inside if (found := _stat(path))]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # missing, or a broken link, which `load` reports
        return None


def _items(importer: Importer, home: Path, progress: Progress) -> Sequence[Item]:
    """The objects to import.  Raises ValueError, with what is needed, for another folder than the importer's."""
    folder = importer.source_path
    needed = f"; needed: {importer.needs_source}" if importer.needs_source else ""
    try:
        items = importer.items(progress)
    except UnreadableObjectError as error:
        if folder is None or importer.recognises(folder):
            raise
        raise ValueError(f"{error}{needed}{_looks_like(importer, home)}") from error
    if not items:
        raise ValueError(f"{folder or importer.source} holds no object{needed}{_looks_like(importer, home)}")
    _check_names(importer, items)
    return items


def _check_names(importer: Importer, items: Sequence[Item]) -> None:
    names = Counter(item.name for item in items)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"{importer.source_path}: {len(twice)} objects are listed more than once, first {twice[0]!r}")
    for text in (str(importer.source_path), *names):
        if re.search("[\ud800-\udfff]", text):  # Python's substitutes of bytes that are no characters
            raise ValueError(f"the name {text!r} is not in UTF-8, which a store needs; rename it")


def _import_identity(importer: Importer, files: Mapping[str, Sequence[RecordedFile]]) -> str:
    """Identity of an import; imports of equal identity can share objects already read."""
    hashes = {role: [file.sha256 for file in recorded] for role, recorded in files.items()}
    versions = [FORMAT_VERSION, importer.revision(importer.options)]
    canonical = json.dumps([*versions, str(importer.source_path), hashes])
    return hashlib.sha256(canonical.encode()).hexdigest()


def _looks_like(importer: Importer, home: Path) -> str:
    """Other datasets that recognise the user's folder, as the end of a sentence."""
    folder = importer.source_path
    if folder is None:
        return ""
    others = [
        name for name in DATASETS if (cls := _importer_class(name)) is not type(importer) and cls.recognises(folder)
    ]
    commands = "".join(f"\n  {prepare_command(name, {}, home, folder)}" for name in others)
    return f"; it looks like {' or '.join(others)}, which is imported with:{commands}" if others else ""


def _recipe(importer: Importer, name: str, items: Sequence[Item]) -> dict[str, Any]:
    """The inputs that determine the pictures of an importer that renders."""
    return {
        "importer": name,
        "revision": importer.revision(importer.options),
        "options": _distinguishing(type(importer), importer.options),
        "sources": {item.name: item.source_sha256 for item in items},
    }


def _evaluation(importer: Importer, items: Sequence[Item]) -> dict[str, Any]:
    """The importer's evaluation protocol, with the objects that have their own source frame."""
    own = {item.name: item.source_frame for item in items if item.source_frame is not None}
    return dict(importer.evaluation) | ({"objects": own} if own else {})


def _check_skipped(importer: Importer, writer: StoreWriter, total: int, max_unreadable: float | None) -> None:
    """Raises `ImportFailedError` where too many objects are unreadable; those read are kept for the next import."""
    skipped = writer.skipped
    share = importer.max_skipped_share if max_unreadable is None else max_unreadable
    floor = 1 if max_unreadable else 0
    file = partial_path(writer.path) / UNREADABLE
    if len(skipped) <= min(max(floor, share * total), total - 1):
        file.unlink(missing_ok=True)  # that of an earlier attempt
        return
    lines = [f"{entry.object}: {entry.reason}" for entry in skipped]
    file.write_text("\n".join(lines) + "\n", "utf-8")
    reasons = "".join(f"\n  {line}" for line in lines[:_REASONS_LISTED])
    more = f"; the first {_REASONS_LISTED}, and all in {file}" if len(lines) > _REASONS_LISTED else ""
    writer.drop_skipped()
    tolerate = f", or tolerate them with --max-unreadable {math.ceil(100 * len(skipped) / total)}%"
    raise ImportFailedError(
        f"{len(skipped)} of {total} objects could not be read, more than the {share:.0%} that are tolerated. "
        f"What could be read is kept: mend or remove these and import again{tolerate if total > len(skipped) else ''}"
        f"{more}:{reasons}"
    )


def _silent(done: int, total: int, what: str) -> None:
    """A progress callback that does nothing."""
