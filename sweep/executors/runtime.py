"""From the sweep's `run` section to what a trial is told."""

from __future__ import annotations

from jobs.trial import Runtime
from sweep.spec import RunOptions


def runtime_of(options: RunOptions) -> Runtime:
    """The same for every executor, so that results are the same to the last bit."""
    return Runtime(
        threads=options.cpus_per_trial,
        device="cuda" if options.gpus_per_trial > 0 else "cpu",
        log_every=options.log_every,
        checkpoint_every=options.checkpoint_every,
    )
