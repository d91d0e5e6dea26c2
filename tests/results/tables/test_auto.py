"""The table `auto`: one row per configuration, with all its notes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from results.load import read_evidence
from results.render.layout import compared_rows, row_titles
from results.table import Table
from results.tables.auto import Options, build
from results.tables.fill import ONE_SEED


@pytest.fixture(scope="module")
def table(study, sweep) -> Table:
    return build(read_evidence(sweep, study.home), Options())


def test_rows_follow_the_plan_with_the_trivial_ones_in_a_section_of_their_own(table: Table) -> None:
    trained, trivial = table.sections
    assert [row.label for row in trained.rows] == ["baseline", "depth", "broken"]
    assert [row.label for row in trivial.rows] == ["blank", "copy_input"]
    assert (trained.ranked, trivial.ranked) == (True, False)


def test_columns_of_numbers_are_grouped_by_view_kind(table: Table) -> None:
    assert table.column_groups[-2:] == [("Conditioned views", 3), ("Novel views", 3)]
    assert [(c.label, c.direction) for c in table.columns[-3:]] == [("PSNR", "up"), ("SSIM", "up"), ("LPIPS", "down")]


def test_cells_are_means_over_objects_then_seeds(table: Table) -> None:
    baseline = table.rows[0]
    novel_psnr = baseline.cells[-3]
    assert novel_psnr.values == pytest.approx((20.0, 21.0))
    assert novel_psnr.mean == pytest.approx(20.5)
    assert novel_psnr.std == pytest.approx(0.5**0.5)
    assert baseline.cells[-6].mean == pytest.approx(30.5)
    assert [(source.key, source.seed) for source in baseline.sources] == [("a0", 0), ("a1", 1)]


def test_a_failed_trial_is_a_row_with_its_state(table: Table) -> None:
    broken = table.rows[2]
    assert broken.is_empty
    assert broken.state == "failed"


def test_the_usual_names_are_the_baseline_unless_another_is_declared(make) -> None:
    found = make.evidence(*make.trained("full", 20.0), *make.trained("without depth", 19.0))
    assert build(found, Options()).rows[1].cells[-3].comparison.baseline == "full"
    declared = build(found, Options(baseline="without depth"))
    assert declared.rows[0].cells[-3].comparison.baseline == "without depth"
    assert declared.rows[1].cells[-3].comparison is None


def test_a_missing_declared_baseline_is_reported(make) -> None:
    table = build(make.evidence(*make.trained("baseline", 20.0), *make.trained("b", 21.0)), Options(baseline="c"))
    assert table.rows[1].cells[-3].comparison is None
    assert "Nothing is compared: no row is the baseline 'c' of the table file." in table.notes


def test_axes_of_a_grid_become_columns_of_text(make) -> None:
    names = ("baseline", "model=a fusion=input", "model=b fusion=input", "model=b fusion=xattn")
    table = build(make.evidence(*(item for name in names for item in make.trained(name, 20.0))), Options())
    assert table.row_header == "Trial"
    assert [(column.label, column.direction) for column in table.columns[:2]] == [("fusion", None), ("PSNR", "up")]
    # The first axis has no column: it is the label, which repeats nothing that the columns show.
    texts = [(row.label, row.cells[0].text) for row in table.rows]
    assert texts == [("baseline", "–"), ("model=a", "input"), ("model=b", "input"), ("model=b", "xattn")]
    assert all(cell.text == "" for row in table.rows for cell in row.cells[1:])
    assert row_titles(table) == list(names)


def test_the_first_axis_of_a_grid_alone_is_the_header_of_its_labels(make) -> None:
    names = ("tv=0 fusion=input", "tv=0 fusion=xattn", "tv=0.1 fusion=input", "fusion=xattn")
    blank = make.record("blank", scores={"novel_psnr": [10.0]}, control=True)
    trained = [item for name in names for item in make.trained(name, 20.0)]
    table = build(make.evidence(*trained, blank), Options(baseline=names[0]))
    assert table.row_header == "tv"
    texts = [(row.label, row.cells[0].text) for row in table.rows]
    assert texts == [("0", "input"), ("0", "xattn"), ("0.1", "input"), ("–", "xattn"), ("blank", "–")]
    assert [line.title for line in compared_rows(table)] == list(names[1:])
    assert table.rows[1].cells[-3].comparison.baseline == names[0]


def test_rows_beside_a_grid_show_their_settings(make) -> None:
    """A dash means that a setting is absent, whatever the row is called."""
    settings = {
        "tv": ("a", "input", 0.01),
        "plain": ("none", None, None),
        "model=a fusion=film": ("a", "film", None),
        "model=a tv=0.1": ("a", "input", 0.1),
        "model=b tv=0.1": ("b", "input", 0.1),
    }
    records = []
    for name, (model, fusion, weight) in settings.items():
        depth = {"model": model} | ({} if fusion is None else {"fusion": fusion})
        losses = {"l2": 1.0} | ({} if weight is None else {"tv": weight})
        config = {"depth": depth, "train": {"stages": [{"losses": losses}]}}
        records += make.trained(name, 20.0, config=config)
    found = make.evidence(*records)
    axes = {"depth.model": "model", "depth.fusion": "fusion", "train.stages.*.losses.tv": "tv"}
    table = build(replace(found, plan=replace(found.plan, axes=axes)), Options())
    assert [(row.label, *(cell.text for cell in row.cells[:2])) for row in table.rows] == [
        ("tv", "input", "0.01"),
        ("plain", "–", "–"),
        ("model=a", "film", "–"),
        ("model=a", "input", "0.1"),
        ("model=b", "input", "0.1"),
    ]


def test_a_setting_without_a_name_is_no_point_of_a_grid(make) -> None:
    names = ["model=a", "model=b", "=c"]
    table = build(make.evidence(*(item for name in names for item in make.trained(name, 20.0))), Options())
    assert (table.row_header, [row.label for row in table.rows]) == ("Trial", names)


def test_an_axis_with_one_value_is_no_column(make) -> None:
    table = build(make.evidence(*make.trained("model=a", 20.0), *make.trained("baseline", 20.0)), Options())
    assert len(table.columns) == 6


def test_an_axis_with_one_value_that_only_some_points_have_is_a_column(make) -> None:
    names = ("model=a", "model=b", "model=a tv=0.1", "model=b tv=0.1", "tv=0.1")
    table = build(make.evidence(*(item for name in names for item in make.trained(name, 20.0))), Options())
    texts = [(row.label, row.cells[0].text) for row in table.rows]
    assert texts == [("a", "–"), ("b", "–"), ("a", "0.1"), ("b", "0.1"), ("–", "0.1")]


def test_an_incomplete_seed_set_is_marked(make) -> None:
    records = [
        make.record("base", seed, {"novel_psnr": [20.0 + seed]}, state)
        for seed, state in enumerate(["finished", "failed", "finished", "pending"])
    ]
    (row,) = build(make.evidence(*records), Options()).rows
    assert row.cells[-3].values == (20.0, 22.0)
    assert row.notes[0] == "2 of 4 seeds: failed (seed 1), pending (seed 3)."


def test_seeds_are_in_order_whatever_that_of_the_plan(make) -> None:
    first, second, third = make.trained("base", 20.0)
    shuffled, ordered = (
        build(make.evidence(*rows), Options()) for rows in ((third, first, second), (first, second, third))
    )
    assert shuffled == ordered
    assert [source.seed for source in shuffled.rows[0].sources] == [0, 1, 2]


def test_names_folded_onto_a_row_are_mentioned(make) -> None:
    (row,) = build(make.evidence(make.record("base", names=("base", "twin"))), Options()).rows
    assert row.notes == ("The same configuration as twin.",)


def test_without_any_seed_the_states_are_listed(make) -> None:
    records = [make.record("base", seed, state=state) for seed, state in enumerate(["failed", "pending", "pending"])]
    table = build(make.evidence(*records), Options())
    (row,) = table.rows
    assert row.state == "failed (seed 0), pending (seeds 1, 2)"
    assert row.is_empty
    assert table.notes == (), "of what trials measure nothing is known"
    columns = ["cost_render_ms", {"metric": "psnr", "category": "car"}]
    assert build(make.evidence(*records), Options.model_validate({"columns": columns})).notes == ()


@pytest.mark.parametrize(("column", "state"), [("novel_iou", "not measured"), ("novel_psnr", "finished")])
def test_a_finished_row_without_any_score_is_not_called_finished(make, column: str, state: str) -> None:
    (row,) = build(make.evidence(make.record("base", scores={column: [0.5]})), Options()).rows
    assert (row.is_empty, row.state) == (state != "finished", state)
    assert [source.run_id for source in row.sources] == ["run of base/0"]


def test_a_nan_among_the_objects_is_not_averaged_away(make) -> None:
    (row,) = build(make.evidence(make.record("base", 0, {"novel_psnr": [20.0, math.nan]})), Options()).rows
    assert math.isnan(row.cells[-3].mean)
    assert row.cells[-3].interval is None


def test_seeds_that_were_evaluated_on_other_objects_have_no_interval(make) -> None:
    records = [make.record("base", seed, {"novel_psnr": [20.0, 21.0, 25.0][: 3 - seed]}) for seed in range(2)]
    (row,) = build(make.evidence(*records), Options()).rows
    assert (row.cells[-3].values, row.cells[-3].interval) == ((22.0, 20.5), None)


def test_an_empty_plan_makes_an_empty_table(make) -> None:
    assert build(make.evidence(), Options()).sections == ()
    assert len(build(make.evidence(make.record("a")), Options()).sections) == 1


def test_a_note_explains_why_rows_of_one_seed_are_not_marked(make) -> None:
    one, two = (
        build(make.evidence(*make.trained("baseline", 20.0, seeds), *make.trained("better", 25.0, seeds)), Options())
        for seeds in (1, 2)
    )
    assert (ONE_SEED in one.notes, ONE_SEED in two.notes) == (True, False)
    assert {cell.rank for row in one.rows for cell in row.cells} == {None}
