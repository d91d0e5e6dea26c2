"""Mesh files of common formats, read with trimesh; files outside the user's folder are never opened."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jobs.data.importers.base import UnreadableObjectError
from jobs.data.importers.files import MAX_PIXELS, finite, inside, read_bytes, read_image, reading, rgba_of
from jobs.data.meshes import gltf
from jobs.data.meshes.ray_tracing import Mesh
from jobs.data.meshes.textured_mesh import Part, linear_of_srgb, shrunk, srgb_of_linear

if TYPE_CHECKING:
    import trimesh

FORMATS = ("obj", "glb", "ply", "off", "stl")
#: Folders, relative to the mesh file's, in which exporters put textures that their material names elsewhere; the
#: first is that of Google Scanned Objects.
TEXTURE_FOLDERS = ("../materials/textures", "textures", "../textures")
MAX_FILE_BYTES = 2**31
#: Suffixes of files that a mesh file may refer to, besides textures.
_NO_PICTURES = (".mtl", ".bin")
#: The largest colour, as a float, that is a share of 1 and not of 255.
_OVEREXPOSED = 2.0
_WHITE = np.ones((1, 1, 3))
_NO_COORDINATES = "a part's texture is not drawn: not all of its faces have texture coordinates"
_NO_COLOUR = "a part is drawn in grey: its material is not defined"
_INVISIBLE = "all of it is transparent (opacity 0 of materials, colours or textures)"


def read_parts(path: Path, root: Path, max_texture: int) -> list[Part]:
    """The surfaces in a mesh file, in its own frame.

    root: the folder that materials and textures beside the file must be in; max_texture: the longest side of a
    texture in pixels, larger ones are shrunk.
    Vertices without faces, faces without area, and fully transparent parts are left out; if all parts are transparent,
    they are kept, with a note.
    Raises `UnreadableObjectError` where the file, or one that it needs, is missing or damaged, or uses an unsupported
    feature.
    """
    with reading(path):
        scene, materials = _scene(path, root)
        meshes = [geometry for geometry in scene.dump(concatenate=False) if len(getattr(geometry, "faces", ()))]
        parts = [_part(mesh, materials, path, max_texture) for mesh in meshes]
        parts = [part for part in parts if len(part.mesh.faces)]
    if not parts:
        raise UnreadableObjectError(f"{path}: no faces" + (" with an area" if meshes else ""))
    visible = [part for part in parts if part.is_visible]
    return visible or [replace(part, notes=(*part.notes, _INVISIBLE)) for part in parts]


def read_points(path: Path) -> np.ndarray:
    """The vertices (P, 3) of a mesh or point cloud."""
    with reading(path):
        geometries = _scene(path, path.parent)[0].dump(concatenate=False)
        clouds = [np.asarray(geometry.vertices, np.float64) for geometry in geometries]
    if not sum(len(cloud) for cloud in clouds):
        raise UnreadableObjectError(f"{path}: no points")
    return finite(np.concatenate(clouds), path, "a point")


def _scene(path: Path, root: Path) -> tuple[trimesh.Scene, list[gltf.Material] | None]:
    """The scene that trimesh reads from a file, and the materials if it is glTF."""
    file_type = path.suffix[1:].lower()
    if file_type not in FORMATS:
        raise UnreadableObjectError(f"{path}: format {file_type!r}; allowed: {', '.join(FORMATS)}")
    content = read_bytes(path, MAX_FILE_BYTES)
    materials = None
    if file_type == "glb":
        content, materials = gltf.opened(content, path)
    resolver = _resolver(path, root)
    scene = _loaded(content, file_type, resolver, path)
    if resolver.problems:
        raise UnreadableObjectError(resolver.problems[0])
    return scene, materials


def _loaded(content: bytes, file_type: str, resolver: Any, path: Path) -> trimesh.Scene:
    """The scene in the content of a file, with its colours as `_of_trimesh` has them."""
    import trimesh
    from trimesh.exchange.load import mesh_loaders

    off: _OffText | None = None
    if file_type == "off":  # trimesh repeats what is before a comment behind a line
        content = re.sub(rb"#.*", b"", content)
        off = _OffText.read(content)
        _refuse_cut_off(off.announced, len(off.rows))
    elif file_type == "ply":
        _refuse_cut_off(*_ply_lines(content))
    elif file_type == "obj":  # of white space, trimesh takes blanks alone
        content = content.replace(b"\t", b" ")
    stream = trimesh.util.wrap_as_stream(content)
    found = mesh_loaders[file_type](file_obj=stream, file_type=file_type, resolver=resolver, process=False)
    if off is not None and off.has_colours:
        found["vertex_colors"] = off.colours(len(found["vertices"]))
    for part in found["geometry"].values() if "geometry" in found else [found]:
        for kind in ("vertex_colors", "face_colors"):
            if part.get(kind) is not None:
                part[kind] = _of_trimesh(np.asarray(part[kind]), path)
    return trimesh.load_scene({"process": False, **found})


def _of_trimesh(colours: np.ndarray, path: Path) -> np.ndarray:
    """Colours of vertices or faces within the range that trimesh clips their type to: floats to 1, integers to 255.

    Files also have floats up to 255, and integers of 16 bits.  Floats up to 2 are taken for overexposed shares of 1.
    """
    largest = np.nanmax(colours, initial=0)
    is_float = colours.dtype.kind == "f"
    if largest <= (_OVEREXPOSED if is_float else 255):
        return colours
    top = 255 if is_float else 65535
    if largest > top:
        allowed = "1 or 255" if is_float else "255 or 65535"
        raise UnreadableObjectError(f"{path}: colours up to {largest:g}; allowed: up to {allowed}")
    return colours / top


def _refuse_cut_off(announced: int, found: int) -> None:
    """Raises ValueError where a text has fewer lines than its header announces; trimesh reads what is there."""
    if found < announced:
        raise ValueError(f"cut off: {found} of {announced} lines of vertices and faces")


def _ply_lines(content: bytes) -> tuple[int, int]:
    """The number of lines that the header of a PLY text announces, and that of those behind it; 0 for binary files."""
    header, _, rest = content.partition(b"end_header")
    if b"format ascii" not in header:
        return 0, 0
    announced = sum(map(int, re.findall(rb"^element\s+\S+\s+(\d+)", header, re.MULTILINE)))
    return announced, sum(not line.isspace() for line in rest.splitlines() if line)


@dataclass(frozen=True)
class _OffText:
    """An OFF file without comments."""

    has_colours: bool
    #: numbers of vertices and faces together
    announced: int
    #: the words of each line of a vertex or a face
    rows: list[list[str]]

    @classmethod
    def read(cls, content: bytes) -> _OffText:
        """Splits the lines; raises any kind of error where there is no header."""
        _, kind, rest = re.split("(COFF|OFF)", content.decode("utf-8", errors="replace"), maxsplit=1)
        counts, *rows = [words for line in rest.splitlines() if (words := line.split())]
        return cls(kind == "COFF", sum(map(int, counts[:2])), rows)

    def colours(self, count: int) -> np.ndarray:
        """Colours (count, 3 or 4) of the vertices, which trimesh leaves out."""
        return np.array([row[3:] for row in self.rows[:count]], np.float64)


def _resolver(path: Path, root: Path) -> Any:
    """Opens files that a mesh file refers to; lists in `problems` those that are missing but that trimesh ignores."""
    from trimesh.resolvers import Resolver

    class Beside(Resolver):
        def __init__(self) -> None:
            self.problems: list[str] = []

        def get(self, key: str) -> bytes:
            try:
                file = _referred(key.strip().strip('"').replace("\\", "/"), path, root)
                if file.suffix.lower() not in _NO_PICTURES:
                    read_image(file)  # trimesh would ignore a damaged one
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


def _referred(relative: str, path: Path, root: Path) -> Path:
    """The file in `root` that the mesh file `path` names `relative`, or one of that name in the usual folders."""
    folder = path.parent.relative_to(root).as_posix()
    if posixpath.isabs(relative):
        folder = ""  # refused by `inside`, under its own name
    file = inside(root, posixpath.join(folder, relative), path)
    if file.exists():
        return file
    for place in TEXTURE_FOLDERS:
        other = posixpath.normpath(posixpath.join(folder, place, posixpath.basename(relative)))
        if not other.startswith("../") and (root / other).is_file():
            return root / other
    return file


def _part(mesh: Any, materials: list[gltf.Material] | None, path: Path, max_texture: int) -> Part:
    vertices = np.asarray(mesh.vertices, np.float64)
    faces = np.asarray(mesh.faces, np.int64)
    if vertices.shape[1:] != (3,) or faces.shape[1:] != (3,):
        raise UnreadableObjectError(f"{path}: {vertices.shape} vertices and {faces.shape} triangles, not of 3 numbers")
    if faces.min() < 0 or faces.max() >= len(vertices):  # Embree would read beyond its memory
        raise UnreadableObjectError(f"{path}: a face refers to vertex {faces.max()} of {len(vertices)}")
    bare = Mesh(vertices, faces)
    kind = mesh.visual.kind
    if materials is not None:
        part = _gltf_part(mesh, materials, bare, path, max_texture)
    elif kind == "texture":
        part = _textured(mesh, bare, path, max_texture)
    elif kind == "vertex":
        part = _coloured(bare, mesh.visual.vertex_colors)
    elif kind == "face":  # give every face corners of its own
        apart = Mesh(vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3))
        part = _coloured(apart, np.repeat(mesh.visual.face_colors, 3, axis=0))
    else:
        part = Part(bare, _WHITE * 0.7, np.zeros((len(vertices), 2)))
    part = _without_unused(part)
    with np.errstate(over="ignore"):  # single precision is what Embree and most formats have
        finite(part.mesh.vertices.astype(np.float32), path, "a vertex")
        finite(part.texture_coordinates.astype(np.float32), path, "a texture coordinate")
    return part


def _without_unused(part: Part) -> Part:
    """The part without faces that have no area, and without vertices that no face uses."""
    vertices, faces = part.mesh.vertices, part.mesh.faces
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    kept = faces[area != 0]  # faces with a NaN corner are kept, to be rejected later
    used, numbers = np.unique(kept, return_inverse=True)
    if len(used) == len(vertices) and len(kept) == len(faces):
        return part
    of_vertices = {
        name: value[used]
        for name in ("texture_coordinates", "vertex_colours", "vertex_opacity")
        if (value := getattr(part, name)) is not None
    }
    return replace(part, mesh=Mesh(vertices[used], numbers.reshape(-1, 3)), **of_vertices)


def _coloured(mesh: Mesh, colours: Any) -> Part:
    """sRGB colours (N, 3 or 4) of vertices, bytes or floats."""
    rgba = _unit(colours)
    no_texture = np.zeros((len(mesh.vertices), 2))
    return Part(mesh, _WHITE, no_texture, rgba[:, :3], vertex_opacity=_unless_opaque(rgba[:, 3]))


def _textured(mesh: Any, bare: Mesh, path: Path, max_texture: int) -> Part:
    material, uv = mesh.visual.material, mesh.visual.uv
    image = getattr(material, "image", None) if uv is not None else None
    # With a texture, exporters often leave Kd grey or black, and viewers ignore it.
    rgba = np.ones((1, 1, 4)) if image is not None else _unit(np.asarray(material.main_color))[None, None]
    if image is not None:
        rgba = rgba * _pixels(image, path, max_texture)
    opacity = rgba[..., 3] * _dissolve(material, path)
    notes: tuple[str, ...] = ()
    if image is None and getattr(material, "image", None) is not None:
        notes = (_NO_COORDINATES,)
    elif image is not None and _stands_for_none(image):
        notes = (_NO_COLOUR,)
    return Part(bare, rgba[..., :3], _downwards(uv, bare, path), opacity=_unless_opaque(opacity), notes=notes)


def _stands_for_none(image: Image.Image) -> bool:
    """Whether trimesh made a texture itself, because the material is not defined."""
    from trimesh.visual.material import empty_material

    made: Image.Image = empty_material().image
    return (image.mode, image.size) == (made.mode, made.size) and image.tobytes() == made.tobytes()


def _gltf_part(mesh: Any, materials: list[gltf.Material], bare: Mesh, path: Path, max_texture: int) -> Part:
    """A part from glTF; factors and vertex colours multiply the texture in linear light (2.0, 3.9.2 and 3.9.4)."""
    found = getattr(mesh.visual, "material", None) if mesh.visual.kind == "texture" else None
    name = getattr(found, "name", None)
    material = materials[int(name)] if name is not None else gltf.DEFAULT
    attributes = mesh.vertex_attributes
    coordinates, colours = attributes.get(gltf.COORDINATES), attributes.get(gltf.COLOURS)
    is_textured = material.has_texture and coordinates is not None
    image = getattr(found, "baseColorTexture", None) if is_textured else None
    if is_textured and image is None:  # trimesh ignores what it cannot read
        reasons = f"missing, damaged, larger than {MAX_PIXELS} pixels, or neither PNG, JPEG nor WebP"
        raise UnreadableObjectError(f"{path}: the texture of material {name} is {reasons}")
    rgba = np.ones((1, 1, 4)) if image is None else _pixels(image, path, max_texture)
    if found is None and colours is None:
        rgba[..., :3] = 0.7  # the grey of other formats' meshes without a colour
    picture, alpha = rgba[..., :3], rgba[..., 3] * material.factor[3]
    if colours is not None and colours.shape not in ((len(bare.vertices), 3), (len(bare.vertices), 4)):
        raise UnreadableObjectError(f"{path}: {colours.shape} colours for {len(bare.vertices)} vertices")
    vertices = None if colours is None else _rgba(np.clip(gltf.unit(colours), 0, 1))
    if vertices is not None or (material.factor[:3] != 1).any():
        light = linear_of_srgb(picture) * material.factor[:3]
        picture = light if vertices is not None else srgb_of_linear(light)
    alpha_of_vertices = None if vertices is None else _unless_opaque(vertices[:, 3])
    notes: tuple[str, ...] = (_NO_COORDINATES,) if material.has_texture and not is_textured else ()
    if material.alpha_mode == "OPAQUE" and (alpha.min() < 1 or alpha_of_vertices is not None):
        notes += ("alpha below 1 does not count, as its material's alphaMode is OPAQUE (glTF's default)",)
        alpha, alpha_of_vertices = np.ones((1, 1)), None
    return Part(
        bare,
        picture,
        _moved(coordinates, material, bare, path),
        None if vertices is None else vertices[:, :3],
        is_linear=vertices is not None,
        opacity=_unless_opaque(alpha),
        vertex_opacity=alpha_of_vertices,
        cutoff=material.cutoff if material.alpha_mode == "MASK" else None,
        notes=notes,
    )


def _moved(coordinates: Any, material: gltf.Material, mesh: Mesh, path: Path) -> np.ndarray:
    """Texture coordinates (N, 2) of glTF, whose v runs downwards, transformed by the material."""
    if coordinates is None:
        return np.zeros((len(mesh.vertices), 2))
    values = gltf.unit(np.asarray(coordinates))
    if values.shape != (len(mesh.vertices), 2):
        raise UnreadableObjectError(f"{path}: {values.shape} texture coordinates for {len(mesh.vertices)} vertices")
    return values @ material.transform[:, :2].T + material.transform[:, 2]


def _downwards(uv: Any, mesh: Mesh, path: Path) -> np.ndarray:
    """Texture coordinates (N, 2) whose v runs downwards; trimesh's runs upwards."""
    if uv is None:
        return np.zeros((len(mesh.vertices), 2))
    if uv.shape != (len(mesh.vertices), 2):
        raise UnreadableObjectError(f"{path}: {uv.shape} texture coordinates for {len(mesh.vertices)} vertices")
    coordinates = np.asarray(uv, np.float64)
    return np.column_stack([coordinates[:, 0], 1 - coordinates[:, 1]])


def _dissolve(material: Any, path: Path) -> float:
    """Opacity in [0, 1] of an OBJ material: `d`, or else 1 - `Tr`."""
    stated: dict[str, Any] = getattr(material, "kwargs", None) or {}
    if "map_d" in stated:
        picture = " ".join(stated["map_d"])
        raise UnreadableObjectError(
            f"{path}: material {material.name!r} has an opacity picture of its own (map_d {picture}), which is not "
            "read; put it into the alpha of map_Kd"
        )
    try:
        if "d" in stated:
            return float(np.clip(float(stated["d"][-1]), 0, 1))
        return 1 - float(np.clip(float(stated["tr"][-1]), 0, 1)) if "tr" in stated else 1.0
    except ValueError as error:
        raise UnreadableObjectError(f"{path}: material {material.name!r}: opacity: {error}") from error


def _unless_opaque(opacity: np.ndarray) -> np.ndarray | None:
    return None if opacity.min(initial=1) >= 1 else opacity


def _pixels(image: Image.Image, path: Path, max_texture: int) -> np.ndarray:
    """A texture (h, w, 4) in [0, 1], RGB and alpha."""
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableObjectError(f"{path}: a texture of {image.width} x {image.height} pixels")
    rgba = rgba_of(image, path)  # decoded only now
    if (rgba[..., 3] == 255).all():  # without alpha, for which resizing would take an additional step
        colours = np.asarray(shrunk(Image.fromarray(rgba[..., :3]), max_texture)) / 255.0
        return np.concatenate([colours, np.ones((*colours.shape[:2], 1))], axis=-1)
    return np.asarray(shrunk(Image.fromarray(rgba), max_texture)) / 255.0


def _unit(colours: Any) -> np.ndarray:
    """RGBA (..., 4) in [0, 1] of RGB or RGBA, bytes or floats."""
    colours = np.asarray(colours)
    scale = 255.0 if colours.dtype.kind in "ui" else 1.0
    return _rgba(np.clip(colours / scale, 0, 1))


def _rgba(colours: np.ndarray) -> np.ndarray:
    """RGB or RGBA -> RGBA; without alpha it is opaque."""
    if colours.shape[-1] == 4:
        return colours
    return np.concatenate([colours, np.ones((*colours.shape[:-1], 1))], axis=-1)
