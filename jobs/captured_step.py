"""A training step as one CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch

from jobs.device import seed_dropout
from jobs.execution import ExecutionError
from model.native.tracing import rebuild, signature, tensors_of
from model.rasterizers.backend import Check, deferred_checks

log = logging.getLogger(__name__)

Inputs = TypeVar("Inputs")
Outcome = TypeVar("Outcome")


class CapturedStep(Generic[Inputs, Outcome]):
    """A training step as one CUDA graph, captured anew for each signature of its inputs.

    The first steps of a signature run as written, so that libraries choose their algorithms; the last of these runs
    without waiting for the device.  Where that fails, steps stay as written, and a warning says so once.  Capturing
    runs nothing, and replays read all inputs from the tensors that were captured.  Dropout stays a function of the seed
    that is set before a call: replays read the generator's state from the device.

    Where a call of the rasteriser may lack room, the host looks after each step; a step that lacked it changes no
    weights, and is repeated with more.
    """

    #: steps of a signature that run as written
    WARM_UP = 3

    def __init__(self, step: Callable[[Inputs], Outcome], device: torch.device) -> None:
        """`step` changes tensors only in place, and updates weights only `where_room_sufficed`."""
        self._step, self._device = step, device
        self._stream = torch.cuda.Stream(device)
        self._signature: Hashable = None
        self._inputs: Inputs
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outcome: Outcome
        self._checks: list[Check] = []
        self._run, self._is_capturable = 0, True

    def __call__(self, inputs: Inputs) -> Outcome:
        if not self._is_capturable:
            return self._step(inputs)
        found = signature(inputs)
        if found != self._signature:
            self._signature, self._graph, self._run = found, None, 0
            self._inputs = rebuild(inputs, (torch.empty_like(tensor) for tensor in tensors_of(inputs)))
        torch._foreach_copy_(tensors_of(self._inputs), tensors_of(inputs))
        while True:
            self._checks = []
            if self._run < self.WARM_UP - 1:
                outcome = self._as_written()
            elif self._run < self.WARM_UP:
                outcome = self._rehearsed()
            else:
                outcome = self._replayed()
            self._run += 1
            lacking = [check for check in self._checks if check.lacked_room]  # the host waits where there are checks
            if not lacking:
                return outcome
            for check in lacking:
                check.make_room()
            self._graph, self._run = None, 0
            seed_dropout(torch.initial_seed(), self._device)

    def _as_written(self) -> Outcome:
        # On the stream of the capture: gradients are accumulated on the stream where a weight was first used.
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outcome = self._step(self._inputs)
        current.wait_stream(self._stream)
        return outcome

    def _rehearsed(self) -> Outcome:
        """Run as written, but fail where the host would wait, without which a capture could not be ended properly."""
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with deferred_checks() as self._checks:
                return self._as_written()
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            log.warning("steps are not captured as one CUDA graph, and run as written: %s", error)
            self._is_capturable = False
        finally:
            torch.cuda.set_sync_debug_mode(mode)
        self._checks = []
        seed_dropout(torch.initial_seed(), self._device)
        return self._as_written()

    def _replayed(self) -> Outcome:
        if self._graph is None:
            self._capture()
        assert self._graph is not None
        self._graph.replay()
        self._checks = self._captured_checks
        return self._outcome

    def _capture(self) -> None:
        state = torch.cuda.get_rng_state(self._device)
        graph = torch.cuda.CUDAGraph()
        try:
            with deferred_checks() as self._checks, torch.cuda.graph(graph, stream=self._stream):
                self._outcome = self._step(self._inputs)
        except RuntimeError as error:
            raise ExecutionError(f"the step cannot be captured; run.compile: never does without: {error}") from error
        self._captured_checks = self._checks
        torch.cuda.set_rng_state(state, self._device)
        self._graph = graph
