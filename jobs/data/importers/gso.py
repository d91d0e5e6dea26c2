"""Google Scanned Objects as rendered for Free3D: 25 views an object, for evaluation only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jobs.data.importers import zero123
from jobs.data.importers.base import Importer, Item, Progress
from jobs.data.store import Frames

VIEWS = "render_mvs_25/model"


@dataclass(frozen=True)
class Gso(Importer[zero123.RenderOptions]):
    """`<object>/render_mvs_25/model/{000..024}.{png,npy}`."""

    description = "Google Scanned Objects as rendered for Free3D, 25 views each; a test split only"
    source = "https://github.com/lyndonzheng/Free3D"
    licence = "CC BY 4.0"
    Options = zero123.RenderOptions
    later_options: ClassVar = zero123.LATER_OPTIONS
    needs_source = f"a folder for each object that has {VIEWS} with its .png and .npy files"
    near, far = zero123.NEAR, zero123.FAR
    source_distance = zero123.SOURCE_DISTANCE

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
                num_frames=len(zero123.pictures(folder / VIEWS)),
                payload=folder / VIEWS,
            )
            for folder in sorted(self.root.iterdir())
            if (folder / VIEWS).is_dir()
        ]

    def load(self, item: Item) -> Frames:
        return zero123.load_renders(item.payload, self.options, self.background)
