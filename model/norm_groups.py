"""Groups of the group normalisations that networks build with; imports no torch, so that plans can check widths."""

from __future__ import annotations

from collections.abc import Callable


def norm_groups(channels: int) -> int:
    """The number of groups of a norm of so many channels: at most 32, of at least four channels."""
    return min(32, channels // 4)


def has_groups(channels: int) -> bool:
    """Whether so many channels divide into their groups; multiples of 4 below 128, and of 32 from there, do."""
    return channels >= 4 and channels % norm_groups(channels) == 0


def nearest_fitting(value: int, fits: Callable[[int], bool], step: int = 4) -> str:
    """The multiples of `step` next to `value` that fit, for messages: "the nearest that fit are 120 and 128".

    Multiples of 8 * step fit.
    """
    start = value // step * step
    below = next((number for number in range(start, 0, -step) if fits(number)), None)
    above = next(number for number in range(start + step, start + 9 * step, step) if fits(number))
    return f"the nearest that fits is {above}" if below is None else f"the nearest that fit are {below} and {above}"
