"""Meshes with colours of their own: textures, colours of vertices, or one colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from jobs.data.meshes.ray_tracing import Hits, Mesh


@dataclass(frozen=True)
class Part:
    """A mesh with one texture."""

    mesh: Mesh
    picture: np.ndarray  # (h, w, 3) in [0, 1]; 1 x 1 where it has one colour
    texture_coordinates: np.ndarray  # (N, 2) of each vertex, wrapped around; v runs downwards
    vertex_colours: np.ndarray | None = None  # (N, 3) in [0, 1]; multiply the picture
    #: whether texture and vertex colours are linear light; their product is converted to sRGB
    is_linear: bool = False
    opacity: np.ndarray | None = None  # (h, w) in [0, 1], as the picture; None: opaque
    vertex_opacity: np.ndarray | None = None  # (N,) in [0, 1]; multiplies it
    #: opacity below which the surface is transparent and above which it is opaque; None: it blends
    cutoff: float | None = None
    #: features of the file that are not rendered as expected
    notes: tuple[str, ...] = ()

    @property
    def is_opaque(self) -> bool:
        """Whether nothing shows through."""
        return self.opacity is None and self.vertex_opacity is None

    @property
    def is_visible(self) -> bool:
        """Whether any of it can be seen."""
        highest = float(_largest(self.opacity) * _largest(self.vertex_opacity))
        return highest > 0 and (self.cutoff is None or highest >= self.cutoff)


@dataclass(frozen=True)
class TexturedMesh:
    """Parts joined into one mesh: everything that rendering needs."""

    mesh: Mesh
    face_part: np.ndarray  # (M,) which part a face belongs to
    texture_coordinates: np.ndarray  # (N, 2)
    vertex_colours: np.ndarray | None  # (N, 3)
    vertex_opacity: np.ndarray | None  # (N,)
    parts: tuple[Part, ...]

    @classmethod
    def join(cls, parts: Sequence[Part]) -> TexturedMesh:
        starts = np.cumsum([0, *(len(part.mesh.vertices) for part in parts)])
        faces = [part.mesh.faces + start for part, start in zip(parts, starts, strict=False)]
        return cls(
            mesh=Mesh(np.concatenate([part.mesh.vertices for part in parts]), np.concatenate(faces)),
            face_part=np.repeat(np.arange(len(parts)), [len(part) for part in faces]),
            texture_coordinates=np.concatenate([part.texture_coordinates for part in parts]),
            vertex_colours=_joined([part.vertex_colours for part in parts], parts, width=3),
            vertex_opacity=_joined([part.vertex_opacity for part in parts], parts, width=None),
            parts=tuple(parts),
        )

    @property
    def is_opaque(self) -> bool:
        """Whether nothing shows through, anywhere."""
        return all(part.is_opaque for part in self.parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """Features of the file that are not rendered as expected, without duplicates."""
        return tuple(dict.fromkeys(note for part in self.parts for note in part.notes))

    def colour(self, hits: Hits) -> np.ndarray:
        """Colours (P, 3) at `hits`: a `jobs.data.meshes.ray_tracing.Shader`."""
        corners = self.mesh.faces[hits.faces]
        coordinates = self._coordinates(hits, corners)
        colours = np.empty((len(hits.faces), 3))
        owners = self.face_part[hits.faces]
        for index, part in enumerate(self.parts):
            here = owners == index
            colours[here] = _texels(part.picture, coordinates[here])
        if self.vertex_colours is not None:
            colours *= _between(self.vertex_colours[corners], hits)
        for index, part in enumerate(self.parts):
            if part.is_linear:
                here = owners == index
                colours[here] = srgb_of_linear(colours[here])
        return colours

    def opacity(self, hits: Hits) -> np.ndarray:
        """Opacities (P,) in [0, 1] at `hits`."""
        corners = self.mesh.faces[hits.faces]
        coordinates = self._coordinates(hits, corners)
        opacities = np.ones(len(hits.faces))
        owners = self.face_part[hits.faces]
        for index, part in enumerate(self.parts):
            if part.opacity is not None:
                here = owners == index
                opacities[here] = _texels(part.opacity, coordinates[here])
        if self.vertex_opacity is not None:
            opacities *= _between(self.vertex_opacity[corners][..., None], hits)[:, 0]
        for index, part in enumerate(self.parts):
            if part.cutoff is not None:
                here = owners == index
                opacities[here] = opacities[here] >= part.cutoff
        return opacities

    def _coordinates(self, hits: Hits, corners: np.ndarray) -> np.ndarray:
        """Texture coordinates (P, 2) in [0, 1] at hits, relative to the repetition that the face lies in."""
        of_corners = self.texture_coordinates[corners]
        middle = of_corners.mean(axis=1)
        # An integer is the edge of two repetitions: 0 begins the first, 1 ends it, and so on.
        repetition = np.where(middle > 0, np.ceil(middle) - 1, np.floor(middle))
        inside = _between(of_corners, hits) - repetition
        return np.where((inside >= 0) & (inside <= 1), inside, inside % 1.0)


def srgb_of_linear(light: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] as sRGB in [0, 1] (IEC 61966-2-1)."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def linear_of_srgb(values: np.ndarray) -> np.ndarray:
    """The inverse."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def shrunk(picture: Image.Image, max_side: int) -> Image.Image:
    """A texture of at most `max_side` pixels a side, since detail finer than a pixel would flicker between views."""
    if max(picture.size) <= max_side:
        return picture
    shrink = max_side / max(picture.size)
    size = (max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink)))
    return picture.resize(size, Image.Resampling.BOX)


def _between(corners: np.ndarray, hits: Hits) -> np.ndarray:
    """Values (P, C) at hits, interpolated from their faces' corners (P, 3, C)."""
    return (hits.barycentric[:, :, None] * corners).sum(axis=1)


def _texels(picture: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Values (P, ...) of a picture (h, w, ...) at `coordinates` (P, 2) in [0, 1]."""
    height, width = picture.shape[:2]
    column = np.minimum((coordinates[:, 0] * width).astype(np.int64), width - 1)
    row = np.minimum((coordinates[:, 1] * height).astype(np.int64), height - 1)
    return np.asarray(picture[row, column])


def _joined(values: Sequence[np.ndarray | None], parts: Sequence[Part], width: int | None) -> np.ndarray | None:
    """Values of all parts' vertices, 1 where a part has none; None where no part has any."""
    if all(value is None for value in values):
        return None
    shapes = [(len(part.mesh.vertices), *([] if width is None else [width])) for part in parts]
    return np.concatenate(
        [np.ones(shape) if value is None else value for value, shape in zip(values, shapes, strict=True)]
    )


def _largest(values: np.ndarray | None) -> float:
    return 1.0 if values is None else float(values.max())
