"""Runs trials in parallel under Ray Tune, on this machine or on a cluster.

Here are its options; the rest is imported when it runs, since Ray takes seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from jobs.cores import usable_cores
from sweep.run.executors.base import Assignment, ExecutorOptions


class RayOptions(ExecutorOptions):
    """Options of the Ray executor: packing, restarts and scratch folders."""

    #: trials at once; null means as many as the resources allow
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    #: restarts of a trial whose process died, or failed outside the trial
    max_failures: Annotated[int, Field(ge=0)] = 2
    #: when trials run in a folder of their node and send their files to the home: `auto`, on nodes that do not see the
    #: home; `always`, for a home that is slow to reach
    scratch: Literal["auto", "always"] = "auto"


class Ray:
    """Workers of `cpus_per_trial` CPUs and `gpus_per_trial` GPUs each."""

    Options = RayOptions

    @staticmethod
    def at_once(options: RayOptions, /) -> int:
        """The number of trials that fit on this machine, whatever RAY_ADDRESS is."""
        slots, share = usable_cores() // options.cpus_per_trial, options.gpus_per_trial
        if share > 0:
            import torch

            slots = min(slots, torch.cuda.device_count() * int(1 / share + 1e-9))  # a share lies within one GPU
        return max(1, min(slots, options.max_concurrent or slots))

    @staticmethod
    def check() -> None:
        """Raises `ClusterError` where RAY_ADDRESS names a cluster that does not answer."""
        from sweep.run.executors.ray.connection import require_answer

        require_answer()

    @staticmethod
    def run(assignment: Assignment, options: RayOptions, /) -> None:
        """Runs the queue's trials under Tune."""
        from sweep.run.executors.ray.tune import run  # Ray and torch

        run(assignment, options)
