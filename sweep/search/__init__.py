"""Search: trials that are proposed one after another, from what those before them came to.

`study` asks Optuna, `ledger` keeps what was proposed, `source` hands it to an executor.  A sampler is a function in
`samplers` and one line here, a pruner one in `pruners`.
"""

from typing import Literal

from results.metrics import METRICS as KNOWN
from results.metrics import columns, split_column

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

#: What a search can be after: metrics as tables name them, of the final evaluation -> which way is better.
METRICS: dict[str, Direction] = {
    name: "maximize" if KNOWN[split_column(name)[1]].direction == "up" else "minimize" for name in columns()
}
