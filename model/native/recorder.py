"""Records operators as the steps of one run, with the buffers that they read and write."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model.native.library import Layer, Step, StepKind

#: (B, C, H, W)
Shape4 = tuple[int, int, int, int]


@dataclass
class Buffer:
    """Memory of one tensor, and the steps between which it is needed."""

    #: size in float32; 0 for parameters and constants, whose memory is their tensor's
    numbers: int
    #: the step that writes it, and the last one that reads it
    written: int
    read: int
    #: whether the backward pass reads it
    kept: bool = False


class Recorder:
    """Records steps in order.  Buffers are numbered from 1; number 0 means none."""

    def __init__(self, shapes: Mapping[int, Shape4], inputs: Sequence[int]) -> None:
        """`shapes` of all values by number; `inputs` are the feature maps that exist before the first step."""
        self._shapes = shapes
        self.steps: list[Step] = []
        self.buffers = [Buffer(0, 0, 0)]
        #: buffers of feature maps, parameters and constants by the numbers of their values
        self.maps: dict[int, int] = {}
        self.parameters: dict[int, int] = {}
        self.constants: dict[int, int] = {}
        self.dropouts = 0
        for value in inputs:
            self.write(value)

    def shape(self, value: int) -> Shape4:
        """The shape of a feature map or constant."""
        return self._shapes[value]

    def read(self, value: int, *, kept: bool = False) -> int:
        """The buffer of a feature map that the next step reads; `kept` if its backward pass reads it too."""
        number = self.maps[value]
        buffer = self.buffers[number]
        buffer.read = len(self.steps)
        buffer.kept |= kept
        return number

    def write(self, value: int) -> int:
        """The buffer of a feature map that the next step writes."""
        self.maps[value] = self._buffer(math.prod(self._shapes[value]))
        return self.maps[value]

    def scratch(self, numbers: int) -> int:
        """A buffer that the next step writes for its own backward pass."""
        return self._buffer(numbers, kept=True)

    def parameter(self, value: int) -> int:
        """The buffer of a trained tensor; steps may share one."""
        return self._outside(self.parameters, value)

    def constant(self, value: int) -> int:
        """The buffer of a tensor without gradient."""
        return self._outside(self.constants, value)

    def dropout_key(self) -> int:
        """Index of the next step's key among the random keys of a run."""
        self.dropouts += 1
        return self.dropouts - 1

    def step(self, kind: StepKind, sizes: Layer, **numbers: int) -> None:
        """Append a step; `numbers` are its buffers by name."""
        self.steps.append(Step(kind=kind, layer=sizes, **numbers))

    def _outside(self, known: dict[int, int], value: int) -> int:
        if value not in known:
            known[value] = self._buffer(0)
        return known[value]

    def _buffer(self, numbers: int, *, kept: bool = False) -> int:
        step = len(self.steps)
        self.buffers.append(Buffer(numbers, step, step, kept))
        return len(self.buffers) - 1
