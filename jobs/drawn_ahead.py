"""Inputs of training steps, drawn while the step before runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from model.native.tracing import tensors_of

Drawn = TypeVar("Drawn")


class DrawnAhead(Generic[Drawn]):
    """The inputs of steps by iteration.  On a GPU the next ones are copied and resampled during the current step."""

    def __init__(self, draw: Callable[[int], Drawn], device: torch.device, end: int) -> None:
        """`draw` returns the inputs of an iteration below `end`, with tensors on `device`."""
        self._draw, self._device, self._end = draw, device, end
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))  # which may still copy what `draw` reads
        self._ready: tuple[int, Drawn] | None = None

    def take(self, iteration: int) -> Drawn:
        """The inputs of an iteration."""
        if self._stream is None:
            return self._draw(iteration)
        if self._ready is None or self._ready[0] != iteration:
            self._ready = (iteration, self._drawn(iteration))
        _, inputs = self._ready
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for tensor in tensors_of(inputs):
            tensor.record_stream(current)
        self._ready = None
        return inputs

    def prepare(self, iteration: int) -> None:
        """Starts drawing the inputs of an iteration, once the current step is launched."""
        if self._stream is not None and iteration < self._end:
            self._ready = (iteration, self._drawn(iteration))

    def _drawn(self, iteration: int) -> Drawn:
        with torch.cuda.stream(self._stream):
            return self._draw(iteration)
