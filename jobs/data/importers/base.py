"""Base class of dataset importers; each is one class, listed in `jobs.data.DATASETS`.

An importer declares its facts as class attributes, lists its objects in `items`, and turns one item into
pictures in `load`, which runs in worker processes.  `jobs.data.prepare` does the rest: the store, the
processes, locks and progress.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from jobs.data.store import Frames

#: Called with (done, total, description of the current task).
Progress = Callable[[int, int, str], None]


OptionsT = TypeVar("OptionsT")


class ImportFailedError(ValueError):
    """An import failed: too many objects are unreadable, or one crashes the process that reads it."""


class UnreadableObjectError(ValueError):
    """An object of the source cannot be read; it is skipped, and listed with this reason."""


@dataclass(frozen=True)
class Item:
    """One object to import.  Small and picklable, as it is sent to a worker process."""

    name: str
    split: str
    category: str
    #: equal for objects of equal shape; no geometry may be in two splits
    geometry: str
    #: upper bound of the frames that `load` returns
    num_frames: int
    #: further arguments for `load`
    payload: Any = None
    #: the source frame of its evaluation, if it differs from the dataset's
    source_frame: int | None = None
    #: remark on it, for the manifest
    remark: str | None = None
    #: sha256 of its source, where the importer renders one
    source_sha256: str = ""


@dataclass(frozen=True)
class Importer(ABC, Generic[OptionsT]):
    """Turns a dataset's source into items, and items into frames.  Instances are pickled into workers."""

    options: OptionsT
    cache: Path  # a directory for downloads, shared by all importers
    source_path: Path | None = None  # the user's folder, where `needs_source`
    files: Mapping[str, Sequence[Path]] = field(default_factory=dict)  # the user's, by the names in `file_roles`

    description: ClassVar[str]
    source: ClassVar[str]
    licence: ClassVar[str]
    #: made with `model.options.options`
    Options: ClassVar[type]
    #: what the user's folder must hold, in words; None where the importer makes or fetches its data
    needs_source: ClassVar[str | None] = None
    #: files that the user may name besides the source, with their meanings
    file_roles: ClassVar[Mapping[str, str]] = {}
    #: those of them for which there is one file at most
    single_files: ClassVar[frozenset[str]] = frozenset()
    #: options added later, at the values of the former behaviour, by which earlier stores are found
    later_options: ClassVar[Mapping[str, Any]] = {}
    #: bounds of the surface's camera z, scene units
    near: ClassVar[float]
    far: ClassVar[float]
    #: whether the bounds are counted from the camera z of the dataset's origin
    bounds_from_origin: ClassVar[bool] = False
    #: scene units; if given, objects are scaled so that their source view's camera has this distance from the origin
    source_distance: ClassVar[float | None] = None
    background: ClassVar[tuple[float, float, float]] = (1.0, 1.0, 1.0)
    #: see `jobs.data.sampling.evaluation_frames`
    evaluation: ClassVar[Mapping[str, Any]] = {"source_frame": 0}
    #: whether the pictures are rendered here; the fingerprint then covers what they are made from, not their bytes
    renders: ClassVar[bool] = False
    #: more than this share of unreadable objects ends the import without a store, unless the user tolerates more
    max_skipped_share: ClassVar[float] = 0.05

    @classmethod
    def revision(cls, options: OptionsT) -> int:
        """Version number, increased when these options yield other images than before."""
        return 1

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether a folder looks like this dataset's source, at first sight."""
        return False

    @abstractmethod
    def items(self, progress: Progress) -> Sequence[Item]:
        """All objects, in the store's order; downloads what is needed.

        Raises ValueError, naming the file, where the list of objects cannot be read.
        """

    @abstractmethod
    def load(self, item: Item) -> Frames:
        """The pictures of one object.  Raises `UnreadableObjectError` where the source is at fault."""

    def sources(self, item: Item) -> Sequence[Path]:
        """Files and folders of an object; if they change, it has to be read again."""
        return [item.payload] if isinstance(item.payload, Path) else []

    def depth_bounds(self) -> tuple[float, float]:
        """Near and far bounds; importers may override it if they depend on options."""
        return self.near, self.far

    def scaled_to(self) -> float | None:
        """`source_distance`; importers may override it if it depends on options."""
        return self.source_distance

    @property
    def root(self) -> Path:
        """The user's folder."""
        if self.source_path is None:
            raise ValueError(f"{type(self).__name__} reads a folder: {self.needs_source}; none was given")
        return self.source_path
