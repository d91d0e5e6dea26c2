"""What a dataset's importer is: one class, listed in `jobs.data.DATASETS`.

An importer states its facts as class attributes, lists its objects in `items`, and turns one item into
pictures in `load`, which runs in worker processes.  Everything around that, the store, the processes, locks,
progress, is `jobs.data.prepare`'s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pydantic

from jobs.data.store import Frames

#: Decorates a class of typed fields with defaults: an importer's `Options`, frozen and strict about types.
#: Its values must be JSON's, because a store's name holds a hash of them.
importer_options = pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid", strict=True))

#: Called with (done, total, what is being done).
Progress = Callable[[int, int, str], None]


OptionsT = TypeVar("OptionsT")


class UnreadableObjectError(ValueError):
    """An object of the source that cannot become pictures; it is skipped, and listed with this reason."""


@dataclass(frozen=True)
class Item:
    """One object to import.  Small and picklable: it travels to a worker process."""

    name: str
    split: str
    category: str
    #: equal for objects of equal shape; no geometry may be in two splits
    geometry: str
    num_frames: int
    #: what `load` needs to know beyond that
    payload: Any = None


@dataclass(frozen=True)
class Importer(ABC, Generic[OptionsT]):
    """Turns a dataset's source into items, and items into frames.  Instances are pickled into workers."""

    options: OptionsT
    cache: Path  # a directory for downloads, shared by all importers

    description: ClassVar[str]
    source: ClassVar[str]
    licence: ClassVar[str]
    #: made with `importer_options`
    Options: ClassVar[type]
    #: raised when the same options come to give other pictures
    version: ClassVar[int] = 1
    #: bounds of the surface's camera z, scene units
    near: ClassVar[float]
    far: ClassVar[float]
    background: ClassVar[tuple[float, float, float]] = (1.0, 1.0, 1.0)
    evaluation: ClassVar[Mapping[str, Any]] = {"source_frame": 0}
    #: more than this share of unreadable objects stops the import
    max_skipped_share: ClassVar[float] = 0.05

    @abstractmethod
    def items(self, progress: Progress) -> Sequence[Item]:
        """All objects, in the store's order; fetches what has to be fetched."""

    @abstractmethod
    def load(self, item: Item) -> Frames:
        """The pictures of one object.  Raises `UnreadableObjectError` where the source is at fault."""
