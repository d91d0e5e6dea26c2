"""The interface of executors.  The schema of sweep files imports it, so it imports neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from model.options import Section

if TYPE_CHECKING:  # bring torch, which takes seconds
    from sweep.run.executors.queue import TrialQueue
    from sweep.run.executors.run_guarded import TrialFunction


def _check_gpus(number: float) -> float:
    if number and not 0.01 <= number <= 1:
        raise PydanticCustomError("gpus", "must be 0 or a share from 0.01 to 1, since a trial trains on one GPU")
    return number


class ExecutorOptions(Section):
    """Options of execution.  They do not affect results, so they are not part of trials' keys.

    An executor's own options are a subclass.  A sweep file may have the options of all executors, since the command
    line may choose any of them.  An option that two executors share therefore has one type.
    """

    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    #: 0, or the share of one GPU that a trial reserves
    gpus_per_trial: Annotated[
        float, Field(allow_inf_nan=False, json_schema_extra={"minimum": 0, "maximum": 1}), AfterValidator(_check_gpus)
    ] = 0.0
    #: whether to train through torch.compile or CUDA graphs: where it is faster, never, or always compiled
    compile: Literal["auto", "never", "always"] = "auto"
    #: iterations between two lines of the journal
    log_every: Annotated[int, Field(ge=1)] = 50
    #: iterations between two checkpoints
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    #: whether finished trainings keep their last checkpoint with the optimiser's state.  A training with more
    #: iterations of a stage needs it to continue them, and with `train.keep: best` so does one with an appended stage.
    #: It takes three to five times the space of the weights, and `splatsweep clean optimisers` removes it.
    keep_optimizer: bool = False
    #: the order of trials: the first seed of every row, then the second, which gives early results for all rows; or all
    #: seeds of a row before the next row
    order: Literal["seeds-first", "rows-first"] = "seeds-first"


class Notices(Protocol):
    """Receives an executor's messages to the user; its methods are thread-safe."""

    def say(self, text: str) -> None:
        """Prints a permanent line about an event."""
        ...

    def wait_for(self, what: str | None) -> None:
        """Sets why no trial can start, or None; the reason is repeated every half minute until it changes."""
        ...


@dataclass(frozen=True)
class Assignment:
    """The work of an executor."""

    queue: TrialQueue
    #: absolute
    home: Path
    #: once it exists, running trials write a checkpoint at once and stop, and no other starts
    stop_file: Path
    #: `run_trial`, or its replacement in tests of the executors
    work: TrialFunction
    notices: Notices
    #: whether a failing trial stops the others, which write a checkpoint at once
    fail_fast: bool = False
    #: called before the first trial, once it is known that trials can run
    begin: Callable[[], None] = lambda: None


class Executor(Protocol):
    """A way to run trials.

    Instances have no state.  Each trial's folder records how the trial ended.
    """

    #: a subclass of `ExecutorOptions`
    Options: type[Any]

    @staticmethod
    def at_once(options: ExecutorOptions, /) -> int:
        """The number of trials that this machine runs at the same time."""
        ...

    @staticmethod
    def check() -> None:
        """Raises where the executor cannot work at all; called before planning, and takes seconds at most."""
        ...

    @staticmethod
    def run(assignment: Assignment, options: ExecutorOptions, /) -> None:
        """Runs every trial of the queue, unless the stop file appears, and reports the end of each to the queue.

        Raises ValueError where the options request resources that no trial can ever get.
        """
        ...


def unused_gpus(count: float, options: ExecutorOptions, share: float) -> str | None:
    """A hint where GPUs are present and no trial uses one; share: the GPU share per trial to suggest."""
    if options.gpus_per_trial or count < 1:
        return None
    found = "a GPU" if count == 1 else f"{count:g} GPUs"
    return f"There is {found} here that no trial requests; to use it: --set run.gpus_per_trial={share:g}"
