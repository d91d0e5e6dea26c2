"""Objaverse as rendered for Zero-1-to-3: 12 views an object, a JSON list of the objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jobs.data.importers.base import Item, Progress
from jobs.data.importers.files import inside, read_json
from jobs.data.importers.zero123 import Renders, pictures

LISTING = "lvis-annotations-filtered.json"
OBJECTS = "objects"


@dataclass(frozen=True)
class Objaverse(Renders):
    """`<uid>/{000..011}.{png,npy}`; the first 99 of 100 objects of the list train, the others validate."""

    description = "Objaverse (LVIS subset) as rendered for Zero-1-to-3, 12 views each"
    source = "https://github.com/cvlab-columbia/zero123"
    licence = "ODC-By 1.0 for the collection; every object has its own"
    needs_source = f"a folder for each uid with its .png and .npy files, and {LISTING}"
    file_roles: ClassVar = {OBJECTS: f"a JSON list of uids to use instead of {LISTING}"}
    single_files = frozenset({OBJECTS})

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return (folder / LISTING).is_file()

    def items(self, progress: Progress) -> Sequence[Item]:
        uids = self._uids()
        trained = 99 * len(uids) // 100
        folders = {uid: inside(self.root, uid, self._listing) for uid in uids}
        return [
            Item(
                name=uid,
                split="train" if number < trained else "val",
                category="object",
                geometry=uid,
                num_frames=len(pictures(folders[uid])),
                payload=folders[uid],
            )
            for number, uid in enumerate(uids)
        ]

    @property
    def _listing(self) -> Path:
        return self.files[OBJECTS][0] if OBJECTS in self.files else self.root / LISTING

    def _uids(self) -> list[str]:
        uids = read_json(self._listing)
        if not isinstance(uids, list) or not all(isinstance(uid, str) for uid in uids):
            raise ValueError(f"{self._listing}: not a JSON list of uids")
        return uids
