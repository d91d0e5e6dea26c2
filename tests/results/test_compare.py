"""Two sweeps side by side: pairs, tests, and what cannot be compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from results.compare import compare
from results.costs import costs_of
from results.errors import ResultsError
from results.load import Evidence, TrialRecord
from results.records.home import trial_folder
from results.records.tags import CODE_CHANGED, COMMIT, DATA_FINGERPRINT
from results.render.comparison import writer
from results.table import Table
from results.tables.row_notes import DEVICES
from tests.homes import write_result
from tests.results.tables.conftest import Study

NOVEL = ("novel_psnr",)
CONFIG = {"train": {"lr": 1}, "eval": {"split": "test"}}


def side(name: str, *records: TrialRecord) -> Evidence:
    """A sweep's evidence; keys of another sweep's trials are never equal."""
    own = tuple(replace(item, planned=replace(item.planned, key=f"{name}/{item.planned.key}")) for item in records)
    found = Study.evidence(*own)
    return replace(found, plan=replace(found.plan, sweep=name))


def trained(name: str, mean: float, data: str = "d1", config: Mapping[str, Any] | None = None, **more: Any):
    settings = config or CONFIG
    return Study.trained(name, mean, config=settings, tags={DATA_FINGERPRINT: data}, **more)


def compared(first: Evidence, second: Evidence) -> Table:
    return compare(first, second, Path("/nowhere"), NOVEL)


def means(table: Table, row: int) -> list[float | None]:
    return [cell.mean if cell.mean is None else round(cell.mean, 6) for cell in table.rows[row].cells]


def test_rows_of_one_name_are_paired_and_tested() -> None:
    lr = {"train": {"lr": 2}, "eval": {"split": "test"}}
    table = compared(
        side("a", *trained("x", 20.0), *trained("gone", 19.0)),
        side("b", *trained("x", 21.0, config=lr), *trained("new", 18.0)),
    )
    assert [column.label for column in table.columns] == ["a", "b", "difference"]
    assert means(table, 0) == [20.0, 21.0, 1.0]
    assert table.rows[0].notes == (), "below the table is what all rows differ in"
    found = table.rows[0].cells[1].comparison
    assert (found.baseline, found.verdict) == ("a", "better")
    assert table.rows[0].cells[2].interval == (found.low, found.high)
    assert means(table, 1) == [19.0, None, None]
    assert table.rows[1].notes == ("Only in a.",)
    assert table.rows[2].notes == ("Only in b.",)
    assert "All rows differ in train.lr (1 and 2)." in table.notes


def test_other_data_or_another_evaluation_is_marked_and_not_subtracted() -> None:
    one, two = ({"train": {"lr": 1}, "model": {"input_views": views}} for views in (1, 2))
    val = {"train": {"lr": 1}, "eval": {"split": "val", "every": 5, "metrics": ["psnr", "iou"]}}
    table = compared(
        side("a", *trained("x", 20.0), *trained("y", 20.0), *trained("z", 20.0), *trained("v", 20.0, config=one)),
        side(
            "b",
            *trained("x", 21.0),
            *trained("y", 21.0, data="d2"),
            *trained("z", 21.0, config=val),
            *trained("v", 21.0, config=two),
        ),
    )
    assert means(table, 0)[2] == 1.0
    assert means(table, 1) == means(table, 2) == [20.0, 21.0, None]
    assert table.rows[1].notes == ("Not comparable: data d1 and d2.",)
    assert table.rows[2].notes == (
        "Not comparable: eval.split test and val.",
    )  # not how often it validates, nor other metrics
    assert table.rows[3].notes == ("Not comparable: model.input_views 1 and 2.",)
    assert table.rows[1].cells[1].comparison is None


def test_scores_of_another_version_of_the_evaluation_are_not_subtracted(tmp_path: Path) -> None:
    first, second = (side(name, *trained("x", mean), *trained("y", mean)) for name, mean in (("a", 20.0), ("b", 21.0)))
    for record in (*first.records, *second.records):
        if not record.planned.key.startswith("a/x"):  # its results are in another home
            version = 1 + record.planned.key.startswith("b/y")
            write_result(trial_folder(tmp_path, record.planned.key), evaluation=version)
    table = compare(first, second, tmp_path, NOVEL)
    assert [means(table, row)[2] for row in (0, 1)] == [1.0, None]
    assert table.rows[1].notes == ("Not comparable: version of the evaluation 1 and 2.",)


def test_costs_are_subtracted_and_not_tested() -> None:
    first, second = (
        side(name, *(replace(item, costs=costs_of({"predict_ms": cost})) for item in trained("x", 20.0)))
        for name, cost in (("a", 10.0), ("b", 7.0))
    )
    table = compare(first, second, Path("/nowhere"), ("cost_predict_ms",))
    assert means(table, 0) == [10.0, 7.0, -3.0]
    assert table.rows[0].cells[1].comparison is None


def test_costs_of_several_devices_are_said_to_be() -> None:
    def measured(name: str, device: str) -> Evidence:
        costs = costs_of({"predict_ms": 10.0, "device": device})
        return side(name, *(replace(item, costs=costs) for item in trained("x", 20.0)))

    for device, more, notes in (("GPU", (DEVICES,), ("a: Measured on CPU.", "b: Measured on GPU.")), ("CPU", (), ())):
        table = compare(measured("a", "CPU"), measured("b", device), Path("/nowhere"), ("cost_predict_ms",))
        assert (table.notes[2:], table.rows[0].notes) == (more, notes)
        assert not compared(measured("a", "CPU"), measured("b", device)).rows[0].notes


def test_notes_on_the_trials_of_one_side_name_it() -> None:
    def incomplete(data: str = "d1") -> list[TrialRecord]:
        return [*trained("x", 21.0, seeds=2, data=data), Study.record("x", 2, state="failed", config=CONFIG)]

    note, whole = "2 of 3 seeds: failed (seed 2).", side("a", *trained("x", 20.0), *trained("y", 20.0))
    for first, second, expected in (
        (whole, side("b", *incomplete()), (f"b: {note}",)),
        (side("a", *incomplete()), side("b", *incomplete()), (note,)),
        (whole, side("b", *incomplete("d2"), *trained("y", 21.0)), ("Not comparable: data d1 and d2.", f"b: {note}")),
        (side("a", *incomplete(), *trained("y", 20.0)), side("b", *trained("y", 21.0)), ("Only in a.", note)),
    ):
        assert compared(first, second).rows[0].notes == expected


def test_a_comparison_needs_a_column() -> None:
    with pytest.raises(ValueError, match="no column is named"):
        compare(side("a", *trained("x", 20.0)), side("b", *trained("x", 21.0)), Path("/nowhere"), ())


def test_what_differs_in_some_rows_alone_is_noted_there() -> None:
    """The sweeps have one name, as before and after a change of its file."""
    lr = {"train": {"lr": 2}, "eval": {"split": "test"}}
    pending = Study.record("late", state="pending")
    second = side("b", *trained("x", 21.0, config=lr), *trained("y", 21.0), pending)
    table = compared(side("a", *trained("x", 20.0), *trained("y", 20.0)), replace(second, plan=side("a").plan))
    assert [column.label for column in table.columns] == ["a (first)", "a (second)", "difference"]
    assert [row.notes for row in table.rows] == [
        ("Also differs in train.lr (1 and 2).",),
        (),
        ("Only in a (second).",),
    ]
    assert table.notes[1:] == ("No setting differs in all rows.", "Trials without results: a (second): 1.")


def test_settings_that_differ_are_spelt_as_in_a_sweep_file() -> None:
    ema, none = ({"train": {"ema": value}, "render": {"antialiasing": value is None}} for value in ([1, 2], None))
    table = compared(side("a", *trained("x", 20.0, config=ema)), side("b", *trained("x", 21.0, config=none)))
    assert "All rows differ in train.ema ([1, 2] and null); render.antialiasing (false and true)." in table.notes


def test_of_many_settings_that_differ_eight_are_listed() -> None:
    for count, end in ((8, "train.s7 (1 and 2)."), (10, "train.s7 (1 and 2) and 2 more.")):
        one, two = ({"train": {f"s{index}": value for index in range(count)}} for value in (1, 2))
        table = compared(side("a", *trained("x", 20.0, config=one)), side("b", *trained("x", 21.0, config=two)))
        assert table.notes[1].endswith(end)


def test_differences_have_the_digits_of_their_metric() -> None:
    sides = [side(name, *trained("x", 0.5, column="novel_ssim")) for name in "ab"]
    assert [column.precision for column in compare(*sides, Path("/nowhere"), ("novel_ssim",)).columns] == [3, 3, 3]


def test_a_column_that_is_named_twice_is_refused() -> None:
    """Its tests would count twice in the correction."""
    sides = [side(name, *trained("x", 20.0)) for name in "ab"]
    with pytest.raises(ValueError, match="the column 'novel_psnr' is listed 2 times"):
        compare(*sides, Path("/nowhere"), ("novel_psnr", "novel_psnr"))


def test_code_with_uncommitted_changes_is_other_code() -> None:
    commits = [{COMMIT: "0123456789"}, {COMMIT: "0123456789", CODE_CHANGED: "true"}]
    ours, theirs = (Study.trained("x", 20.0, tags={DATA_FINGERPRINT: "d1", **tags}) for tags in commits)
    table = compared(side("a", *ours), side("b", *theirs))
    assert "All rows differ in code (0123456 and 0123456 with changes)." in table.notes


def test_what_has_not_run_has_no_other_code() -> None:
    pending = Study.record("x", state="pending", config={"train": {"lr": 2}})
    ran = Study.record("x", scores={"novel_psnr": [1.0]}, config={"train": {"lr": 1}}, tags={COMMIT: "0123456789"})
    for sides, values in (((ran, pending), "1 and 2"), ((pending, ran), "2 and 1")):
        notes = compared(side("a", sides[0]), side("b", sides[1])).notes
        assert f"All rows differ in train.lr ({values})." in notes


def test_nothing_to_compare_is_an_error_with_the_reasons() -> None:
    with pytest.raises(ResultsError, match=r"cannot be compared.*: data d1 and d2"):
        compared(side("a", *trained("x", 20.0)), side("b", *trained("x", 21.0, data="d2")))
    blank = trained("blank", 10.0, control=True)
    with pytest.raises(ResultsError, match=r"no row has the same name in both sweeps; rows of a: x; of b: y"):
        compared(side("a", *trained("x", 20.0), *blank), side("b", *trained("y", 21.0), *blank))


def test_only_shared_seeds_count_and_shared_trials_are_not_tested() -> None:
    common = trained("same", 20.0)
    table = compared(
        side("a", *trained("x", 20.0, seeds=2)),
        side("b", *trained("x", 21.0, seeds=3)),
    )
    assert len(table.rows[0].cells[2].values) == 2
    assert "Seeds of one side alone, left out of the difference: 2." in table.rows[0].notes
    later = compared(side("a", *trained("x", 20.0)[1:]), side("b", *trained("x", 21.0)))
    assert later.notes[1] == "No setting differs in all rows.", "a seed is none"
    both = [replace(Study.evidence(*common), plan=replace(Study.evidence().plan, sweep=name)) for name in "ab"]
    table = compared(*both)
    assert table.rows[0].notes == ("The same trials in both.",)
    assert len(table.notes) == 1
    assert means(table, 0) == [20.0, 20.0, None]
    more = replace(both[1], records=(*both[1].records, *trained("same", 22.0, seeds=4)[3:]))
    table = compared(both[0], more)  # a seed was added; the trials that both have do not differ from themselves
    assert table.rows[0].notes == ("The same trials in both, and seeds of one side alone: 3.",)
    assert table.rows[0].cells[1].comparison is table.rows[0].cells[2].mean is None


def test_rows_are_paired_by_all_names_of_their_trials() -> None:
    """Equal trials are one row: what a sweep calls `baseline` may stand under the name of another."""
    table = compared(
        side("a", *trained("baseline", 20.0), *trained("tv", 20.5)),
        side("b", *trained("plain", 21.0, names=("plain", "baseline")), *trained("tv", 22.0), *trained("new", 18.0)),
    )
    assert [row.label for row in table.rows] == ["baseline", "tv", "new"]
    assert means(table, 0) == [20.0, 21.0, 1.0]
    assert table.rows[0].notes == ("Called plain in b.", "b: The same configuration as baseline.")
    assert means(table, 1) == [20.5, 22.0, 1.5]
    assert table.rows[2].notes == ("Only in b.",)
    table = compared(
        side("a", *trained("x", 20.0, names=("x", "y"))), side("b", *trained("x", 21.0), *trained("y", 22.0))
    )
    assert [row.label for row in table.rows] == ["x", "y"]
    assert [means(table, row)[2] for row in (0, 1)] == [1.0, 2.0]
    table = compared(
        side("a", *trained("y", 20.0)), side("b", *trained("y", 22.0), *trained("x", 21.0, names=("x", "y")))
    )
    assert (table.rows[0].label, means(table, 0)[2]) == ("y", 2.0), "a row's own name counts first"


def test_trivial_baselines_come_last() -> None:
    sides = [
        side(
            name,
            *trained("blank", 10.0, control=True),
            *trained("x", 20.0, config=CONFIG | {"train": {"lr": lr}}),
            *trained(f"of {name}", 20.0),
        )
        for name, lr in (("a", 1), ("b", 2))
    ]
    table = compared(*sides)
    assert [row.label for row in table.rows] == ["x", "of a", "of b", "blank"]
    assert table.notes[1] == "All rows differ in train.lr (1 and 2).", "all trained ones"


@pytest.mark.parametrize("suffix", [".md", ".html", ".tex", "_wide.tex", ".csv", ".json"])
def test_it_is_written_in_every_format(tmp_path: Path, suffix: str) -> None:
    table = compared(side("a", *trained("x<b>", 20.0)), side("b", *trained("x<b>", 21.0)))
    text = writer(tmp_path / f"new/both{suffix}")(table).read_text()
    assert "21.0" in text
    assert suffix != ".html" or (not re.search("x<b>", text) and text.count("<script>") == 1)
    if suffix.endswith(".tex"):
        # Two comparisons in a paper have labels of their own, and the file that a warning names can be written.
        assert r"\label{tab:both}" in text
        assert r"\begin{table*}" in text if suffix == "_wide.tex" else "both_wide.tex spans all columns" in text


def test_an_unknown_format_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"no format is called '.pdf'; allowed: .html, .tex"):
        writer(tmp_path / "both.pdf")
