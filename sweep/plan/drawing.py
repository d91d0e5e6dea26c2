"""The installed rasterisers, and the trials of a sweep that none of them can draw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from jobs.config import TrialConfig
from model.rasterizers import BACKENDS, capabilities, cuda_backends, why_not
from model.rasterizers.packages import BackendUnavailableError
from sweep.file.schema import RunOptions

#: The most names that a message lists before it counts the rest.
_LISTED = 4


@dataclass(frozen=True)
class Undrawable:
    """Trials that the installed rasterisers cannot draw, for one reason."""

    names: tuple[str, ...]
    #: the reason, with its remedy
    reason: str

    def __str__(self) -> str:
        more = len(self.names) - _LISTED
        listed = ", ".join(self.names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
        return f"{listed}: {self.reason}"


def undrawable(named: Iterable[tuple[str, TrialConfig]], options: RunOptions) -> tuple[Undrawable, ...]:
    """Trials that would fail at their first step because a rasteriser is missing, by reason.

    It checks the packages of this environment, but not for a GPU, since trials may run on other nodes with the same
    environment.
    """
    device = "cuda" if options.gpus_per_trial > 0 else "cpu"
    reason_of = cache(lambda backend, antialiasing: why_not(backend, device, antialiasing=antialiasing))
    names: dict[str, dict[str, None]] = {}
    for name, config in named:
        if config.method.scene == "gaussians":
            reason = reason_of(config.render.backend, config.render.antialiasing)
            if reason is not None:
                names.setdefault(reason, {})[name] = None
    return tuple(Undrawable(tuple(listed), reason) for reason, listed in names.items())


def refuse_undrawable(named: Iterable[tuple[str, TrialConfig]], options: RunOptions) -> None:
    """Raises ValueError where trials cannot be drawn, before anything trains."""
    found = undrawable(named, options)
    if found:
        listed = "".join(f"\n  {item}" for item in found)
        raise ValueError(
            f"some trials cannot be drawn with what is installed here:{listed}\nor choose others with --only"
        )


def installed() -> dict[str, str]:
    """Backend -> the installed generation of its package, or "" for our own; absent backends are left out."""
    found = {}
    for name in BACKENDS:
        try:
            found[name] = str(capabilities(name))
        except BackendUnavailableError:
            continue
    return found


def drawing_lines(found: Iterable[Undrawable], options: RunOptions) -> list[str]:
    """Text lines: the installed rasterisers, the choice of `auto` on a GPU, and trials that cannot be drawn."""
    here = installed()
    absent = [name for name in BACKENDS if name not in here]
    line = f"rasterisers: {', '.join(f'{name} {text}'.strip() for name, text in here.items())}"
    line += f"; not installed: {', '.join(absent)}" if absent else ""
    if options.gpus_per_trial > 0:
        chosen = next((name for name in cuda_backends() if why_not(name, "cuda") is None), None)
        line += f"; auto is {chosen} on a GPU" if chosen else ""
    return [line, *(f"cannot be drawn here: {item}" for item in found)]


def drawing_as_json(found: Iterable[Undrawable]) -> dict[str, Any]:
    """The installed rasterisers and the trials that cannot be drawn, as plain values."""
    return {"installed": installed(), "cannot_draw": [asdict(item) for item in found]}
