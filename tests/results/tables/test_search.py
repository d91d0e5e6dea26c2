"""The table of a search: its best configurations, and the importance of settings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from results.load import Evidence, TrialRecord
from results.records.plan import SearchState
from results.tables.search import Options, build


def searched(make, count: int = 30) -> list[TrialRecord]:
    """Trials whose score depends on the weight and hardly on the other setting."""
    return [
        item
        for index in range(count)
        for item in make.trained(
            f"trial {index}",
            20.0 - abs(index - 20) / 5,
            seeds=1,
            objects=4,
            config={"losses": {"tv": index / 100}, "depth": {"model": "ab"[index % 2]}},
        )
    ]


def test_the_best_are_first_with_their_settings(make) -> None:
    table = build(make.evidence(*searched(make)), Options(best=3))
    assert [row.label for row in table.rows][:1] == ["trial 20"]
    assert {row.label for row in table.rows[1:]} == {"trial 19", "trial 21"}
    by_label = {column.label: index for index, column in enumerate(table.columns)}
    assert table.rows[0].cells[by_label["losses.tv"]].text == "0.2"
    assert table.rows[0].cells[by_label["depth.model"]].text == "a"
    assert "27 other finished configurations not shown." in table.notes


def test_importance_separates_relevant_settings_from_others(make) -> None:
    table = build(make.evidence(*searched(make)), Options())
    (note,) = [text for text in table.notes if "Importance" in text]
    shares = {name: int(share) for name, share in re.findall(r"([\w.]+) (\d+)%", note)}
    assert set(shares) == {"losses.tv", "depth.model"}
    assert shares["losses.tv"] > 80
    assert table.columns[0].label == "losses.tv"


def test_importance_is_that_among_the_best(make) -> None:
    notes = [
        build(make.evidence(*searched(make)), Options.model_validate({"value": {"metric": "psnr", "direction": way}}))
        for way in ("up", "down")
    ]
    assert len({next(note for note in table.notes if "Importance" in note) for table in notes}) == 2


def test_the_best_is_so_on_average_over_its_seeds(make) -> None:
    records = [
        make.record(name, seed, {"novel_psnr": [value]}, config={"lr": lr})
        for name, lr, values in (("steady", 0.123456, (24.0, 24.0)), ("higher", 1e-5, (20.0, 30.0)))
        for seed, value in enumerate(values)
    ]
    rows = build(make.evidence(*records), Options()).rows
    assert [(row.label, row.cells[0].text) for row in rows] == [("higher", "1e-05"), ("steady", "0.123")]
    one = build(make.evidence(*records[:2]), Options())
    assert not any("optimistic" in note for note in one.notes), "nothing was chosen"


def test_importance_needs_enough_trials(make) -> None:
    table = build(make.evidence(*searched(make, 5)), Options())
    assert "With 5 finished configurations, the settings' importance cannot be estimated." in table.notes
    assert [column.label for column in table.columns[:2]] == ["losses.tv", "depth.model"]


@pytest.mark.filterwarnings("error")
def test_importance_needs_scores_that_differ(make) -> None:
    records = [make.record(f"t{i}", 0, {"novel_psnr": [20.0]}, config={"lr": i, "kind": "ab"[i % 2]}) for i in range(9)]
    table = build(make.evidence(*records), Options())
    note = "With 9 finished configurations of equal scores, the settings' importance cannot be estimated."
    assert note in table.notes
    assert [column.label for column in table.columns[:2]] == ["lr", "kind"]


def test_a_section_that_an_axis_chooses_is_one_setting(make) -> None:
    sections = [None, {"every": 10, "max_decay": 0.9}]
    configs = [{"train": {"ema": section, "lr": lr}} for section in sections for lr in (1, 2)]
    evidence = make.evidence(
        *(record for i, config in enumerate(configs) for record in make.trained(f"t{i}", 20.0 + i, config=config))
    )
    axes = {"train.ema": "ema", "train.lr": "lr"}
    table = build(replace(evidence, plan=replace(evidence.plan, axes=axes)), Options())
    assert {column.label for column in table.columns[:3]} == {"train.ema", "train.lr", "PSNR"}
    place = [column.label for column in table.columns].index("train.ema")
    texts = [row.cells[place].text for row in table.rows]
    assert texts == ["every 10, max_decay 0.9", "every 10, max_decay 0.9", "null", "null"]


@pytest.mark.parametrize(
    ("axis", "loss", "shown"),
    [("tv.weight", lambda i: 0.1 * i, "tv"), ("tv", lambda i: {"weight": 0.1 * i, "start": 3}, "tv.weight")],
)
def test_what_follows_from_the_searched_settings_is_none_of_them(make, axis: str, loss: Any, shown: str) -> None:
    records = []
    for i, model in enumerate(("none", "a", "b")):
        depth = {"model": model} | ({} if model == "none" else {"preprocess": "correct"})
        config = {"depth": depth, "train": {"stages": [{"losses": {"tv": loss(i)}}]}}
        records += make.trained(f"trial {i}", 20.0 + i, config=config)
    found = make.evidence(*records)
    axes = {"depth.model": "model", f"train.stages.*.losses.{axis}": "tv"}
    table = build(replace(found, plan=replace(found.plan, axes=axes)), Options())
    assert [column.name for column in table.columns[:-6]] == ["depth.model", f"train.stages.0.losses.{shown}"]


def test_failed_trials_are_counted(make) -> None:
    table = build(make.evidence(*searched(make, 3), make.record("x", state="failed")), Options())
    assert any(note.startswith("1 configuration without a result") for note in table.notes)


def test_what_finished_without_a_finite_score_is_not_called_unfinished(make) -> None:
    diverged = [make.record(f"diverged {value}", scores={"novel_psnr": [value]}) for value in (math.nan, math.inf)]
    seeds = [*make.trained("seeds", 20.0, seeds=1), make.record("seeds", 1, state="pruned")]
    seeds += [make.record("both", 0, {"novel_psnr": [math.nan]}), make.record("both", 1, state="pruned")]
    records = [
        *searched(make, 2),
        *seeds,
        *diverged,
        make.record("x", state="failed"),
        make.record("y", state="pruned"),
    ]
    notes = build(make.evidence(*records), Options()).notes
    assert "2 finished configurations without a finite score." in notes
    assert "2 configurations pruned, since others were ahead." in notes, "of the third, a seed has a score"
    assert "1 configuration without a result, stopped or failed ones too." in notes


@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_quantity_determines_the_order(make, direction: str) -> None:
    value = {"metric": "psnr", "direction": direction}
    table = build(make.evidence(*searched(make)), Options.model_validate({"value": value, "best": 1}))
    assert table.rows[0].label == ("trial 20" if direction == "up" else "trial 0")


def proposed(make, *records: TrialRecord, searched: tuple[str, str] | None = None) -> Evidence:
    """Evidence in which all trials but `baseline` and `tv` were proposed by a search."""
    marked = [
        replace(item, planned=replace(item.planned, proposals=() if item.planned.name in ("baseline", "tv") else (0,)))
        for item in records
    ]
    evidence = make.evidence(*marked)
    return replace(evidence, plan=replace(evidence.plan, search=searched and SearchState("study", *searched, 20)))


def test_of_a_search_only_what_it_proposed_is_shown(make) -> None:
    planned = make.trained("baseline", 90.0, seeds=1, objects=4) + make.trained("tv", 91.0, seeds=1, objects=4)
    table = build(proposed(make, *planned, *searched(make, 9)), Options())
    assert len(table.rows) == 9
    assert not [note for note in table.notes if re.search("not shown|pruned|without a result", note)]
    assert not {"baseline", "tv"} & {row.label for row in table.rows}


@pytest.mark.parametrize(("direction", "best"), [("maximize", "trial 8"), ("minimize", "trial 0")])
def test_of_a_search_the_best_is_what_it_is_after(make, direction: str, best: str) -> None:
    table = build(proposed(make, *searched(make, 9), searched=("novel_psnr", direction)), Options())
    assert table.rows[0].label == best


def test_pruned_proposals_are_counted(make) -> None:
    table = build(proposed(make, *searched(make, 9), make.record("search-9", state="pruned")), Options())
    assert "1 configuration pruned, since others were ahead." in table.notes
    assert not any("without a result" in note for note in table.notes)


def test_a_setting_that_stands_in_two_places_is_one(make) -> None:
    """The case is a loss in all stages, set by `train.stages.*.losses.tv`."""
    records = [
        item
        for index in range(10)
        for item in make.trained(
            f"trial {index}", 20.0 + index, seeds=1, objects=4, config={"first": {"tv": index}, "last": {"tv": index}}
        )
    ]
    table = build(make.evidence(*records), Options())
    assert [column.label for column in table.columns if column.label.endswith("tv")] == ["first.tv"]


def test_what_was_searched_over_magnitudes_matters_as_much_as_its_exponent(make) -> None:
    """All weights but one are below a hundredth of the largest, where a linear scale would not tell them apart."""
    points = [(-6 + i / 10, 20 - abs(i - 12) - i % 2 * 4) for i in range(40)] + [(0.0, 0.0)]

    def importance(of_exponent: Callable[[float], float]) -> str:
        records = []
        for index, (exponent, mean) in enumerate(points):
            config = {"losses": {"tv": of_exponent(exponent)}, "depth": {"model": "ab"[index % 2]}}
            records += make.trained(f"trial {index}", mean, seeds=1, objects=4, config=config)
        (note,) = [text for text in build(make.evidence(*records), Options()).notes if "Importance" in text]
        return note

    assert importance(lambda exponent: 10**exponent) == importance(lambda exponent: exponent)


def test_rows_that_are_not_shown_count_among_the_tests(make) -> None:
    """Those shown were chosen by the scores that are tested."""
    records = [item for index in range(30) for item in make.trained(f"trial {index}", 20.0 + index / 100, seeds=3)]
    few, many = (build(make.evidence(*records), Options(best=best, baseline="trial 0")) for best in (3, 30))
    assert len(few.rows) == 3
    assert [row.cells for row in few.rows] == [row.cells for row in many.rows[:3]]
