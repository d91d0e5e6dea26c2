"""Materials of the procedural chairs: colours as functions of the point in space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Points (P, 3) -> (P, 3) colours in [0, 1].
Material = Callable[[np.ndarray], np.ndarray]


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    sector = (hue * 6 + np.array([0, 4, 2])) % 6
    return value * (1 - saturation * (1 - np.clip(np.abs(sector - 3) - 1, 0, 1)))


def _two_colours(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return first + (second - first) * share[:, None]


def _smooth_noise(generator: np.random.Generator, frequency: float) -> Callable[[np.ndarray], np.ndarray]:
    """A sum of plane waves in random directions: points (P, 3) -> (P,), about within [0, 1]."""
    waves = generator.normal(size=(3, 6)) * frequency
    phases = generator.uniform(0, 2 * np.pi, 6)
    return lambda points: np.clip(0.5 + np.sin(points @ waves + phases).sum(axis=1) / 6, 0, 1)


def _draw_material(generator: np.random.Generator, colours: tuple[np.ndarray, np.ndarray], fine: bool) -> Material:
    first, second = colours
    cells = generator.uniform(14, 20) if fine else generator.uniform(3.5, 7)  # per unit of length
    axis, offset = generator.normal(size=3), generator.uniform(0, 1, 3)
    axis = axis / np.linalg.norm(axis)
    noise = _smooth_noise(generator, 30.0 if fine else 6.0)

    def mottled(points: np.ndarray) -> np.ndarray:
        return _two_colours(first, second, noise(points) * (1.0 if fine else 0.35))

    def stripes(points: np.ndarray) -> np.ndarray:
        return _two_colours(first, second, np.floor(points @ axis * cells + offset[0]) % 2)

    def checker(points: np.ndarray) -> np.ndarray:
        return _two_colours(first, second, np.floor(points * cells + offset).sum(axis=1) % 2)

    kinds, shares = [mottled, stripes, checker], [0.2, 0.4, 0.4] if fine else [0.6, 0.25, 0.15]
    return kinds[generator.choice(3, p=shares)]


def draw_materials(generator: np.random.Generator) -> tuple[Material, Material]:
    """Draws the materials of seat and back, and of the frame."""
    hue = generator.uniform()
    main = _hsv(hue, generator.uniform(0.55, 0.95), generator.uniform(0.6, 0.95))
    partner = _hsv(
        hue + generator.choice([0.0, 0.08, 0.33, 0.5]),
        generator.uniform(0.1, 0.7),
        generator.uniform(0.25, 1.0),
    )
    frames = [
        _hsv(generator.uniform(0.05, 0.1), generator.uniform(0.45, 0.7), generator.uniform(0.3, 0.75)),  # wood
        np.full(3, generator.uniform(0.08, 0.2)),  # black
        _hsv(0.6, 0.06, generator.uniform(0.5, 0.7)),  # metal
        _hsv(generator.uniform(), 0.8, generator.uniform(0.5, 0.85)),  # painted
    ]
    frame = frames[generator.choice(4, p=[0.45, 0.2, 0.15, 0.2])]
    seat = _draw_material(generator, (main, partner), fine=bool(generator.uniform() < 0.2))
    grain = _smooth_noise(generator, 8.0)
    return seat, lambda points: _two_colours(frame, 0.6 * frame, grain(points) * 0.5)
