"""One trial function, several ways to run it.  One file or folder per way, one line here.

An executor (`sweep.run.executors.base`) states its options, which join the `run` section of sweep files, and brings
every trial of a source to an end.
"""

EXECUTORS: dict[str, str] = {
    "inline": "sweep.run.executors.inline:Inline",
    "ray": "sweep.run.executors.ray:Ray",
}
