"""Capabilities that every backend declares."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capabilities:
    """Features of one backend, and the installed generation of its package."""

    #: kinds of device whose tensors it accepts: "cpu", "cuda"
    devices: tuple[str, ...]
    #: whether one call of it draws all scenes and views
    batched: bool
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
