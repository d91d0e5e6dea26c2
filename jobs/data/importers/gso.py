"""Google Scanned Objects as rendered for Free3D: 25 views an object, for evaluation only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.data.importers.base import Item, Progress
from jobs.data.importers.zero123 import Renders, pictures

VIEWS = "render_mvs_25/model"


@dataclass(frozen=True)
class Gso(Renders):
    """`<object>/render_mvs_25/model/{000..024}.{png,npy}`."""

    description = "Google Scanned Objects as rendered for Free3D, 25 views each; a test split only"
    source = "https://github.com/lyndonzheng/Free3D"
    licence = "CC BY 4.0"
    needs_source = f"a folder for each object that has {VIEWS} with its .png and .npy files"

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any(folder.glob(f"*/{VIEWS}"))

    def items(self, progress: Progress) -> Sequence[Item]:
        return [
            Item(
                name=folder.name,
                split="test",
                category="object",
                geometry=folder.name,
                num_frames=len(pictures(folder / VIEWS)),
                payload=folder / VIEWS,
            )
            for folder in sorted(self.root.iterdir())
            if (folder / VIEWS).is_dir()
        ]
