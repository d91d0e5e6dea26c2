"""Mesh files of any common format, read with trimesh; nothing outside the user's folder is opened."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jobs.data.importers.base import UnreadableObjectError
from jobs.data.importers.files import MAX_PIXELS, finite, inside, read_bytes, read_image
from jobs.data.meshes.ray_tracing import Mesh
from jobs.data.meshes.textured_mesh import Part, shrunk

if TYPE_CHECKING:
    import trimesh

FORMATS = ("obj", "glb", "ply", "off", "stl")
MAX_FILE_BYTES = 2**31
#: What a mesh file may refer to, textures apart.
_NO_PICTURES = (".mtl", ".bin")
_WHITE = np.ones((1, 1, 3))


def read_parts(path: Path, root: Path, max_texture: int) -> list[Part]:
    """The surfaces in a mesh file, in its own frame.

    root: the folder that materials and textures beside the file must be in; max_texture: the longest side of a
    texture in pixels, larger ones are shrunk.
    Raises `UnreadableObjectError` where the file, or one that it needs, is missing or damaged.
    """
    scene = _scene(path, root)
    meshes = [geometry for geometry in _flattened(scene, path) if len(getattr(geometry, "faces", ()))]
    if not meshes:
        raise UnreadableObjectError(f"{path}: no faces")
    return [_part(mesh, path, max_texture) for mesh in meshes]


def read_points(path: Path) -> np.ndarray:
    """The vertices (P, 3) of a mesh or point cloud."""
    clouds = [np.asarray(geometry.vertices, np.float64) for geometry in _flattened(_scene(path, path.parent), path)]
    if not sum(len(cloud) for cloud in clouds):
        raise UnreadableObjectError(f"{path}: no points")
    return finite(np.concatenate(clouds), path, "a point")


def _scene(path: Path, root: Path) -> trimesh.Scene:
    import trimesh

    file_type = path.suffix[1:].lower()
    if file_type not in FORMATS:
        raise UnreadableObjectError(f"{path}: format {file_type!r}; allowed: {', '.join(FORMATS)}")
    content = read_bytes(path, MAX_FILE_BYTES)
    resolver = _resolver(path, root)
    try:
        scene = trimesh.load_scene(
            trimesh.util.wrap_as_stream(content), file_type=file_type, resolver=resolver, process=False
        )
    except Exception as error:  # its parsers raise whatever a damaged file leads them to
        raise UnreadableObjectError(f"{path}: {type(error).__name__}: {error}") from error
    if resolver.problems:
        raise UnreadableObjectError(resolver.problems[0])
    return scene


def _resolver(path: Path, root: Path) -> Any:
    """Opens what a mesh file refers to.  Its `problems` say what could not be had, where trimesh goes on without."""
    from trimesh.resolvers import Resolver

    class Beside(Resolver):
        def __init__(self) -> None:
            self.problems: list[str] = []

        def get(self, key: str) -> bytes:
            try:
                folder = path.parent.relative_to(root).as_posix()
                relative = key.strip().strip('"').replace("\\", "/")
                if posixpath.isabs(relative):
                    folder = ""  # refused below, under its own name
                file = inside(root, posixpath.join(folder, relative), path)
                if file.suffix.lower() not in _NO_PICTURES:
                    read_image(file)  # trimesh would go on without it
                return read_bytes(file, MAX_FILE_BYTES)
            except UnreadableObjectError as error:
                self.problems.append(str(error))
                raise

        def write(self, name: str, data: Any) -> None:
            raise NotImplementedError("a source is only read")

        def namespaced(self, namespace: str) -> Any:
            return self

        def keys(self) -> list[str]:
            return []

    return Beside()


def _flattened(scene: trimesh.Scene, path: Path) -> list[Any]:
    """The scene's geometries where its graph puts them."""
    try:
        return list(scene.dump(concatenate=False))
    except Exception as error:  # a graph with loops, missing nodes, ...
        raise UnreadableObjectError(f"{path}: {type(error).__name__}: {error}") from error


def _part(mesh: Any, path: Path, max_texture: int) -> Part:
    vertices = finite(np.asarray(mesh.vertices, np.float64), path, "a vertex")
    faces = np.asarray(mesh.faces, np.int64)
    if faces.min() < 0 or faces.max() >= len(vertices):  # Embree would read beyond its memory
        raise UnreadableObjectError(f"{path}: a face refers to vertex {faces.max()} of {len(vertices)}")
    kind = mesh.visual.kind
    if kind == "texture":
        return _textured(mesh, Mesh(vertices, faces), path, max_texture)
    no_texture = np.zeros((len(vertices), 2))
    if kind == "vertex":
        return Part(Mesh(vertices, faces), _WHITE, no_texture, _unit(mesh.visual.vertex_colors))
    if kind == "face":  # give every face corners of its own
        apart = Mesh(vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3))
        return Part(apart, _WHITE, np.zeros((faces.size, 2)), np.repeat(_unit(mesh.visual.face_colors), 3, axis=0))
    return Part(Mesh(vertices, faces), _WHITE * 0.7, no_texture)


def _textured(mesh: Any, bare: Mesh, path: Path, max_texture: int) -> Part:
    material = mesh.visual.material
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    colour = _base_colour(material, has_image=image is not None)
    uv = mesh.visual.uv
    if image is None or uv is None:
        return Part(bare, colour * _WHITE, np.zeros((len(bare.vertices), 2)))
    if uv.shape != (len(bare.vertices), 2):
        raise UnreadableObjectError(f"{path}: {uv.shape} texture coordinates for {len(bare.vertices)} vertices")
    coordinates = finite(np.asarray(uv, np.float64), path, "a texture coordinate")
    down = np.column_stack([coordinates[:, 0], 1 - coordinates[:, 1]])  # trimesh's v runs upwards
    return Part(bare, _pixels(image, path, max_texture) * colour, down)


def _base_colour(material: Any, has_image: bool) -> np.ndarray:
    """What a material's colour is, or multiplies its texture with: (3,) in [0, 1]."""
    if hasattr(material, "baseColorFactor"):  # glTF: a factor
        factor = material.baseColorFactor
        return np.ones(3) if factor is None else _unit(np.asarray(factor))
    # OBJ: with a texture, Kd is often left at grey or black by exporters, and viewers ignore it.
    return np.ones(3) if has_image else _unit(np.asarray(material.main_color))


def _pixels(image: Image.Image, path: Path, max_texture: int) -> np.ndarray:
    """A texture (h, w, 3) in [0, 1]."""
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableObjectError(f"{path}: a texture of {image.width} x {image.height} pixels")
    try:
        picture = image.convert("RGB")
    except Exception as error:  # decoded only now
        raise UnreadableObjectError(f"{path}: its texture: {type(error).__name__}: {error}") from error
    return np.asarray(shrunk(picture, max_texture)) / 255.0


def _unit(colours: np.ndarray) -> np.ndarray:
    """RGB in [0, 1] of trimesh's RGBA, which are bytes or floats."""
    colours = np.asarray(colours)
    scale = 255.0 if colours.dtype.kind in "ui" else 1.0
    return np.clip(colours[..., :3] / scale, 0, 1)
