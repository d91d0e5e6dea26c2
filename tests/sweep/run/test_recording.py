"""Networks are recorded where all of a sweep's together take no more than 1 GB, unless the file decides."""

from __future__ import annotations

import math

import pytest

from results.records.plan import Plan, PlannedTrial
from sweep.file.schema import Sweep
from sweep.run.recording import _largest_model


@pytest.mark.parametrize(
    ("models", "trials", "expected"), [("auto", 1, 1e9), ("auto", 200, 5e6), ("never", 1, 0), ("always", 200, math.inf)]
)
def test_the_largest_network_that_is_recorded(models: str, trials: int, expected: float) -> None:
    sweep = Sweep.model_validate({"name": "s", "tracking": {"models": models}})
    planned = tuple(PlannedTrial(str(number), ("a",), number, {}, "pending") for number in range(trials))
    assert _largest_model(sweep, Plan("s", "now", planned, ())) == expected
