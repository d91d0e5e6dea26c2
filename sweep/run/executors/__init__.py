"""One trial function, several ways to run it.  One file per way, one line here.

An executor is a function `run(source, home, options, stop_file, fail_fast, work)`: it brings every trial of the source
(`sweep.run.executors.queue`) to an end, tells the source of each, and returns.  How each ended stands in the trials'
folders.  Once `stop_file` exists, running trials stop behind a checkpoint and no other starts; a trial that fails
brings that about under `fail_fast`, and else stops no other.
"""

EXECUTORS: dict[str, str] = {
    "inline": "sweep.run.executors.inline:run",
    "ray": "sweep.run.executors.ray:run",
}
