"""MuJoCo models of robot benchmarks: one XML that names meshes, materials and textures.

Only visible parts are read: mesh geoms without collisions.  Source: MuJoCo's documentation, "XML
Reference" (asset/mesh with the legacy binary MSH format, asset/texture, asset/material, body/geom).
"""

from __future__ import annotations

import io
import posixpath
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from jobs.data.meshes.ray_tracing import Mesh
from jobs.data.meshes.textured_mesh import Part, TexturedMesh, shrunk


@dataclass(frozen=True)
class Surface:
    """One visible part: a mesh with its colour and texture."""

    mesh: Mesh  # in the model's frame, scaled as the model says
    texture_coordinates: np.ndarray  # (N, 2) of each vertex; v runs downwards
    colour: np.ndarray  # (3,) in [0, 1]; multiplies the texture
    texture: str | None  # member that holds the picture


@dataclass(frozen=True)
class MshMesh:
    """The content of a .msh file."""

    vertices: np.ndarray  # (N, 3) float32
    texture_coordinates: np.ndarray  # (N, 2) float32; zeros where the file has none
    faces: np.ndarray  # (M, 3) int32


def read_msh(content: bytes) -> MshMesh:
    """Parse MuJoCo's legacy binary mesh format.  Raises ValueError for other content.

    Four int32 counts (vertices, normals, texture coordinates, faces), then those arrays as float32 and int32.
    """
    if len(content) < 16:
        raise ValueError(f"a mesh of {len(content)} bytes has no header")
    vertices, normals, coordinates, faces = (int(count) for count in np.frombuffer(content, "<i4", 4))
    sizes = [3 * vertices, 3 * normals, 2 * coordinates, 3 * faces]
    if min(sizes) < 0 or 16 + 4 * sum(sizes) != len(content):
        raise ValueError(
            f"a mesh of {vertices} vertices, {normals} normals, {coordinates} texture coordinates and "
            f"{faces} faces has {16 + 4 * sum(sizes)} bytes, this file {len(content)}"
        )
    if not vertices or not faces or coordinates not in (0, vertices):
        raise ValueError(f"a mesh of {vertices} vertices, {coordinates} texture coordinates and {faces} faces")
    starts = 16 + 4 * np.cumsum([0, *sizes])
    points = np.frombuffer(content, "<f4", sizes[0], starts[0]).reshape(-1, 3)
    texture = np.frombuffer(content, "<f4", sizes[2], starts[2]).reshape(-1, 2)
    corners = np.frombuffer(content, "<i4", sizes[3], starts[3]).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise ValueError("a vertex is not finite")
    if corners.min() < 0 or corners.max() >= vertices:
        raise ValueError(f"a face refers to vertex {corners.max()} of {vertices}")
    return MshMesh(points, texture if coordinates else np.zeros((vertices, 2), np.float32), corners)


def read_model(members: Mapping[str, bytes], name: str) -> list[Surface]:
    """The visible surfaces of the model in XML member `name`.  Raises ValueError where it cannot be read."""
    try:
        root = ElementTree.fromstring(members[name])
    except ElementTree.ParseError as error:
        raise ValueError(f"{name}: {error}") from error
    assets = {tag: {e.get("name", ""): e for e in root.iter(tag)} for tag in ("mesh", "material", "texture")}
    geoms = [geom for geom in root.iter("geom") if geom.get("type") == "mesh" and geom.get("contype") == "0"]
    surfaces = [_surface(members, posixpath.dirname(name), geom, assets) for geom in geoms]
    if not surfaces:
        raise ValueError(f"{name} has no visible mesh")
    return surfaces


def _surface(
    members: Mapping[str, bytes],
    folder: str,
    geom: ElementTree.Element,
    assets: Mapping[str, Mapping[str, ElementTree.Element]],
) -> Surface:
    mesh = _asset(assets, "mesh", geom.get("mesh", ""))
    content = read_msh(_member(members, folder, mesh.get("file", "")))
    scaled = Mesh(content.vertices * _numbers(mesh.get("scale", "1 1 1")), content.faces)
    coloured_by, texture = geom, None
    if material := geom.get("material"):
        coloured_by = _asset(assets, "material", material)
        if texture_name := coloured_by.get("texture"):
            file = _asset(assets, "texture", texture_name).get("file", "")
            texture = posixpath.normpath(posixpath.join(folder, file))
            if texture not in members:
                raise ValueError(f"texture {file!r} is missing")
    colour = _numbers(coloured_by.get("rgba", "1 1 1 1"))[:3]
    return Surface(scaled, content.texture_coordinates, colour, texture)


def _asset(assets: Mapping[str, Mapping[str, ElementTree.Element]], kind: str, name: str) -> ElementTree.Element:
    if name not in assets[kind]:
        raise ValueError(f"{kind} {name!r} is not defined")
    return assets[kind][name]


def _member(members: Mapping[str, bytes], folder: str, file: str) -> bytes:
    path = posixpath.normpath(posixpath.join(folder, file))
    if path not in members:
        raise ValueError(f"file {file!r} is missing")
    return members[path]


def _numbers(text: str) -> np.ndarray:
    return np.array([float(word) for word in text.split()])


def textured_mesh(surfaces: Sequence[Surface], members: Mapping[str, bytes], max_texture: int) -> TexturedMesh:
    """The model as one mesh.  `max_texture` is the longest side of a texture in pixels; larger ones are shrunk.

    Raises ValueError where a texture cannot be read.
    """
    return TexturedMesh.join(
        [
            Part(surface.mesh, _picture(surface, members, max_texture), surface.texture_coordinates)
            for surface in surfaces
        ]
    )


def _picture(surface: Surface, members: Mapping[str, bytes], max_side: int) -> np.ndarray:
    if surface.texture is None:
        return surface.colour[None, None]
    try:
        with Image.open(io.BytesIO(members[surface.texture])) as image:
            picture = image.convert("RGB")  # MuJoCo ignores alpha
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"texture {surface.texture} cannot be read: {error}") from error
    return np.asarray(shrunk(picture, max_side)) / 255.0 * surface.colour
