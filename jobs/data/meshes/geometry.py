"""Groups objects of equal shape, so that no shape is in two splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np


def group_shapes(sizes: Mapping[str, int | None], describe: Callable[[str], np.ndarray]) -> dict[str, str]:
    """The geometry of each named object: the name of the first one of equal shape.

    sizes: numbers of triangles; None is an unknown shape, which equals no other.
    describe: name -> the result of `describe_shape`, for objects that share their number of triangles with others; only
    those of one number are in memory at a time.
    """
    geometry = {name: name for name in sizes}
    by_size = defaultdict(list)
    for name, size in sizes.items():
        if size is not None:
            by_size[size].append(name)
    for names in by_size.values():
        known: list[tuple[str, np.ndarray]] = []
        for name in names if len(names) > 1 else ():
            shape = describe(name)
            equal = next((other for other, its in known if np.allclose(shape, its, atol=1e-3)), None)
            if equal is None:
                known.append((name, shape))
            else:
                geometry[name] = equal
    return geometry


def describe_shape(corners: np.ndarray) -> np.ndarray:
    """A description (3M, 3) of M triangles (M, 3, 3) without their position, size along each axis, and order.

    Each column holds the corners' coordinates along one axis, from 0 to 1, sorted.
    """
    points = corners.reshape(-1, 3)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.sort((points - low) / np.maximum(high - low, 1e-12), axis=0)


def split_geometries(geometries: Sequence[str], val: int, test: int, seed: int) -> dict[str, str]:
    """The split of each geometry, at random.  Raises ValueError where none is left to train on."""
    if val + test >= len(geometries):
        raise ValueError(
            f"val_geometries {val} and test_geometries {test} leave none of {len(geometries)} shapes "
            "to train on; meshes that differ in position and size only are one shape"
        )
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(geometries))
    splits = ["val"] * val + ["test"] * test + ["train"] * (len(geometries) - val - test)
    return {geometries[index]: split for index, split in zip(order, splits, strict=True)}
