"""Runs trials one after another in this process, for debugging and for a single core."""

from __future__ import annotations

from sweep.run.executors.base import Assignment, ExecutorOptions, unused_gpus


class Inline:
    """No processes, no waiting: breakpoints work."""

    Options = ExecutorOptions

    @staticmethod
    def at_once(_options: ExecutorOptions, /) -> int:
        """Trials run one after another."""
        return 1

    @staticmethod
    def check() -> None:
        """This executor always works."""

    @staticmethod
    def run(assignment: Assignment, options: ExecutorOptions, /) -> None:
        """Runs the queue's trials in this process."""
        import torch

        from sweep.run.executors.room import Room, check_room
        from sweep.run.executors.run_guarded import run_guarded, runtime_of

        gpus = torch.cuda.device_count()
        check_room(options, [Room("this process", options.cpus_per_trial, gpus)], autoscaler=None, cluster=None)
        unused = unused_gpus(gpus, options, share=1)
        if unused is not None:
            assignment.notices.say(unused)
        assignment.begin()
        runtime = runtime_of(options, assignment.stop_file)
        while (trial := assignment.queue.next()) is not None:
            run_guarded(trial.key, trial.config, assignment.home, runtime, assignment.fail_fast, assignment.work)
            assignment.queue.ended(trial)
