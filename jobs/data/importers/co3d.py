"""Common Objects in 3D, version 2: one category, as it is published or as Splatter Image's script leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from jobs.data.importers import co3d_preprocessed, co3d_raw
from jobs.data.importers.base import Importer, Item, Progress
from jobs.data.importers.files import read_json, read_lines
from jobs.data.store import Frames
from model.options import options

EXCLUDE = "exclude"


@options
class Co3dOptions:
    """The category, and its preprocessing."""

    category: Annotated[str, Field(pattern="^[a-z]+$", description="the category to import")] = "hydrant"
    layout: Annotated[
        Literal["raw", "preprocessed"],
        Field(description="whether the folder is CO3Dv2 as published, or preprocessed for Splatter Image"),
    ] = "raw"
    normalised: Annotated[
        bool,
        Field(
            description=(
                "whether sequences are at the origin, upright and of one size: raw ones are made so; preprocessed "
                "ones, whose files do not record it, are taken to be so"
            )
        ),
    ] = False
    subset: Annotated[str, Field(pattern="^[a-z0-9_]+$", description="the set list of raw sequences")] = "fewview_dev"
    image_size: Annotated[
        int, Field(ge=8, le=1024, description="side of the stored images, in pixels; preprocessed ones must have it")
    ] = 128
    depth: Annotated[bool, Field(description="whether to keep the depth maps of raw sequences")] = False
    resampling: Annotated[
        Literal["direct", "published"],
        Field(
            description=(
                "how raw pictures and masks are shrunk: each once, or by the steps of the published preprocessing "
                "(masks through a box of 800 px, by nearest neighbours and back bilinearly; pictures by bilinear "
                "samples, then Lanczos)"
            )
        ),
    ] = "direct"


@dataclass(frozen=True)
class Co3d(Importer[Co3dOptions]):
    """Sequences are objects.  Networks predict depth as an offset from the origin, so the bounds are offsets too."""

    description = "Common Objects in 3D v2, one category: turntable videos of real objects, cut out"
    source = "https://github.com/facebookresearch/co3d"
    licence = "CC BY-NC 4.0"
    Options = Co3dOptions
    needs_source = "the category's folder of CO3Dv2 (raw), or co3d_<category>_for_gs (preprocessed)"
    file_roles: ClassVar = {
        EXCLUDE: "sequences to leave out: an id on each line, or JSON (a list, or lists by category)"
    }
    near, far = -2.0, 2.0
    bounds_from_origin = True
    background = (0.0, 0.0, 0.0)
    evaluation: ClassVar = {"source_frames": [0, 30]}
    later_options: ClassVar = {"resampling": "direct"}

    @classmethod
    def revision(cls, options: Co3dOptions) -> int:
        """2 for normalised raw sequences: revision 1 normalised them without two of the published steps."""
        return 2 if options.normalised and options.layout == "raw" else 1

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return co3d_raw.is_raw(folder) or any(folder.glob("co3d_*_for_gs"))

    def items(self, progress: Progress) -> Sequence[Item]:
        if self.options.layout == "raw":
            items = co3d_raw.sequences(self.root, self.options.category, self.options.subset)
        elif self.options.depth:
            raise ValueError("option depth: preprocessed sequences have no depth maps; allowed: false")
        else:
            items = co3d_preprocessed.sequences(self.root, self.options.category)
        excluded = self._excluded({item.name for item in items})
        return [item for item in items if item.name not in excluded]

    def load(self, item: Item) -> Frames:
        size = self.options.image_size
        if self.options.layout == "raw":
            options = self.options
            return co3d_raw.load(
                item.payload,
                size,
                normalised=options.normalised,
                depth=options.depth,
                resampling=options.resampling,
            )
        return co3d_preprocessed.load(item.payload, size)

    def sources(self, item: Item) -> Sequence[Path]:
        part = co3d_raw if self.options.layout == "raw" else co3d_preprocessed
        return part.sources(item)

    def _excluded(self, known: set[str]) -> set[str]:
        """All ids in the user's lists.  Raises ValueError for a list of other objects."""
        excluded: set[str] = set()
        for path in self.files.get(EXCLUDE, []):
            listed = read_json(path) if path.suffix == ".json" else read_lines(path)
            if isinstance(listed, dict):
                listed = listed.get(self.options.category, [])
            if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
                raise ValueError(f"{path}: not a list of sequences")
            if listed and known.isdisjoint(listed):
                raise ValueError(
                    f"{path}: none of its {len(listed)} sequences, first {listed[0]!r}, is among the {len(known)} of "
                    f"category {self.options.category!r}"
                )
            excluded |= set(listed)
        return excluded
