"""One trial function, several ways to run it.  One file per way, one line here.

An executor is a function `run(trials, home, options, stop_file)`: it brings every trial to an end and returns.  How
each ended stands in the trials' folders; a trial that fails never stops the others.  Once `stop_file` exists, running
trials stop behind a checkpoint and no other starts.
"""

EXECUTORS: dict[str, str] = {
    "inline": "sweep.executors.inline:run",
    "ray": "sweep.executors.ray:run",
}
