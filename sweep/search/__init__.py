"""Search: proposes trials one after another, from the outcomes of earlier ones.

`study` gets proposals from Optuna, `ledger` stores them, and `source` hands their trials to an executor.  A sampler is
a function in `samplers` and one line here; a pruner is a function in `pruners` and one line here.
"""

from typing import Literal

from results.metrics import METRICS, columns, split_column

Direction = Literal["maximize", "minimize"]

SAMPLERS: dict[str, str] = {
    "cmaes": "sweep.search.samplers:cmaes",
    "gp": "sweep.search.samplers:gp",
    "grid": "sweep.search.samplers:grid",
    "qmc": "sweep.search.samplers:qmc",
    "random": "sweep.search.samplers:random",
    "tpe": "sweep.search.samplers:tpe",
}
PRUNERS: dict[str, str] = {
    "halving": "sweep.search.pruners:halving",
    "hyperband": "sweep.search.pruners:hyperband",
    "median": "sweep.search.pruners:median",
    "none": "sweep.search.pruners:none",
    "percentile": "sweep.search.pruners:percentile",
}

#: Metrics of the final evaluation that a search can optimise, by their names in tables -> the better direction.
SCORES: dict[str, Direction] = {
    name: "maximize" if METRICS[split_column(name)[1]].direction == "up" else "minimize" for name in columns()
}
