"""Ray-traces a triangle mesh from pinhole cameras with Embree: RGB, mask and depth.

World and camera frames, pixel centres and matrices are those of `model.types`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from jobs.data.store import Frames

#: Direction towards the light, world frame (z up): from above, the front right.
LIGHT = np.array([0.45, 0.30, 0.84]) / np.linalg.norm([0.45, 0.30, 0.84])


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in the world frame."""

    vertices: np.ndarray  # (N, 3) scene units
    faces: np.ndarray  # (M, 3) rows of `vertices`


@dataclass(frozen=True)
class Hits:
    """Intersections of P rays with the mesh."""

    points: np.ndarray  # (P, 3) float64, world frame
    faces: np.ndarray  # (P,) rows of the mesh's faces
    barycentric: np.ndarray  # (P, 3) weights of each face's three corners


#: Surface colour at hits, before shading: Hits -> (P, 3) in [0, 1].
Shader = Callable[[Hits], np.ndarray]
#: Opacity of the surface at hits: Hits -> (P,) in [0, 1].
Opacity = Callable[[Hits], np.ndarray]

#: Maximum number of surfaces that a ray passes through.
MAX_LAYERS = 64
#: Step behind a hit to where a ray continues, relative to the hit's distance; a ray ends below this transmittance.
LAYER_STEP, LEAST_LIGHT = 1e-4, 1 / 512


@dataclass(frozen=True)
class Rig:
    """V pinhole cameras with square images of one size."""

    world_to_camera: np.ndarray  # (V, 4, 4)
    focal: float  # pixels
    size: int  # side of the image, pixels; the principal point is its middle


def render(
    mesh: Mesh,
    shader: Shader,
    rig: Rig,
    *,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    supersampling: int = 2,
    ambient: float = 0.55,
    opacity: Opacity | None = None,
) -> Frames:
    """Ray-trace `mesh` with supersampling x supersampling rays a pixel.

    Where `opacity` is given, rays continue through surfaces that are not opaque; without it all surfaces are opaque.

    The light is diffuse and fixed in the world, so a surface has the same colour from every viewpoint: the fraction
    `ambient` is constant, the rest decreases with the angle between the surface normal and `LIGHT`.
    Depth is the mean over a pixel's rays that hit; the mask is their fraction times 255.  A ray through transparent
    surfaces contributes with their accumulated opacity; its depth is that of the surface where this reaches one half.
    """
    scene = EmbreeScene()
    vertices = np.ascontiguousarray(mesh.vertices, dtype=np.float32)
    TriangleMesh(scene, vertices, np.ascontiguousarray(mesh.faces, dtype=np.int32))
    normals = face_normals(mesh)

    def lit(hits: Hits, directions: np.ndarray) -> np.ndarray:
        light = _light(normals[hits.faces], directions, ambient)
        return np.clip(shader(hits) * light[:, None], 0, 1)

    rays = _camera_rays(rig, supersampling)
    side = rig.size * supersampling

    def seen(camera: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, mask and depth; the values of its rays, a hundred times as large, are not kept for all views."""
        layers = _picture(scene, lit, opacity, camera, rays, np.asarray(background))
        colour, hit, depth = (layer.reshape(side, side, -1) for layer in layers)
        solid = _block_mean((depth > 0).astype(np.float64), supersampling)
        return (
            np.rint(_block_mean(colour, supersampling) * 255).astype(np.uint8).transpose(2, 0, 1),
            np.rint(_block_mean(hit, supersampling)[..., 0] * 255).astype(np.uint8),
            (_block_mean(depth, supersampling) / np.maximum(solid, 1e-9))[..., 0].astype(np.float32),
        )

    views = map(seen, np.asarray(rig.world_to_camera, dtype=np.float64))
    images, mask, depth = (np.stack(parts) for parts in zip(*views, strict=True))
    count = len(images)
    return Frames(
        images=images,
        world_to_camera=np.asarray(rig.world_to_camera, dtype=np.float32),
        focal=np.full((count, 2), rig.focal, dtype=np.float32),
        principal=np.full((count, 2), rig.size / 2, dtype=np.float32),
        mask=mask,
        depth=depth,
    )


def face_normals(mesh: Mesh) -> np.ndarray:
    """Unit normals (M, 3), by the right hand along each face's corners; zero for a face without area."""
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)


def _light(normals: np.ndarray, directions: np.ndarray, ambient: float) -> np.ndarray:
    """Brightness (P,) of surfaces with `normals` (P, 3) met by rays along `directions` (P, 3)."""
    # The orientation of faces differs between meshes, so the visible side is lit.
    seen = np.where((normals * directions).sum(axis=1) > 0, -1.0, 1.0)
    return ambient + (1 - ambient) * (0.5 + 0.5 * seen * (normals @ LIGHT))


def _camera_rays(rig: Rig, supersampling: int) -> np.ndarray:
    """Rays (R, 3) in the camera's frame, with z = 1: the distance along such a ray is camera z."""
    steps = (np.arange(rig.size * supersampling) + 0.5) / supersampling - rig.size / 2
    x, y = np.meshgrid(steps / rig.focal, steps / rig.focal)
    return np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1)


def _picture(
    scene: EmbreeScene,
    shade: Callable[[Hits, np.ndarray], np.ndarray],
    opacity: Opacity | None,
    world_to_camera: np.ndarray,
    rays: np.ndarray,
    background: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour (R, 3), opacity along each ray (R,) in [0, 1], and camera z (R,), 0 for rays without a hit."""
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    centre, directions = -rotation.T @ translation, rays @ rotation
    if opacity is not None:
        return _through_layers(scene, shade, opacity, centre, directions, background)
    hit, z, hits = _nearest(scene, centre, directions, np.zeros(len(rays)))
    colour = np.tile(background, (len(rays), 1))
    colour[hit] = shade(hits, directions[hit])
    depth = np.zeros(len(rays))
    depth[hit] = z
    return colour, hit.astype(np.float64), depth


def _nearest(
    scene: EmbreeScene, centre: np.ndarray, directions: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Hits]:
    """Rays (R, 3) from `centre` that hit a surface behind their `start` (R,), the hits' camera z, and the hits."""
    origins = (centre + start[:, None] * directions).astype(np.float32)
    found = scene.run(origins, directions.astype(np.float32), output=1)
    hit = found["primID"] >= 0
    z, u, v = (found[name][hit].astype(np.float64) for name in ("tfar", "u", "v"))
    z = z + start[hit]
    points = centre + z[:, None] * directions[hit]
    return hit, z, Hits(points, found["primID"][hit], np.stack([1 - u - v, u, v], axis=1))


def _through_layers(
    scene: EmbreeScene,
    shade: Callable[[Hits, np.ndarray], np.ndarray],
    opacity: Opacity,
    centre: np.ndarray,
    directions: np.ndarray,
    background: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Like `_picture`, composited from front to back through surfaces that are not opaque."""
    colour, depth = np.zeros(directions.shape), np.zeros(len(directions))
    light, start = np.ones(len(directions)), np.zeros(len(directions))
    rays = np.arange(len(directions))
    for _ in range(MAX_LAYERS):
        hit, z, hits = _nearest(scene, centre, directions[rays], start[rays])
        rays = rays[hit]
        if not len(rays):
            break
        hidden = opacity(hits)
        colour[rays] += (light[rays] * hidden)[:, None] * shade(hits, directions[rays])
        light[rays] *= 1 - hidden
        first = rays[(depth[rays] == 0) & (light[rays] <= 0.5)]
        reached = np.zeros(len(directions))
        reached[rays] = z
        depth[first] = reached[first]
        start[rays] = z * (1 + LAYER_STEP)
        rays = rays[light[rays] > LEAST_LIGHT]
    colour += light[:, None] * background
    return colour, 1 - light, depth


def _block_mean(picture: np.ndarray, factor: int) -> np.ndarray:
    """Means over blocks of factor x factor pixels: (H, W, C) -> (H/factor, W/factor, C)."""
    height, width, channels = picture.shape
    return picture.reshape(height // factor, factor, width // factor, factor, channels).mean(axis=(1, 3))
