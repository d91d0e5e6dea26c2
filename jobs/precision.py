"""Precision of a training's products on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from model.precision import tf32
from results.records.arithmetic import Precision


@contextmanager
def products(precision: Precision) -> Iterator[None]:
    """Enables TF32 for float32 products in the body, except for the precision float32."""
    with tf32(precision != "float32"):
        yield
