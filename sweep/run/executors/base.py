"""What an executor is.  Imported by the schema of sweep files, so neither torch nor Ray is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field

from model.options import Section

if TYPE_CHECKING:  # bring torch, which takes seconds
    from sweep.run.executors.queue import Source
    from sweep.run.executors.run_guarded import Work


class ExecutorOptions(Section):
    """How trials are executed.  Nothing here changes a number in a table, so nothing here is in a key.

    An executor's own options are a subclass.  A sweep file may have those of all executors, and an option that two
    of them share has one type, since either may be chosen on the command line.
    """

    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    gpus_per_trial: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    #: whether networks are trained through torch.compile or CUDA graphs: where it pays, never, or compiled always
    compile: Literal["auto", "never", "always"] = "auto"
    #: iterations between two lines of the journal
    log_every: Annotated[int, Field(ge=1)] = 50
    #: iterations between two checkpoints
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    #: which trials come first: the first seed of every row, then the second, so that a picture forms early; or all
    #: seeds of a row before the next row
    order: Literal["seeds-first", "rows-first"] = "seeds-first"


class Notices(Protocol):
    """Where an executor says what its user has to know; may be called from any thread."""

    def say(self, text: str) -> None:
        """Something that happened: a line that stays."""
        ...

    def wait_for(self, what: str | None) -> None:
        """What keeps trials from starting, until it is another or None; said again every half minute."""
        ...


@dataclass(frozen=True)
class Assignment:
    """What an executor is to run."""

    source: Source
    #: absolute
    home: Path
    #: once it exists, running trials stop behind a checkpoint, and no other starts
    stop_file: Path
    #: `run_trial`, or what stands in for it where the executors themselves are looked at
    work: Work
    notices: Notices
    #: whether a trial that fails stops the others behind a checkpoint
    fail_fast: bool = False


class Executor(Protocol):
    """A way to run trials.

    Instances have no state.  How each trial ended stands in the trial's folder.
    """

    #: a subclass of `ExecutorOptions`
    Options: type[Any]

    @staticmethod
    def at_once(options: ExecutorOptions, /) -> int:
        """How many trials this machine runs side by side."""
        ...

    @staticmethod
    def check() -> None:
        """Raise, within seconds and before anything is planned, where the executor cannot work at all."""
        ...

    @staticmethod
    def run(assignment: Assignment, options: ExecutorOptions, /) -> None:
        """Bring every trial of the source to an end, unless the stop file appears, and report each to the source.

        Raises ValueError where the options ask for what no trial can ever have.
        """
        ...


def unused_gpus(count: float, options: ExecutorOptions, share: float) -> str | None:
    """What to say where trials run beside GPUs that none of them uses; share: what to suggest for each."""
    if options.gpus_per_trial or count < 1:
        return None
    found = "a GPU" if count == 1 else f"{count:g} GPUs"
    return f"There is {found} here that no trial asks for; to use it: --set run.gpus_per_trial={share:g}"
