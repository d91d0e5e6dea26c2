"""Meshes with colours of their own: textures, colours of vertices, or one colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from jobs.data.meshes.ray_tracing import Hits, Mesh


@dataclass(frozen=True)
class Part:
    """A mesh with one picture on it."""

    mesh: Mesh
    picture: np.ndarray  # (h, w, 3) in [0, 1]; 1 x 1 where it has one colour
    texture_coordinates: np.ndarray  # (N, 2) of each vertex, wrapped around; v runs downwards
    vertex_colours: np.ndarray | None = None  # (N, 3) in [0, 1]; multiply the picture


@dataclass(frozen=True)
class PaintedMesh:
    """Parts joined into one mesh: everything that rendering needs."""

    mesh: Mesh
    face_part: np.ndarray  # (M,) which part a face belongs to
    texture_coordinates: np.ndarray  # (N, 2)
    pictures: list[np.ndarray]  # of each part
    vertex_colours: np.ndarray | None  # (N, 3)

    @classmethod
    def join(cls, parts: Sequence[Part]) -> PaintedMesh:
        starts = np.cumsum([0, *(len(part.mesh.vertices) for part in parts)])
        faces = [part.mesh.faces + start for part, start in zip(parts, starts, strict=False)]
        colours = None
        if any(part.vertex_colours is not None for part in parts):
            colours = np.concatenate([_colours(part) for part in parts])
        return cls(
            mesh=Mesh(np.concatenate([part.mesh.vertices for part in parts]), np.concatenate(faces)),
            face_part=np.repeat(np.arange(len(parts)), [len(part) for part in faces]),
            texture_coordinates=np.concatenate([part.texture_coordinates for part in parts]),
            pictures=[part.picture for part in parts],
            vertex_colours=colours,
        )

    def colour(self, hits: Hits) -> np.ndarray:
        """Colours (P, 3) at `hits`: a `jobs.data.meshes.ray_tracing.Shader`."""
        corners = self.mesh.faces[hits.faces]
        coordinates = _between(self.texture_coordinates[corners], hits) % 1.0
        colours = np.empty((len(hits.faces), 3))
        parts = self.face_part[hits.faces]
        for index, picture in enumerate(self.pictures):
            here = parts == index
            height, width = picture.shape[:2]
            column = np.minimum((coordinates[here, 0] * width).astype(np.int64), width - 1)
            row = np.minimum((coordinates[here, 1] * height).astype(np.int64), height - 1)
            colours[here] = picture[row, column]
        if self.vertex_colours is not None:
            colours *= _between(self.vertex_colours[corners], hits)
        return colours


def shrunk(picture: Image.Image, max_side: int) -> Image.Image:
    """A texture of at most `max_side` pixels a side: detail finer than a pixel would flicker from view to view."""
    if max(picture.size) <= max_side:
        return picture
    shrink = max_side / max(picture.size)
    size = (max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink)))
    return picture.resize(size, Image.Resampling.BOX)


def _between(corners: np.ndarray, hits: Hits) -> np.ndarray:
    """Values (P, C) at hits, from those of their faces' corners (P, 3, C)."""
    return (hits.barycentric[:, :, None] * corners).sum(axis=1)


def _colours(part: Part) -> np.ndarray:
    return np.ones((len(part.mesh.vertices), 3)) if part.vertex_colours is None else part.vertex_colours
