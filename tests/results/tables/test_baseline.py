"""The choice of the baseline's row, and the note where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from results.tables import auto

SCORES = {"novel_psnr": [20.0, 21.0, 22.0], "novel_ssim": [0.8, 0.8, 0.8], "novel_lpips": [0.1, 0.1, 0.1]}


@pytest.fixture
def trials(make):
    """A grid of depth models and fusions; nothing in it is called a baseline."""
    settings = [("none", "input"), ("oracle", "input"), ("oracle", "xattn")]
    return [
        make.record(
            f"model={model} fusion={fusion}", scores=SCORES, config={"depth": {"model": model, "fusion": fusion}}
        )
        for model, fusion in settings
    ]


def built(make, trials, of_sweep=None, **options):
    found = make.evidence(*trials)
    return auto.build(replace(found, plan=replace(found.plan, baseline=of_sweep)), auto.Options(**options))


def compared_with(table):
    return {cell.comparison.baseline for row in table.rows for cell in row.cells if cell.comparison}


def test_without_a_baseline_a_note_explains_how_to_name_one(make, trials):
    table = built(make, trials)
    assert compared_with(table) == set()
    (note,) = [note for note in table.notes if note.startswith("Nothing is compared")]
    assert "no row is called baseline, full, base, and the sweep file has no `baseline:`" in note
    assert "model=none fusion=input, model=oracle fusion=input" in note


@pytest.mark.parametrize("name", ["baseline", "full", "base"])
def test_a_usual_name_is_used_with_a_note(make, trials, name):
    table = built(make, [*trials, make.record(name, scores=SCORES)])
    assert compared_with(table) == {name}
    assert any(note.startswith(f"Compared with {name!r}, by its name") for note in table.notes)


@pytest.mark.parametrize(
    "baseline",
    ["model=none fusion=input", {"depth.model": "none"}, {"depth.model": None}],
    ids=["name", "setting", "nothing there"],
)
def test_the_sweep_file_names_it(make, trials, baseline):
    table = built(make, [*trials, make.record("baseline", scores=SCORES, config={"depth": {"model": "zoe"}})], baseline)
    assert compared_with(table) == {"model=none fusion=input"}
    assert not any("ompared" in note for note in table.notes)


def test_a_table_file_counts_before_the_sweep_file(make, trials):
    table = built(make, trials, {"depth.model": "none"}, baseline="model=oracle fusion=xattn")
    assert compared_with(table) == {"model=oracle fusion=xattn"}


def test_a_setting_of_several_rows_is_none(make, trials):
    table = built(make, trials, {"depth.model": "oracle"})
    assert compared_with(table) == set()
    assert any(
        note.startswith("Nothing is compared: 2 rows are the baseline {depth.model: oracle} of the sweep file")
        for note in table.notes
    )


def test_a_name_that_was_folded_into_another_row_is_found(make, trials):
    twin = make.record("first", scores=SCORES, names=("first", "vanilla"))
    assert compared_with(built(make, [*trials, twin], "vanilla")) == {"first"}
