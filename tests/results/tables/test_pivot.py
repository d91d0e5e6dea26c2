"""The table `pivot`: two axes against each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from results.costs import costs_of
from results.load import Evidence, TrialRecord
from results.table import Table
from results.tables.metric_columns import named
from results.tables.pivot import Options, build
from results.tables.row_notes import DEVICES


def crossed(make, column: str = "novel_psnr", **more) -> list[TrialRecord]:
    """Every depth model with every fusion; the first digit is the model, the second the fusion."""
    return [
        item
        for i, model in enumerate(("a", "b"), start=1)
        for j, fusion in enumerate(("input", "xattn", "film"), start=1)
        for item in make.trained(
            f"{model} {fusion} {more}",
            10.0 * i + j,
            seeds=2,
            column=column,
            config={"depth": {"model": model, "fusion": fusion}, **more},
        )
    ]


def test_the_two_axes_that_vary_are_found(make) -> None:
    table = build(make.evidence(*crossed(make)), Options())
    assert table.row_header == "model"
    assert [(column.group, column.label) for column in table.columns] == [
        ("fusion", "input"),
        ("fusion", "xattn"),
        ("fusion", "film"),
    ]
    assert [column.name for column in table.columns] == [f"novel_psnr[{value}]" for value in ("input", "xattn", "film")]
    assert {column.direction for column in table.columns} == {None}, "a column is no metric that ranks its rows"
    assert [row.label for row in table.rows] == ["a", "b"]
    means = [cell.mean for row in table.rows for cell in row.cells]
    assert means == pytest.approx([11.0, 12.0, 13.0, 21.0, 22.0, 23.0])
    cell = table.rows[1].cells[2]
    assert cell.interval[0] < 23.0 < cell.interval[1]
    assert [source.seed for source in table.sources(1, 2)] == [0, 1]
    assert {source.key for source in table.sources(1, 2)} == {source.key for source in cell.sources}


def test_axes_and_quantity_can_be_chosen(make) -> None:
    options = Options(rows="depth.fusion", columns="depth.model", value=named("conditioned_psnr"))
    table = build(make.evidence(*crossed(make, "conditioned_psnr")), options)
    assert [row.label for row in table.rows] == ["input", "xattn", "film"]
    assert table.rows[2].cells[0].mean == pytest.approx(13.0)
    assert table.caption == "Two settings against each other. PSNR, conditioned views."
    mine = Options(rows="depth.fusion", caption="Depth by fusion")
    assert build(make.evidence(*crossed(make)), mine).caption == "Depth by fusion. PSNR, novel views."
    for options in (Options(rows="depth.fusion"), Options(columns="depth.model")):
        table = build(make.evidence(*crossed(make)), options)
        assert (table.row_header, table.columns[0].group) == ("fusion", "model")


def test_costs_have_no_views_and_those_of_several_devices_are_said_to_be(make) -> None:
    def measured(devices: dict[str, str]) -> Table:
        records = [
            replace(item, costs=costs_of({"predict_ms": 10.0, "device": devices[fusion]}))
            for item in crossed(make)
            if (fusion := item.planned.flat_config["depth.fusion"])
        ]
        return build(make.evidence(*records), Options(value=named("cost_predict_ms")))

    table = measured({"input": "CPU", "xattn": "CPU", "film": "CPU"})
    assert table.caption == "Two settings against each other. Prediction (ms)."
    assert (table.rows[0].notes, table.notes) == ((), ())
    table = measured({"input": "CPU", "xattn": "CPU", "film": "GPU"})
    assert table.rows[0].notes == tuple(
        f"{fusion}: Measured on {device}." for fusion, device in (("input", "CPU"), ("xattn", "CPU"), ("film", "GPU"))
    )
    assert table.notes == (DEVICES,)


def test_configurations_that_meet_are_not_averaged(make) -> None:
    records = crossed(make, train={"lr": 1}) + crossed(make, train={"lr": 2})
    options = Options(rows="depth.model", columns="depth.fusion")
    table = build(make.evidence(*records), options)
    assert table.rows[0].cells[0].values == ()
    assert table.rows[0].notes[0].startswith("Several configurations at input, so no mean: a input")
    assert all(note.startswith("Several configurations at") for note in table.rows[0].notes)
    assert table.rows[0].state == "several configurations"
    chosen = build(make.evidence(*records), options.model_copy(update={"select": {"train.lr": 2}}))
    assert chosen.rows[0].cells[0].mean == pytest.approx(11.0)


def test_other_than_two_axes_are_listed(make) -> None:
    table = build(make.evidence(*crossed(make, train={"lr": 1}), *crossed(make, train={"lr": 2})), Options())
    assert table.rows == ()
    assert "model (depth.model); fusion (depth.fusion); lr (train.lr). Name two of them as `rows`" in table.notes[0]


def test_places_without_a_trial_and_unfinished_ones_are_empty(make) -> None:
    gone = make.record("gone", 0, state="failed", config={"depth": {"model": "b", "fusion": "xattn"}})
    table = build(make.evidence(*crossed(make)[:-4], gone), Options())
    assert [cell.mean is None for cell in table.rows[1].cells] == [False, True, True]
    assert table.rows[1].state == "failed (seed 0)"


def staged(make, weights: tuple[float | None, ...] = (None, 0.01, 0.1)) -> Evidence:
    """A loss in both of two stages with every fusion, as a sweep file with a `*` axis plans it."""
    records = []
    for i, weight in enumerate(weights, start=1):
        stages = [{"losses": {"l2": 1.0} | ({} if weight is None else {"tv": weight})} for _ in range(2)]
        for j, fusion in enumerate(("input", "xattn"), start=1):
            config = {"train": {"stages": stages}, "depth": {"model": "a", "fusion": fusion}}
            records += make.trained(f"tv={weight} fusion={fusion}", 10.0 * i + j, seeds=2, config=config)
    found = make.evidence(*records)
    axes = {"train.stages.*.losses.tv": "tv", "depth.fusion": "fusion"}
    return replace(found, plan=replace(found.plan, axes=axes))


@pytest.mark.parametrize("rows", ["train.stages.*.losses.tv", "tv", "train.stages.0.losses.tv", None])
def test_a_setting_of_all_stages_is_one_axis(make, rows: str | None) -> None:
    table = build(staged(make), Options(rows=rows, columns=rows and "depth.fusion"))
    assert table.row_header == "tv"
    assert [(column.group, column.label) for column in table.columns] == [("fusion", "input"), ("fusion", "xattn")]
    assert [row.label for row in table.rows] == ["–", "0.01", "0.1"]
    assert [cell.mean for row in table.rows for cell in row.cells] == pytest.approx([11, 12, 21, 22, 31, 32])
    assert not any(row.notes for row in table.rows)


def test_a_section_against_another_axis(make) -> None:
    records = [
        item
        for i, ema in enumerate((None, {"every": 10, "decay": 0.9}, {"every": 10, "decay": 0.99}), start=1)
        for j, model in enumerate(("a", "b"), start=1)
        for item in make.trained(f"{ema} {model}", 10.0 * i + j, config={"train": {"ema": ema}, "depth.model": model})
    ]
    table = build(make.evidence(*records), Options(rows="train.ema"))
    assert [row.label for row in table.rows] == ["null", "every 10, decay 0.9", "every 10, decay 0.99"]
    assert [cell.mean for row in table.rows for cell in row.cells] == pytest.approx([11, 12, 21, 22, 31, 32])


def test_an_older_plan_without_axes_finds_the_same(make) -> None:
    found = staged(make, (0.001, 0.01, 0.1))
    table = build(replace(found, plan=replace(found.plan, axes={})), Options())
    assert (table.row_header, table.columns[0].group) == ("tv", "fusion")
    assert [row.label for row in table.rows] == ["0.001", "0.01", "0.1"]


@pytest.mark.parametrize("axes", [{}, {"depth.model": "model", "train.lr": "lr"}], ids=["an older plan", "declared"])
def test_what_follows_from_other_settings_is_no_axis(make, axes: dict[str, str]) -> None:
    records = []
    for model in ("none", "a", "b"):
        depth = {"model": model} | ({} if model == "none" else {"preprocess": "correct"})
        for lr in (1, 2):
            records += make.trained(f"{model} {lr}", 20.0, config={"depth": depth, "train": {"lr": lr}})
    found = make.evidence(*records)
    table = build(replace(found, plan=replace(found.plan, axes=axes)), Options())
    assert (table.row_header, table.columns[0].group) == ("model", "lr")


def test_a_setting_that_nobody_has_is_named_with_the_nearest(make) -> None:
    table = build(staged(make), Options(rows="train.stages.*.losses.tw", columns="fusion"))
    assert table.rows == ()
    assert "no setting is called 'train.stages.*.losses.tw'" in table.notes[0]
    assert "losses.tv" in table.notes[0]
