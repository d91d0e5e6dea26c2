"""What is said at a row of how its trials ran."""

from __future__ import annotations

from typing import Any

import pytest

from results.tables.row_notes import caveats

COMMIT, CHANGED, DATA = (
    "mlflow.source.git.commit",
    "splatsweep.code_changed_since_commit",
    "splatsweep.data_fingerprint",
)
TRAIN = {"batch_size": 8, "ema": None, "stages": [{"iterations": 25000}, {"iterations": 5000}]}
CONFIG: dict[str, Any] = {"train": TRAIN, "render": {"antialiasing": True}, "data": {"resolution": 128}}
TAGS = {COMMIT: "0123456789", CHANGED: "false", DATA: "f" * 64}


@pytest.mark.parametrize(
    ("config", "tags", "note"),
    [
        ({"train": {**TRAIN, "batch_size": 4}}, {}, "batch size 4 instead of 8"),
        ({"train": {**TRAIN, "ema": {"every": 10}}}, {}, "moving average of weights on (every 10) instead of off"),
        ({"train": {**TRAIN, "stages": [{"iterations": 9}]}}, {}, "iterations 9 instead of 25000 + 5000"),
        ({"render": {"antialiasing": False}}, {}, "antialiasing off instead of on"),
        ({"data": {"resolution": 64}}, {}, "resolution 64 instead of 128"),
        ({}, {DATA: "0" * 64}, "data 0000000 instead of fffffff"),
        ({}, {COMMIT: "89abcdef01"}, "code 89abcde instead of 0123456"),
        ({}, {CHANGED: "true"}, "code 0123456 with changes instead of 0123456"),
    ],
)
def test_each_difference_in_regime_is_named(make, config: dict[str, Any], tags: dict[str, str], note: str) -> None:
    baseline = [make.record("baseline", config=CONFIG, tags=TAGS)]
    row = [make.record("row", config=CONFIG | config, tags=TAGS | tags)]
    assert caveats(row, baseline) == (f"Not the regime of baseline: {note}.",)


def test_equal_regimes_and_what_is_unknown_need_no_note(make) -> None:
    baseline = [make.record("baseline", config=CONFIG, tags=TAGS)]
    assert caveats([make.record("row", config=CONFIG, tags=TAGS)], baseline) == ()
    assert caveats([make.record("row")], baseline) == ()
    assert caveats([make.record("row", state="failed", config=CONFIG)], baseline) == ()


def test_seeds_of_one_row_that_ran_on_other_code_or_data_are_named(make) -> None:
    seeds = [
        make.record("row", 0, tags=TAGS),
        make.record("row", 1, tags=TAGS | {COMMIT: "89abcdef01"}),
        make.record("row", 2, tags=TAGS),
    ]
    assert caveats(seeds) == ("Its seeds differ in code: 0123456 (seed 0, 2); 89abcde (seed 1).",)
