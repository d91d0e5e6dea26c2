"""Any folder of meshes, ray-traced from viewpoints all around."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from jobs.data.importers.base import Importer, Item, Progress, UnreadableObjectError
from jobs.data.importers.files import files_under, recorded_reads, sha256_of
from jobs.data.meshes import cameras
from jobs.data.meshes.files import FORMATS, read_parts
from jobs.data.meshes.geometry import describe_shape, group_shapes, split_geometries
from jobs.data.meshes.ray_tracing import Mesh, Rig, render
from jobs.data.meshes.textured_mesh import TexturedMesh
from jobs.data.store import Frames
from model.options import options

#: Margin between the object's sphere and the depth bounds, relative to its radius.
_MARGIN = 0.13
#: The most names that a message lists before it counts the rest.
_LISTED = 5

log = logging.getLogger(__name__)


@options
class MeshesOptions:
    """Splits of the meshes, and settings of their rendering."""

    val_geometries: Annotated[
        int, Field(ge=0, description="number of validation shapes; files of equal shape stay together")
    ] = 1
    test_geometries: Annotated[int, Field(ge=0, description="number of test shapes, likewise")] = 1
    views: Annotated[int, Field(ge=2, le=10_000, description="number of views of each object")] = 32
    up: Annotated[Literal["y", "z"], Field(description="the axis of the files that points upwards")] = "y"
    image_size: Annotated[int, Field(ge=8, le=1024, description="side of the images, in pixels")] = 128
    supersampling: Annotated[int, Field(ge=1, le=8, description="rays along each side of a pixel")] = 3
    radius: Annotated[
        float,
        Field(
            gt=0.8,
            le=100,
            description="distance of the cameras from the centre of the object, whose own radius is 0.66",
        ),
    ] = cameras.RADIUS
    field_of_view: Annotated[float, Field(gt=1, lt=160, description="field of view, in degrees")] = 40.0
    ambient: Annotated[
        float, Field(ge=0, le=1, description="the share of ambient light; 1 shows the meshes' colours unshaded")
    ] = 0.55
    seed: Annotated[int, Field(ge=0, description="seed of the splits and the cameras")] = 0


@dataclass(frozen=True)
class Meshes(Importer[MeshesOptions]):
    """Objects are files, named by their path in the folder; the folder at the top is their category."""

    description = f"a folder of meshes ({', '.join(FORMATS)}) with textures or colours, ray-traced"
    source = "a folder of the user's"
    licence = "that of the meshes"
    Options = MeshesOptions
    renders = True
    needs_source = f"meshes in any sub-folders: {', '.join('.' + suffix for suffix in FORMATS)}"

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any(path.suffix[1:].lower() in FORMATS for path in files_under(folder, "*"))

    def items(self, progress: Progress) -> Sequence[Item]:
        files = sorted(path for path in files_under(self.root, "*") if path.suffix[1:].lower() in FORMATS)
        _name_unread(self.root, has_others=bool(files))
        if not files:
            return []  # which is refused with what is needed, as for other importers
        names = {path: path.relative_to(self.root).as_posix() for path in files}
        looks = {}
        for path, name in names.items():
            progress(0, len(files), f"looking at {name}")
            looks[path] = self._look(path)
        sizes = {names[path]: looks[path].triangles for path in files}
        geometry = group_shapes(sizes, lambda name: _shape(self._mesh(self.root / name)))
        options = self.options
        splits = split_geometries(
            sorted(set(geometry.values())), options.val_geometries, options.test_geometries, options.seed
        )
        return [
            Item(
                name=name,
                split=splits[geometry[name]],
                category=_category(name),
                geometry=geometry[name],
                num_frames=options.views,
                payload=path,
                remark="; ".join(looks[path].notes) or None,
                source_sha256=looks[path].sha256,
            )
            for path, name in names.items()
        ]

    def load(self, item: Item) -> Frames:
        options = self.options
        mesh = self._mesh(item.payload)
        # Seeded by name, not by position: adding or removing a file does not change the images of others.
        generator = cameras.generator_of(options.seed, *item.name.encode())
        poses = cameras.split_cameras(item.split, generator, options.views, options.radius)
        focal = cameras.focal_length(options.image_size, np.radians(options.field_of_view))
        return render(
            mesh.mesh,
            mesh.colour,
            Rig(poses, focal, options.image_size),
            background=self.background,
            supersampling=options.supersampling,
            ambient=options.ambient,
            opacity=None if mesh.is_opaque else mesh.opacity,
        )

    def depth_bounds(self) -> tuple[float, float]:
        reach = cameras.EXTENT * (1 + _MARGIN)
        return self.options.radius - reach, self.options.radius + reach

    def _mesh(self, path: Path) -> TexturedMesh:
        mesh = TexturedMesh.join(read_parts(path, self.root, max_texture=8 * self.options.image_size))
        vertices = mesh.mesh.vertices @ cameras.Y_UP_TO_Z_UP.T if self.options.up == "y" else mesh.mesh.vertices
        if np.ptp(vertices, axis=0).max() <= 0:
            raise UnreadableObjectError(f"{path}: all vertices are in one point")
        return replace(mesh, mesh=Mesh(cameras.centred(vertices), mesh.mesh.faces))

    def _look(self, path: Path) -> _Look:
        """The facts on a file; none where it cannot be read, which `load` reports."""
        try:
            with recorded_reads() as read:
                textured = self._mesh(path)
            sha256 = sha256_of(read, self.root)
        except (UnreadableObjectError, OSError):
            return _Look()
        notes = textured.notes
        if self.options.up == "y" and is_google_scan(path):
            notes += ("Google's scans are z-up, and this import takes y for up; see option up",)
        return _Look(len(textured.mesh.faces), notes, sha256)


@dataclass(frozen=True)
class _Look:
    """Facts on a mesh file that are needed before it is rendered."""

    triangles: int | None = None
    notes: tuple[str, ...] = ()
    sha256: str = ""  # of the file and all that it refers to


def _shape(textured: TexturedMesh) -> np.ndarray:
    return describe_shape(textured.mesh.vertices[textured.mesh.faces])


def _name_unread(root: Path, has_others: bool) -> None:
    """Names the glTF files whose data lie in other files: logged beside other meshes, else raised as ValueError."""
    gltf = (path for path in files_under(root, "*") if path.suffix.lower() == ".gltf")
    found = sorted(path.relative_to(root).as_posix() for path in gltf)
    if not found:
        return
    listed = ", ".join(found[:_LISTED]) + (f" and {len(found) - _LISTED} more" if len(found) > _LISTED else "")
    problem = f"{root}: .gltf with separate files is not read; export as .glb, which holds all in one file: {listed}"
    if not has_others:
        raise ValueError(problem)
    log.warning("%s", problem)


def is_google_scan(path: Path) -> bool:
    """Whether a mesh file has the folder layout of Google Scanned Objects: in `meshes`, beside `materials/textures`."""
    return path.parent.name == "meshes" and (path.parent.parent / "materials" / "textures").is_dir()


def _category(name: str) -> str:
    """The top-level folder; "mesh" without one, or where each object has its own folder, as in Google's scans."""
    parts = name.split("/")
    return parts[0] if len(parts) > 1 and parts[1:-1] != ["meshes"] else "mesh"
