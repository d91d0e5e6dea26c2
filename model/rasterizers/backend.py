"""Capabilities that every backend declares, and calls whose checks the host does later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Capabilities:
    """Features of one backend, and the installed generation of its package."""

    #: kinds of device whose tensors it accepts: "cpu", "cuda"
    devices: tuple[str, ...]
    #: whether a CUDA graph may contain its calls: nothing is read back to the host within `deferred_checks`
    capturable: bool = False
    antialiasing: bool = True
    inverse_depth: bool = True
    #: generation of its package, e.g. "1.5.3"; "" for code of this project
    generation: str = ""

    def lacks(self, antialiasing: bool, inverse_depth: bool) -> tuple[str, ...]:
        """The requested features that it does not support, in words."""
        wishes = {"antialiasing": antialiasing, "inverse depth": inverse_depth}
        can = {"antialiasing": self.antialiasing, "inverse depth": self.inverse_depth}
        return tuple(name for name, wished in wishes.items() if wished and not can[name])

    def __str__(self) -> str:
        lacking = self.lacks(antialiasing=True, inverse_depth=True)
        without = f"without {' and '.join(lacking)}" if lacking else ""
        return ", ".join(filter(None, (self.generation, without)))


@dataclass(frozen=True)
class Check:
    """The check of one call, which the host has not done yet."""

    #: bool () on the device: the call lacked room, and its result is incomplete
    lacked_room: Tensor
    #: makes room for calls of this shape, from values on the device; to be called where room was lacking
    make_room: Callable[[], None]


_deferred: list[list[Check]] = []


@contextmanager
def deferred_checks() -> Iterator[list[Check]]:
    """Calls in the body that may lack room add their check to the list instead of waiting for the device."""
    checks: list[Check] = []
    _deferred.append(checks)
    try:
        yield checks
    finally:
        _deferred.pop()


def where_room_sufficed(counts: Tensor) -> Tensor:
    """`counts`, bool (), and false where a call within `deferred_checks` lacked room."""
    checks = deferred()
    return counts & ~torch.stack([check.lacked_room for check in checks]).any() if checks else counts


def deferred() -> list[Check] | None:
    """The list of the innermost `deferred_checks`; None outside of it."""
    return _deferred[-1] if _deferred else None
