"""Notes at a table's row about how its trials ran."""

from __future__ import annotations

from typing import Any

import pytest

from results.records.arithmetic import Arithmetic, arithmetic_tags
from results.tables.row_notes import row_notes

COMMIT, CHANGED, DATA = (
    "mlflow.source.git.commit",
    "splatsweep.code_changed_since_commit",
    "splatsweep.data_fingerprint",
)
TRAIN = {"batch_size": 8, "ema": None, "stages": [{"iterations": 25000}, {"iterations": 5000}]}
CONFIG: dict[str, Any] = {
    "train": TRAIN,
    "render": {"antialiasing": True},
    "data": {"resolution": 128},
    "model": {"input_views": 1},
    "eval": {"lpips": "vgg", "split": "test", "objects": None},
}
TAGS = {COMMIT: "0123456789", CHANGED: "false", DATA: "f" * 64}


@pytest.mark.parametrize(
    ("config", "tags", "note"),
    [
        ({"train": {**TRAIN, "batch_size": 4}}, {}, "batch size 4 instead of 8"),
        ({"train": {**TRAIN, "ema": {"every": 10}}}, {}, "moving average of weights on (every 10) instead of off"),
        ({"train": {**TRAIN, "stages": [{"iterations": 9}]}}, {}, "iterations 9 instead of 25000 + 5000"),
        ({"train": {**TRAIN, "start": "network:a"}}, {}, "starting weights network:a instead of new"),
        (
            {"train": {"start": "network:a", "stages": []}},
            {},
            "iterations 0 instead of 25000 + 5000; starting weights network:a instead of new",
        ),
        ({"train": {"batch_size": 8}}, {}, None),
        ({"render": {"antialiasing": False}}, {}, "antialiasing off instead of on"),
        ({"data": {"resolution": 64}}, {}, "resolution 64 instead of 128. Scores are not compared"),
        ({"model": {"input_views": 2}}, {}, "input views 2 instead of 1. Scores are not compared"),
        ({"eval": {"split": "val"}}, {}, "split val instead of test. Scores are not compared"),
        ({"eval": {"objects": 5}}, {}, "evaluated objects 5 instead of all"),
        ({"eval": {"lpips": "alex"}}, {}, "LPIPS network alex instead of vgg. LPIPS is not compared"),
        ({}, {DATA: "0" * 64}, "data 0000000 instead of fffffff"),
        ({}, {COMMIT: "89abcdef01"}, "code 89abcde instead of 0123456"),
        ({}, {CHANGED: "true"}, "code 0123456 with changes instead of 0123456"),
    ],
)
def test_each_difference_in_conditions_is_named(
    make, config: dict[str, Any], tags: dict[str, str], note: str | None
) -> None:
    baseline = [make.record("baseline", config=CONFIG, tags=TAGS)]
    row = [make.record("row", config=CONFIG | config, tags=TAGS | tags)]
    assert row_notes(row, baseline) == ((f"Conditions differ from baseline: {note}.",) if note else ())


COMPUTED = arithmetic_tags([Arithmetic("cpu", "eager", "float32", "cpu").as_json()])


@pytest.mark.parametrize(
    ("arithmetic", "note"),
    [
        (Arithmetic("reference", "eager", "float32", "cpu"), "rasteriser reference instead of cpu"),
        (Arithmetic("cpu", "compiled", "float32", "cpu"), "execution compiled instead of eager"),
        (
            Arithmetic("gsplat", "eager", "bf16", "cuda"),
            "precision bf16 instead of float32; rasteriser gsplat instead of cpu; device cuda instead of cpu",
        ),
    ],
)
def test_another_arithmetic_is_another_regime(make, arithmetic: Arithmetic, note: str) -> None:
    baseline = [make.record("baseline", config=CONFIG, tags=TAGS | COMPUTED)]
    row = [make.record("row", config=CONFIG, tags=TAGS | arithmetic_tags([arithmetic.as_json()]))]
    assert row_notes(row, baseline) == (f"Conditions differ from baseline: {note}.",)


def test_precision_is_the_computed_one_where_all_recorded_it(make) -> None:
    """On a CPU bf16 and tf32 are both float32; runs of earlier versions recorded only the configured precision."""
    wide, narrow = ({"train": {**TRAIN, "precision": precision}} for precision in ("tf32", "bf16"))
    baseline = [make.record("baseline", config=CONFIG | wide, tags=TAGS | COMPUTED)]
    assert row_notes([make.record("row", config=CONFIG | narrow, tags=TAGS | COMPUTED)], baseline) == ()
    (note,) = row_notes([make.record("row", config=CONFIG | narrow, tags=TAGS)], baseline)
    assert note == "Conditions differ from baseline: precision bf16 instead of tf32."


def test_seeds_of_one_row_in_other_arithmetics_are_named(make) -> None:
    other = arithmetic_tags([Arithmetic("inria", "eager", "tf32", "cuda").as_json()])
    seeds = [make.record("row", 0, tags=TAGS | COMPUTED), make.record("row", 1, tags=TAGS | other)]
    (note,) = row_notes(seeds)
    assert (
        note == "Its seeds differ in arithmetic: cpu, eager, float32, cpu (seed 0); inria, eager, tf32, cuda (seed 1)."
    )


def test_equal_regimes_and_what_is_unknown_need_no_note(make) -> None:
    baseline = [make.record("baseline", config=CONFIG, tags=TAGS)]
    assert row_notes([make.record("row", config=CONFIG, tags=TAGS)], baseline) == ()
    assert row_notes([make.record("row")], baseline) == ()
    assert row_notes([make.record("row", state="failed", config=CONFIG)], baseline) == ()
    blank = make.record("blank", config=CONFIG, tags=TAGS | {COMMIT: "89abcdef01"}, control=True)
    assert row_notes([blank], baseline) == (), "trivial baselines are not compared"


def test_seeds_of_one_row_that_ran_on_other_code_or_data_are_named(make) -> None:
    seeds = [
        make.record("row", 0, tags=TAGS),
        make.record("row", 1, tags=TAGS | {COMMIT: "89abcdef01"}),
        make.record("row", 2, tags=TAGS),
    ]
    note = "Its seeds differ in code: 0123456 (seed 0, 2); 89abcde (seed 1)."
    assert row_notes(seeds) == (note,)
    beside = [make.record("baseline", seed, tags=TAGS) for seed in range(3)]
    assert row_notes(seeds, beside) == (note,), "the baseline's code is no second note"
    (other,) = row_notes([make.record("row", 0, tags=TAGS | {COMMIT: "89abcdef01"})], beside)
    assert other == "Conditions differ from baseline: code 89abcde instead of 0123456."
