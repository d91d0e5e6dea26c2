"""Trials side by side under Ray Tune, on this machine or on a cluster: its options here, the rest when it runs."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field

from sweep.run.executors.base import Assignment, ExecutorOptions


class RayOptions(ExecutorOptions):
    """Packing and restarts."""

    #: trials at once; null means as many as the resources allow
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    #: restarts of a trial whose process died
    max_failures: Annotated[int, Field(ge=0)] = 2
    #: when trials work in a folder of their node and send what they make to the home: on nodes that do not see the
    #: home, or always, where it is slow to reach
    scratch: Literal["auto", "always"] = "auto"


class Ray:
    """Workers of `cpus_per_trial` CPUs and `gpus_per_trial` GPUs each."""

    Options = RayOptions

    @staticmethod
    def at_once(options: RayOptions, /) -> int:
        """As many as fit on this machine, whatever RAY_ADDRESS says."""
        slots = len(os.sched_getaffinity(0)) // options.cpus_per_trial
        if options.gpus_per_trial > 0:
            import torch

            slots = min(slots, int(torch.cuda.device_count() / options.gpus_per_trial))
        return max(1, min(slots, options.max_concurrent or slots))

    @staticmethod
    def check() -> None:
        """Raise `ClusterError` where RAY_ADDRESS names a cluster that does not answer."""
        from sweep.run.executors.ray.cluster import require_answer

        require_answer()

    @staticmethod
    def run(assignment: Assignment, options: RayOptions, /) -> None:
        """Run the source's trials under Tune."""
        from sweep.run.executors.ray.tune import run  # Ray and torch

        run(assignment, options)
