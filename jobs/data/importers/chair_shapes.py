"""The shapes of the procedural chairs: kinds of seats, legs, backs and arms, built from boxes and cylinders.

Chairs stand in one canonical orientation: z up, the front towards +x, the left side towards +y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jobs.data.meshes.cameras import centred
from jobs.data.meshes.ray_tracing import Mesh

#: Indices into a chair's materials.
MAIN, FRAME = 0, 1


@dataclass
class Builder:
    """Collects the solids of one chair, in units of about a seat's width."""

    vertices: list[np.ndarray] = field(default_factory=list)
    faces: list[np.ndarray] = field(default_factory=list)
    materials: list[np.ndarray] = field(default_factory=list)

    def box(self, centre: Any, size: Any, material: int) -> None:
        """A box along the axes, by its centre and side lengths."""
        centre, half = np.asarray(centre, dtype=float), np.asarray(size, dtype=float) / 2
        rise = np.array([0, 0, half[2]])
        self.beam(centre - rise, centre + rise, 2 * half[0], 2 * half[1], material)

    def beam(self, start: Any, end: Any, width: float, depth: float, material: int) -> None:
        """A rectangular bar between two points; `width` and `depth` are its sizes along the two vectors of `_frame`."""
        side, other = _frame(start, end)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
        ring = corners[:, :1] * width * side + corners[:, 1:] * depth * other
        self._prism(ring + start, ring + end, material)

    def cylinder(
        self, start: Any, end: Any, radius: float, material: int, *, taper: float = 1.0, segments: int = 20
    ) -> None:
        """A round bar between two points, `taper` times as thick at its end."""
        side, other = _frame(start, end)
        angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)[:, None]
        ring = radius * (np.cos(angles) * side + np.sin(angles) * other)
        self._prism(ring + start, taper * ring + end, material)

    def _prism(self, bottom: np.ndarray, top: np.ndarray, material: int) -> None:
        """The solid between two rings of n points: two triangles per side, and a fan of triangles for each end."""
        n = len(bottom)
        here, after = np.arange(n), (np.arange(n) + 1) % n
        sides = [np.stack([here, after, here + n], 1), np.stack([after, after + n, here + n], 1)]
        fan = np.stack([np.zeros(n - 2, int), here[1:-1], here[2:]], 1)
        faces = np.concatenate([*sides, fan[:, ::-1], fan + n])
        self.faces.append(faces + sum(map(len, self.vertices)))
        self.vertices.append(np.concatenate([bottom, top]))
        self.materials.append(np.full(len(faces), material))

    def mesh(self) -> tuple[Mesh, np.ndarray]:
        """The chair at the size of all rendered objects, and the material of each face (M,)."""
        mesh = Mesh(centred(np.concatenate(self.vertices)), np.concatenate(self.faces))
        return mesh, np.concatenate(self.materials)


def _frame(start: Any, end: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors across the line: the first towards x where it can be, the second towards y."""
    along = np.asarray(end, dtype=float) - start
    along = along / np.linalg.norm(along)
    reference = np.array([1.0, 0, 0]) if abs(along[0]) < 0.9 else np.array([0, 0, 1.0])
    side = reference - along * (reference @ along)
    side = side / np.linalg.norm(side)
    return side, np.cross(along, side)


@dataclass(frozen=True)
class Proportions:
    """Dimensions that all parts of a chair share; lengths in seat units."""

    width: float  # of the seat, along y
    depth: float  # of the seat, along x
    height: float  # of the seat's underside above the floor
    thickness: float  # of the seat
    back: float  # height of the back above the seat
    recline: float  # how far the back's top leans to the rear

    @classmethod
    def draw(cls, generator: np.random.Generator) -> Proportions:
        return cls(
            width=generator.uniform(0.85, 1.15),
            depth=generator.uniform(0.8, 1.05),
            height=generator.uniform(0.65, 0.95),
            thickness=generator.uniform(0.08, 0.2),
            back=generator.uniform(0.75, 1.25),
            recline=generator.uniform(0.02, 0.28),
        )

    @property
    def top(self) -> float:
        """Height of the seat's upper side."""
        return self.height + self.thickness


#: Adds one part to a chair.
Part = Callable[[Builder, Proportions, np.random.Generator], None]


def _seat_box(chair: Builder, p: Proportions, _: np.random.Generator) -> None:
    chair.box([0, 0, p.height + p.thickness / 2], [p.depth, p.width, p.thickness], MAIN)


def _seat_round(chair: Builder, p: Proportions, _: np.random.Generator) -> None:
    radius = 0.62 * max(p.width, p.depth)  # the legs stand under it, at the corners of width x depth
    chair.cylinder([0, 0, p.height], [0, 0, p.top], radius, MAIN, segments=40)


def _seat_cushion(chair: Builder, p: Proportions, _: np.random.Generator) -> None:
    board = 0.35 * p.thickness
    chair.box([0, 0, p.height + board / 2], [p.depth, p.width, board], FRAME)
    chair.box([0, 0, p.height + board + 0.09], [0.92 * p.depth, 0.92 * p.width, 0.18], MAIN)


def _corners(p: Proportions, inset: float) -> np.ndarray:
    """The seat's four corners (4, 2), moved inwards."""
    x, y = p.depth / 2 - inset, p.width / 2 - inset
    return np.array([[x, y], [x, -y], [-x, -y], [-x, y]])


def _legs_straight(chair: Builder, p: Proportions, generator: np.random.Generator) -> None:
    side = generator.uniform(0.09, 0.15)
    for x, y in _corners(p, side / 2 + 0.02):
        chair.beam([x, y, 0], [x, y, p.height], side, side, FRAME)


def _legs_splayed(chair: Builder, p: Proportions, generator: np.random.Generator) -> None:
    splay, radius = generator.uniform(1.15, 1.4), generator.uniform(0.05, 0.075)
    for x, y in _corners(p, 0.16):
        chair.cylinder([x, y, p.height], [splay * x, splay * y, 0], radius, FRAME, taper=0.6)


def _legs_stretcher(chair: Builder, p: Proportions, generator: np.random.Generator) -> None:
    side, rail = generator.uniform(0.08, 0.12), generator.uniform(0.2, 0.45) * p.height
    corners = _corners(p, side / 2 + 0.02)
    for (x, y), (next_x, next_y) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        chair.beam([x, y, 0], [x, y, p.height], side, side, FRAME)
        chair.beam([x, y, rail], [next_x, next_y, rail], 0.7 * side, 0.7 * side, FRAME)


def _legs_sled(chair: Builder, p: Proportions, generator: np.random.Generator) -> None:
    radius = generator.uniform(0.045, 0.065)
    x, y = p.depth / 2 - 0.08, p.width / 2 - 0.08
    for side in (y, -y):
        chair.cylinder([x, side, 0], [x, side, p.height], radius, FRAME)
        chair.cylinder([-x, side, 0], [-x, side, p.height], radius, FRAME)
        chair.cylinder([-x - radius, side, 0], [x + radius, side, 0], radius, FRAME)


def _legs_pedestal(chair: Builder, p: Proportions, generator: np.random.Generator) -> None:
    radius, feet = generator.uniform(0.06, 0.1), int(generator.integers(4, 6))
    chair.cylinder([0, 0, 0.08], [0, 0, p.height], radius, FRAME)
    for angle in 2 * np.pi * np.arange(feet) / feet:
        tip = 0.5 * np.array([np.cos(angle), np.sin(angle), 0])
        chair.cylinder([0, 0, 0.16], [*tip[:2], 0.05], 0.065, FRAME, taper=0.7)


def _legs_slabs(chair: Builder, p: Proportions, generator: np.random.Generator) -> None:
    slab = generator.uniform(0.08, 0.14)
    for y in (p.width / 2 - slab / 2, slab / 2 - p.width / 2):
        chair.box([0, y, p.height / 2], [0.92 * p.depth, slab, p.height], FRAME)


def _back_points(p: Proportions, y: float, low: float = 0.0, high: float = 1.0) -> tuple[list[float], list[float]]:
    """The ends of a bar in the plane of the back, between two heights as fractions of the back's height."""
    foot = -p.depth / 2 + 0.06
    ends = [[foot - share * p.recline, y, p.top - 0.03 + share * p.back] for share in (low, high)]
    return ends[0], ends[1]


def _back_panel(chair: Builder, p: Proportions, generator: np.random.Generator) -> None:
    thickness = generator.uniform(0.08, 0.16)
    chair.beam(*_back_points(p, 0), thickness, p.width, MAIN)


def _posts(chair: Builder, p: Proportions) -> float:
    """Adds the two uprights of a back; returns the y of the left one."""
    side = 0.1
    y = p.width / 2 - side / 2
    for end in (y, -y):
        chair.beam(*_back_points(p, end), side, side, FRAME)
    return y


def _back_upper_panel(chair: Builder, p: Proportions, generator: np.random.Generator) -> None:
    _posts(chair, p)
    low = generator.uniform(0.3, 0.5)
    chair.beam(*_back_points(p, 0, low, generator.uniform(0.92, 1.02)), 0.09, p.width + 0.02, MAIN)


def _back_slats(chair: Builder, p: Proportions, generator: np.random.Generator) -> None:
    y = _posts(chair, p)
    for position in np.linspace(-y, y, int(generator.integers(3, 6)) + 2)[1:-1]:
        chair.beam(*_back_points(p, position, 0, 0.9), 0.06, 0.09, FRAME)
    chair.beam(*_back_points(p, 0, 0.84, 1.02), 0.11, p.width + 0.02, MAIN)


def _back_ladder(chair: Builder, p: Proportions, generator: np.random.Generator) -> None:
    _posts(chair, p)
    rungs = int(generator.integers(2, 5))
    for low in np.linspace(0.2, 0.84, rungs):
        chair.beam(*_back_points(p, 0, low, low + 0.36 / rungs), 0.08, p.width, MAIN)


def _back_round(chair: Builder, p: Proportions, generator: np.random.Generator) -> None:
    radius = 0.5 * min(p.width, p.back) * generator.uniform(0.95, 1.1)
    (x, _, z), _ = _back_points(p, 0, 0.55, 1)
    lean = np.array([-1.0, 0, -p.recline / p.back]) * 0.06
    middle = np.array([x, 0, z])
    chair.cylinder(middle - lean, middle + lean, radius, MAIN, segments=40)
    for y in (0.2 * p.width, -0.2 * p.width):
        chair.beam(*_back_points(p, y, 0, 0.5), 0.08, 0.08, FRAME)


def _arms_none(_: Builder, __: Proportions, ___: np.random.Generator) -> None:
    pass


def _arms_rest(chair: Builder, p: Proportions, generator: np.random.Generator) -> None:
    height = p.top + generator.uniform(0.32, 0.45)
    for y in (p.width / 2 + 0.03, -p.width / 2 - 0.03):
        chair.box([0.35 * p.depth, y, (p.height + height) / 2], [0.09, 0.09, height - p.height], FRAME)
        chair.box([-0.02, y, height], [p.depth, 0.14, 0.08], FRAME)


def _arms_panel(chair: Builder, p: Proportions, generator: np.random.Generator) -> None:
    height, thickness = p.top + generator.uniform(0.25, 0.45), generator.uniform(0.12, 0.2)
    for y in (p.width / 2 + thickness / 2, -p.width / 2 - thickness / 2):
        chair.box([0, y, (p.height + height) / 2], [p.depth, thickness, height - p.height], MAIN)


#: Kinds of each part, with their probabilities.
SEATS: dict[Part, float] = {_seat_box: 0.5, _seat_cushion: 0.3, _seat_round: 0.2}
LEGS: dict[Part, float] = {
    _legs_straight: 0.25,
    _legs_splayed: 0.25,
    _legs_stretcher: 0.15,
    _legs_sled: 0.12,
    _legs_pedestal: 0.13,
    _legs_slabs: 0.1,
}
BACKS: dict[Part, float] = {
    _back_panel: 0.3,
    _back_upper_panel: 0.2,
    _back_slats: 0.2,
    _back_ladder: 0.15,
    _back_round: 0.15,
}
ARMS: dict[Part, float] = {_arms_none: 0.55, _arms_rest: 0.25, _arms_panel: 0.2}


def draw_shape(generator: np.random.Generator) -> tuple[Mesh, np.ndarray]:
    """A random chair, and the material of each of its faces (M,): MAIN or FRAME."""
    builder, proportions = Builder(), Proportions.draw(generator)
    for kinds in (SEATS, LEGS, BACKS, ARMS):
        part = list(kinds)[generator.choice(len(kinds), p=list(kinds.values()))]
        part(builder, proportions, generator)
    return builder.mesh()
