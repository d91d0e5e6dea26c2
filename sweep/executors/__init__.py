"""One trial function, several ways to run it.  One file per way, one line here.

An executor is a function `run(trials, home, options)`: it brings every trial to an end and returns.  How each
ended stands in the trials' folders; a trial that fails never stops the others.
"""

EXECUTORS: dict[str, str] = {
    "inline": "sweep.executors.inline:run",
    "ray": "sweep.executors.ray:run",
}
