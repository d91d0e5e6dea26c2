"""Costs of trained rows as columns of tables: size, time and memory, as each trial records them in `costs.json`.

They need no torch here; `jobs.cost` measures them.  A column is called `cost_predict_ms`, as scores are `novel_psnr`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results.records.damage import read_object

#: stands where a score has its kind of views
KIND = "cost"


@dataclass(frozen=True)
class CostFacts:
    """Printing of a cost, and how its column follows from what is recorded."""

    label: str
    recorded: str
    #: the recorded number is divided by this
    unit: float = 1.0
    precision: int = 1


COSTS: dict[str, CostFacts] = {
    "parameters": CostFacts("Parameters (M)", "parameters", 1e6, 2),
    "train_min": CostFacts("Training (min)", "train_s", 60.0),
    "predict_ms": CostFacts("Prediction (ms)", "predict_ms"),
    "render_ms": CostFacts("Render (ms)", "render_ms"),
    "memory_mib": CostFacts("Memory (MiB)", "memory_mib", 1.0, 0),
}


@dataclass(frozen=True)
class Costs:
    """Costs of one trial."""

    #: column's name -> value, of those that are known
    values: Mapping[str, float] = field(default_factory=dict)
    #: name of the device that they were measured on; "" where nothing was
    device: str = ""

    @property
    def is_measured(self) -> bool:
        """Whether the trial was measured; its time of training is known in any case."""
        return bool(self.device)


def costs_of(recorded: Mapping[str, Any]) -> Costs:
    """Costs from the content of `costs.json`; what is missing or no number is left out."""
    values = {}
    for name, facts in COSTS.items():
        number = recorded.get(facts.recorded)
        if isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number):
            values[name] = number / facts.unit
    return Costs(values, str(recorded.get("device") or ""))


def read_costs(path: Path) -> Costs:
    """Costs in a file.  Raises OSError, and ValueError where it is no JSON object."""
    return costs_of(read_object(path))
