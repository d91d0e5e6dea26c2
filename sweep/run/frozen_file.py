"""A record of the sweep file at planning: which file a plan belongs to, and how the file has changed since.

It is read without importing torch, since `status` and `report` use it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from results.records.atomic import write_json
from results.records.damage import DamagedFileError, member, pass_over, read_object
from results.records.flat import flatten
from results.records.home import SWEEP_FILE_FILENAME
from sweep.file.diagnostics import shown
from sweep.file.schema import Sweep
from sweep.run.submit import JOB_VARIABLE

#: HOST:PATH of the sweep file that a job was submitted from, since the job runs a copy of it.
FILE_VARIABLE = "SPLATSWEEP_SWEEP_FILE"

#: Sections that determine the trials, and what tables compare.
_COMPARED = ("baseline", "primary")
_DECISIVE = frozenset({"base", "trials", "grid", "leave_one_out", "seeds", "search", *_COMPARED})

#: changes that are shown
_SHOWN = 4


class NameTakenError(ValueError):
    """Another sweep file has this name in this home."""


@dataclass(frozen=True)
class FrozenFile:
    """The content of a sweep file when it was planned."""

    #: HOST:PATH; None where it is unknown, as in a job submitted by Ray's own command
    file: str | None
    planned: str
    #: the decisive sections as plain values; records of earlier versions lack those of `_COMPARED`
    content: Mapping[str, Any]

    @classmethod
    def of(cls, sweep: Sweep) -> FrozenFile:
        """The record of a sweep's file now."""
        content = json.loads(json.dumps(sweep.model_dump(mode="json", include=set(_DECISIVE)), default=str))
        return cls(file_of(sweep), datetime.now(UTC).isoformat(timespec="seconds"), content)

    @classmethod
    def read(cls, folder: Path) -> FrozenFile | None:
        """Reads the record in a sweep's folder; None where there is none.  A damaged one is named and skipped."""
        path = folder / SWEEP_FILE_FILENAME
        try:
            found = read_object(path)
            file = None if found.get("file") is None else member(found, "file", str, path)
            return cls(file, member(found, "planned", str, path), member(found, "content", dict, path))
        except (FileNotFoundError, NotADirectoryError):  # of an earlier version
            return None
        except DamagedFileError as error:
            pass_over(error, "which file the plan is of, and how it changed, is not known; the next run writes it anew")
            return None

    def write(self, folder: Path) -> None:
        """Writes it into a sweep's folder."""
        write_json(folder / SWEEP_FILE_FILENAME, asdict(self))

    @property
    def place(self) -> str:
        """The path of the file, after the machine if that is another one."""
        host, _, path = (self.file or "").partition(":")
        return "a file sent by Ray" if not path else path if host == socket.gethostname() else f"{host}:{path}"

    def is_of(self, file: str | None) -> bool:
        """Whether it may be the record of a file (HOST:PATH): one path on several nodes is one shared file.

        A path may lead through links and `..`.
        """
        if self.file is None or file is None:
            return True
        own, other = (Path(each.partition(":")[2]).resolve() for each in (self.file, file))
        return own == other

    def is_gone(self) -> bool:
        """Whether the file was on this machine and no longer exists: it was moved, renamed or deleted."""
        host, _, path = (self.file or "").partition(":")
        try:
            return host == socket.gethostname() and not Path(path).exists()
        except PermissionError:  # in a private folder of another user
            return False


def file_of(sweep: Sweep) -> str | None:
    """HOST:PATH of the file that a sweep was read from; None where it has none or Ray made a copy."""
    if named := os.environ.get(FILE_VARIABLE):
        return named
    if sweep.origin is None or JOB_VARIABLE in os.environ:
        return None
    return f"{socket.gethostname()}:{sweep.origin.file.absolute()}"


def check_name(sweep: Sweep, folder: Path, take_over: bool = False) -> str | None:
    """Ensures that a sweep's folder belongs to this sweep's file, before a plan is written there.

    The file may have been edited or moved, or copied without changes.  Returns a message where the name is taken over.
    Raises `NameTakenError` where another existing file with other trials has the name, unless `take_over` is set.
    """
    now, before = FrozenFile.of(sweep), FrozenFile.read(folder)
    if before is None or before.is_of(now.file) or not any(_changes(before.content, now.content)):
        return None
    if not (take_over or before.is_gone()):
        raise NameTakenError(
            f"the name {sweep.name!r} belongs to {before.place} in this home, planned {before.planned}: running "
            f"{now.place} would replace its plan and its report.  Give this file another name (name: ...), or take "
            "the name over with --take-over"
        )
    return f"The name {sweep.name!r} was that of {before.place}; it is taken over."


def claim(sweep: Sweep, folder: Path) -> None:
    """Records the sweep's file as that of the plan in the sweep's folder; called once the plan is written.

    For a copy without changes the name still belongs to the first file.
    """
    now, before = FrozenFile.of(sweep), FrozenFile.read(folder)
    if before is None or before.is_of(now.file) or any(_changes(before.content, now.content)):
        folder.mkdir(parents=True, exist_ok=True)
        now.write(folder)


def difference(sweep: Sweep, folder: Path, renew: str) -> str | None:
    """The differences of the sweep file from the plan in the sweep's folder, in one line; None without any.

    renew: the command that updates the plan.
    """
    now, before = FrozenFile.of(sweep), FrozenFile.read(folder)
    changes = [] if before is None else list(_changes(before.content, now.content))
    if before is None or not changes:
        return None
    text = "; ".join(changes[:_SHOWN]) + (f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else "")
    is_another = not before.is_of(now.file)
    whose = f"is that of {before.place}, which has the same name" if is_another else "is older than the file"
    if is_another and not before.is_gone():  # `check_name` refuses it otherwise
        renew += " --take-over"
    return f"The plan shown here (of {before.planned}) {whose}.  In {now.place}: {text}.  To plan it anew: {renew}"


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """A short text for each difference in the decisive sections that both have."""
    trials_before, trials_now = _mapping(before, "trials"), _mapping(now, "trials")
    for name in [name for name in trials_now if name not in trials_before]:
        yield f"trial {name!r} is new"
    for name in [name for name in trials_before if name not in trials_now]:
        yield f"trial {name!r} is gone"
    for name in [name for name in trials_now if name in trials_before]:
        # A setting may be written nested or with dots.
        if flatten(_mapping(trials_now, name)) != flatten(_mapping(trials_before, name)):
            yield f"trial {name!r} has changed"
    for section in _COMPARED:
        if section in before and before[section] != now.get(section):
            yield f"{section} is {_shown(now, section)}, was {_shown(before, section)}"
    for section in sorted(_DECISIVE - {"trials", "base", *_COMPARED}):
        if before.get(section) != now.get(section):
            yield f"{section} has changed"
    old, new = flatten(_mapping(before, "base")), flatten(_mapping(now, "base"))
    for key in dict.fromkeys((*new, *old)):
        if old.get(key) != new.get(key):
            yield f"base.{key} is {_shown(new, key)}, was {_shown(old, key)}"


def _mapping(content: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    """A section of a record that may have been edited by hand."""
    found = content.get(section)
    return found if isinstance(found, dict) else {}


def _shown(values: Mapping[str, Any], key: str) -> str:
    return shown(values[key]) if key in values else "absent"
