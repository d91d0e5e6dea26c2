"""One trial function, several ways to run it.  One file or folder per way, one line here.

An executor (`sweep.run.executors.base`) declares its options, which become part of the `run` section of sweep files,
and runs every trial of a queue.
"""

EXECUTORS: dict[str, str] = {
    "inline": "sweep.run.executors.inline:Inline",
    "ray": "sweep.run.executors.ray:Ray",
}
