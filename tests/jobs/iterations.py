"""Counts the iterations of a training, or ends it in one of them, by the batches that it draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import jobs.training


class Killed(BaseException):
    """Simulates a process that dies without any message."""


def counted_iterations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets every trained iteration, in order."""
    counted: list[int] = []
    draw = jobs.training.draw_batch

    def counting(store, objects, config, iteration, device):
        counted.append(iteration)
        return draw(store, objects, config, iteration, device)

    monkeypatch.setattr(jobs.training, "draw_batch", counting)
    return counted


@contextmanager
def killed_at(iteration: int) -> Iterator[None]:
    """Within, a training dies when it draws the batch of an iteration; asserts that one does."""
    draw = jobs.training.draw_batch

    def draw_or_die(store, objects, config, current, device):
        if current == iteration:
            raise Killed
        return draw(store, objects, config, current, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.training, "draw_batch", draw_or_die)
        with pytest.raises(Killed):
            yield
