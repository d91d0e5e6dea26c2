"""Data of binary glTF files that trimesh drops: exact colour factors, vertex colours and texture coordinates.

trimesh receives the file with its materials numbered, and with the vertex attributes that are needed here
under names of our own, which it keeps unchanged.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.data.importers.base import UnreadableObjectError

#: Supported extensions, or those that affect neither shape nor base colour.
READ = frozenset(
    {
        "EXT_texture_webp",
        "KHR_lights_punctual",
        "KHR_materials_anisotropy",
        "KHR_materials_clearcoat",
        "KHR_materials_emissive_strength",
        "KHR_materials_ior",
        "KHR_materials_iridescence",
        "KHR_materials_pbrSpecularGlossiness",
        "KHR_materials_sheen",
        "KHR_materials_specular",
        "KHR_materials_unlit",
        "KHR_materials_variants",
        "KHR_texture_transform",
        "KHR_xmp_json_ld",
    }
)
#: Names under which trimesh keeps these attributes.
COLOURS, COORDINATES = "_BASE_COLOURS", "_BASE_COORDINATES"
_MAGIC, _JSON = 0x46546C67, 0x4E4F534A
_HEAD = struct.Struct("<5I")


@dataclass(frozen=True)
class Material:
    """The fields of a glTF 2.0 material that determine its base colour."""

    factor: np.ndarray  # (4,) linear RGB and alpha
    alpha_mode: str  # OPAQUE, MASK or BLEND
    cutoff: float
    transform: np.ndarray  # (2, 3) of texture coordinates, which run downwards
    coordinates: int  # which TEXCOORD
    has_texture: bool

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Material:
        """Parses a material; raises any kind of error where it is malformed."""
        metallic = entry.get("pbrMetallicRoughness") or {}
        factor = np.array(metallic.get("baseColorFactor") or [1, 1, 1, 1], np.float64)
        if factor.shape != (4,) or not np.isfinite(factor).all():
            raise ValueError(f"a colour factor of {factor.tolist()}")
        texture = metallic.get("baseColorTexture") or {}
        moved = (texture.get("extensions") or {}).get("KHR_texture_transform") or {}
        turn = float(moved.get("rotation", 0))
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        linear = rotation @ np.diag(np.array(moved.get("scale", [1, 1]), np.float64))
        return cls(
            factor=np.clip(factor, 0, 1),
            alpha_mode=str(entry.get("alphaMode", "OPAQUE")),
            cutoff=float(entry.get("alphaCutoff", 0.5)),
            transform=np.column_stack([linear, np.array(moved.get("offset", [0, 0]), np.float64)]),
            coordinates=int(moved.get("texCoord", texture.get("texCoord", 0))),
            has_texture=bool(texture),
        )


#: Material of primitives that name none.
DEFAULT = Material.read({})


def opened(content: bytes, path: Path) -> tuple[bytes, list[Material]]:
    """A .glb file prepared for trimesh, and its materials, whose indices are their names in it.

    Raises `UnreadableObjectError` where it requires an unsupported extension, which is named, and any kind of error
    where it is damaged or no .glb file.
    """
    header, rest = _parts(content)
    for accessor in header.get("accessors") or []:
        if accessor["count"] > len(content):  # without a buffer it would be allocated as zeros
            raise ValueError(f"an accessor of {accessor['count']} elements in a file of {len(content)} bytes")
    required = [str(name) for name in header.get("extensionsRequired") or []]
    if unread := sorted(set(required) - READ):
        raise UnreadableObjectError(
            f"{path}: requires the glTF extension{'s' * (len(unread) > 1)} {', '.join(unread)}, which "
            f"{'are' if len(unread) > 1 else 'is'} not read; export it without"
        )
    for number, entry in enumerate(header.get("materials") or []):
        entry["name"] = str(number)
        _use_diffuse_colour(entry)
    materials = [Material.read(entry) for entry in header.get("materials") or []]
    for mesh in header.get("meshes") or []:
        for primitive in mesh["primitives"]:
            material = materials[primitive["material"]] if "material" in primitive else DEFAULT
            _rename(primitive["attributes"], material)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    head = _HEAD.pack(_MAGIC, 2, _HEAD.size + len(text) + len(rest), len(text), _JSON)
    return head + text + rest, materials


def unit(values: np.ndarray) -> np.ndarray:
    """An attribute's values as floats; integers are normalised to 0 to 1."""
    scale = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1.0
    return values.astype(np.float64) / scale


def _use_diffuse_colour(material: dict[str, Any]) -> None:
    """Makes the diffuse colour of a specular-glossy material its base colour; trimesh would mix it with reflections."""
    glossy = (material.get("extensions") or {}).pop("KHR_materials_pbrSpecularGlossiness", None)
    if glossy is not None:
        diffuse = {"baseColorFactor": glossy.get("diffuseFactor"), "baseColorTexture": glossy.get("diffuseTexture")}
        material["pbrMetallicRoughness"] = {key: value for key, value in diffuse.items() if value}


def _rename(attributes: dict[str, Any], material: Material) -> None:
    """Renames a primitive's colours and coordinates, so that trimesh keeps them and does not apply the colours."""
    if "COLOR_0" in attributes:
        attributes[COLOURS] = attributes.pop("COLOR_0")
    if f"TEXCOORD_{material.coordinates}" in attributes:
        attributes[COORDINATES] = attributes[f"TEXCOORD_{material.coordinates}"]


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON chunk, which comes first, and the remaining bytes."""
    magic, version, _, length, kind = _HEAD.unpack(content[: _HEAD.size])
    if magic != _MAGIC or kind != _JSON or version != 2:
        raise ValueError(f"not a binary glTF of version 2 (magic {magic:#x}, version {version})")
    header = json.loads(content[_HEAD.size : _HEAD.size + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header, content[_HEAD.size + length :]
