from __future__ import annotations

import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import torch
from torch import Tensor

from jobs.drawn_ahead import DrawnAhead

CPU, CUDA = torch.device("cpu"), torch.device("cuda:1")


def test_inputs_on_a_cpu_are_drawn_when_they_are_taken():
    drawn: list[int] = []
    inputs = DrawnAhead(lambda i: drawn.append(i) or i, CPU, end=3)
    taken = []
    for iteration in (0, 1, 2):
        taken.append(inputs.take(iteration))
        inputs.prepare(iteration + 1)
    assert taken == drawn == [0, 1, 2]


def test_inputs_on_a_gpu_are_drawn_one_ahead(monkeypatch):
    """Tested with replacements for streams; the GPU need not be the first.  Unexpected inputs are drawn at once."""
    waits: list[tuple[str, object]] = []
    side = SimpleNamespace(wait_stream=lambda other: waits.append(("side", other)))
    stream = SimpleNamespace(wait_stream=lambda other: waits.append(("main", other)))
    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: stream if device == CUDA else None)
    monkeypatch.setattr(torch.cuda, "stream", lambda _stream: nullcontext())
    recorded: list[object] = []
    monkeypatch.setattr(Tensor, "record_stream", lambda _self, at: recorded.append(at))
    drawn: list[int] = []

    def draw(iteration: int) -> Tensor:
        drawn.append(iteration)
        return torch.tensor(10 + iteration)

    inputs, taken = DrawnAhead(draw, CUDA, end=7), []
    for iteration in (0, 1, 5, 6):
        batch = inputs.take(iteration)
        taken.append(int(batch))
        kept = weakref.ref(batch)
        del batch
        assert kept() is None, "its memory is for the step"
        inputs.prepare(iteration + 1)
    assert taken == [10, 11, 15, 16]
    assert drawn == [0, 1, 2, 5, 6]
    assert waits == [("side", stream)] + [("main", side)] * 4
    assert recorded == [stream] * 4
