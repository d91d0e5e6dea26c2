"""The choice of the baseline's row, and the note where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from results.tables import auto
from results.tables.baseline import find_baseline
from results.tables.fill import Entry

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


@pytest.mark.parametrize("rows", [2, 3])
def test_without_a_baseline_a_note_explains_how_to_name_one(make, trials, rows):
    table = built(make, trials[:rows])
    assert compared_with(table) == set()
    (note,) = [note for note in table.notes if note.startswith("Nothing is compared")]
    assert "no row is called baseline, full, base, and the sweep file has no `baseline:`" in note
    assert "model=none fusion=input, model=oracle fusion=input" in note


def test_one_row_needs_no_baseline_and_of_many_eight_are_listed(make, trials):
    assert not any(note.startswith("Nothing is compared") for note in built(make, trials[:1]).notes)
    for count, end in ((8, "(r0, r1, r2, r3, r4, r5, r6, r7)"), (9, "r6, r7, ...)")):
        notes = built(make, [make.record(f"r{index}", scores=SCORES) for index in range(count)]).notes
        assert any(end in note for note in notes)


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


def test_rows_of_the_same_trials_are_one_baseline(make, trials):
    rows = [Entry(label, tuple(trials[:1])) for label in ("published", "ours")]
    found, notes = find_baseline(rows, make.evidence(*trials), trials[0].planned.name)
    assert (found, notes) == (rows[0], ())


def test_two_rows_of_one_name_are_told_apart_by_their_labels(make):
    records = [make.record("a", seed, names=("a", label)) for seed, label in enumerate(("x", "y"))]
    rows = [Entry(label, (record,)) for label, record in zip(("x", "y"), records, strict=True)]
    found, (note,) = find_baseline(rows, make.evidence(*records), "a")
    assert found is None
    assert note.endswith("2 rows are the baseline 'a' of the table file: x, y. Name one of these labels.")


def test_a_name_that_was_folded_into_another_row_is_found(make, trials):
    twin = make.record("first", scores=SCORES, names=("first", "vanilla"))
    assert compared_with(built(make, [*trials, twin], "vanilla")) == {"first"}


def test_a_usual_name_that_was_folded_into_another_row_is_used(make, trials):
    table = built(make, [*trials, make.record("plain", scores=SCORES, names=("plain", "baseline"))])
    assert compared_with(table) == {"plain"}
    assert any(note.startswith("Compared with 'plain', by its name 'baseline'; ") for note in table.notes)


def test_a_table_file_means_labels_first_and_a_sweep_file_the_names_of_trials(make):
    """Rows may be labelled otherwise than their trials are called."""
    rows = [Entry("a", (make.record("b"),)), Entry("b", (make.record("a"),)), Entry("c", (make.record("d"),))]
    found = make.evidence(*(entry.records[0] for entry in rows))
    assert [find_baseline(rows, found, name) for name in ("a", "b", "d")] == [(entry, ()) for entry in rows]
    of_sweep = [find_baseline(rows, replace(found, plan=replace(found.plan, baseline=name)))[0] for name in "abcd"]
    assert of_sweep == [rows[1], rows[0], None, rows[2]]
