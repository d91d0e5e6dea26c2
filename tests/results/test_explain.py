"""Tracing a number back to its runs, objects, data and code."""

from __future__ import annotations

import json

import pytest

from results.errors import ResultsError
from results.explain import explain
from results.render.json import render as json_text
from tests.results.conftest import entry, scores


def test_a_number_is_traced_to_everything_behind_it(study, sweep) -> None:
    (found,) = explain(sweep, study.home, ["auto"], "auto", "baseline", "novel_psnr")
    assert found.cell.mean == pytest.approx(20.5)
    assert [(origin.key, origin.seed) for origin in found.origins] == [("a0", 0), ("a1", 1)]
    assert [origin.value for origin in found.origins] == pytest.approx([20.0, 21.0])
    first = found.origins[0]
    assert first.objects == ("object_0", "object_1", "object_2")
    assert first.commit == "0123abc"
    assert len(first.run_id or "") == 32
    assert first.config["data.resolution"] == 16


def test_a_column_may_be_called_by_its_title(study, sweep) -> None:
    by_title, by_name = (
        explain(sweep, study.home, ["auto"], "auto", "depth", name) for name in ("Novel views: LPIPS", "novel_lpips")
    )
    assert by_title == by_name


@pytest.mark.parametrize("trial", ["a1", "baseline seed 1"])
def test_a_row_may_be_called_by_one_of_its_trials(study, sweep, trial: str) -> None:
    (found,) = explain(sweep, study.home, ["auto"], "auto", trial, "novel_psnr")
    assert found.row.label == "baseline"


def test_a_beginning_of_several_keys_is_answered_with_these(study, sweep) -> None:
    with pytest.raises(ResultsError, match=r"'a' means 2 trials: baseline seed 0 \(a0\), baseline seed 1 \(a1\); name"):
        explain(sweep, study.home, ["auto"], "auto", "a", "novel_psnr")


def test_a_row_may_be_called_by_any_name_of_its_trials(recorded, sweep, tmp_path) -> None:
    """Rows of a table file have labels of their own, and equal trials are one row under the first of their names."""
    recorded.plan([entry(f"a{seed}", "plain", seed, names=["plain", "baseline"]) for seed in (0, 1)])
    recorded.record("a0", "plain", 0, per_object=scores(20.0, 0.8, 0.2))
    own = tmp_path / "own.yaml"
    sections = "sections: [{rows: [{label: Ours, select: {trial: plain}}]}]"
    own.write_text(f"tables: [{{name: own, caption: c, {sections}}}]")
    for table, name, label in (("auto", "baseline", "plain"), ("own", "plain", "Ours"), ("own", "baseline", "Ours")):
        (found,) = explain(sweep, recorded.home, ["auto", str(own)], table, name, "novel_psnr")
        assert found.row.label == label


def test_the_table_of_costs_that_every_report_has_is_explained(study, sweep) -> None:
    (found,) = explain(sweep, study.home, ["auto"], "costs", "baseline", "cost_parameters")
    assert [origin.key for origin in found.origins] == ["a0", "a1"]


def test_a_failed_trial_explains_a_missing_number(study, sweep) -> None:
    (found,) = explain(sweep, study.home, ["auto"], "auto", "broken", "novel_psnr")
    (origin,) = found.origins
    assert (origin.value, origin.state, origin.note) == (None, "failed", "loss is not finite at step 7")
    assert origin.objects == ()


def test_a_continued_training_and_its_best_weights_are_named(recorded, sweep) -> None:
    recorded.plan([entry("a0", "baseline", 0), entry("a1", "baseline", 1)], [])
    lineage = "training 0123 at iteration 500"
    named = {"splatsweep.continued_from": lineage, "splatsweep.judged_step": "700"}
    for seed, tags in enumerate((named, {})):
        recorded.record(f"a{seed}", "baseline", seed, per_object=scores(20.0, 0.8, 0.2), tags=tags)
    (found,) = explain(sweep, recorded.home, ["auto"], "auto", "baseline", "novel_psnr")
    assert [(each.continued_from, each.judged_step) for each in found.origins] == [(lineage, "700"), ("", "")]


def test_a_failed_seed_takes_no_value_of_another(recorded, sweep) -> None:
    recorded.plan([entry(f"a{seed}", "baseline", seed) for seed in range(3)])
    for seed, status in enumerate(("finished", "failed", "finished")):
        per_object = scores(20.0 + seed, 0.8, 0.2) if status == "finished" else None
        recorded.record(f"a{seed}", "baseline", seed, status, per_object)
    (found,) = explain(sweep, recorded.home, ["auto"], "auto", "baseline", "novel_psnr")
    assert [(each.seed, each.value) for each in found.origins] == [
        (0, pytest.approx(20.0)),
        (1, None),
        (2, pytest.approx(22.0)),
    ]


def test_a_finished_seed_without_the_metric_leaves_the_others_their_values(recorded, sweep) -> None:
    """Trials of an earlier version have no costs, or lack a metric that the evaluation has now."""
    recorded.plan([entry(f"a{seed}", "baseline", seed) for seed in range(3)])
    for seed in range(3):
        per_object = scores(20.0 + seed, 0.8, 0.2)
        per_object = per_object[per_object["metric"] != "psnr"] if seed == 1 else per_object
        recorded.record(f"a{seed}", "baseline", seed, per_object=per_object)
    (found,) = explain(sweep, recorded.home, ["auto"], "auto", "baseline", "novel_psnr")
    assert [origin.value for origin in found.origins] == [pytest.approx(20.0), None, pytest.approx(22.0)]
    assert found.origins[1].state == "finished"


def test_a_cell_of_a_pivot_is_traced_to_its_own_trials(recorded, sweep) -> None:
    settings = {f"{lr}{model}": {"train": {"lr": lr}, "depth": {"model": model}} for lr in (1, 2) for model in "xy"}
    recorded.plan([entry(key, key, config=config) for key, config in settings.items()], [])
    for psnr, key in enumerate(settings, start=20):
        recorded.record(key, key, 0, per_object=scores(psnr, 0.8, 0.2))
    table = explain(sweep, recorded.home, ["pivot"], "pivot", "1", "model: y")[0].table
    (found,) = explain(sweep, recorded.home, ["pivot"], "pivot", "1", "model: y")
    assert [(origin.key, origin.value) for origin in found.origins] == [("1y", pytest.approx(21.0))]
    as_json = json.loads(json_text(table))
    assert [source["key"] for source in as_json["rows"][0]["cells"]["novel_psnr[y]"]["sources"]] == ["1y"]


def test_a_cell_of_a_category_names_its_objects_only(recorded, sweep) -> None:
    per_object = scores(20.0, 0.8, 0.2)
    per_object["category"] = per_object["object"].map({"object_0": "car", "object_1": "chair", "object_2": "car"})
    recorded.plan([entry("a0", "baseline")], [])
    recorded.record("a0", "baseline", per_object=per_object)
    for column, objects in {
        "novel_psnr": ("object_0", "object_1", "object_2"),
        "novel_psnr[car]": ("object_0", "object_2"),
        "Novel views: PSNR: chair": ("object_1",),
    }.items():
        (found,) = explain(sweep, recorded.home, ["categories"], "categories", "baseline", column)
        assert found.origins[0].objects == objects


def test_an_empty_cell_of_a_pivot_has_no_trials(recorded, sweep) -> None:
    settings = {f"{lr}{model}": {"train": {"lr": lr}, "depth": {"model": model}} for lr in (1, 2) for model in "xy"}
    del settings["1y"]
    recorded.plan([entry(key, key, config=config) for key, config in settings.items()], [])
    for psnr, key in enumerate(settings, start=20):
        recorded.record(key, key, 0, per_object=scores(psnr, 0.8, 0.2))
    (found,) = explain(sweep, recorded.home, ["pivot"], "pivot", "1", "model: y")
    assert not found.origins


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("autos", "baseline", "novel_psnr"), "no table 'autos'; did you mean 'auto'"),
        (("auto", "baselin", "novel_psnr"), "no row 'baselin'; did you mean 'baseline'.*depth"),
        (("auto", "baseline", "psnr_novel"), "no column 'psnr_novel'.*conditioned_psnr"),
        (("pivot", "baseline", "novel_psnr"), r"'pivot' has no rows\. Nothing to show: a pivot has two axes"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(study, sweep, names, message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        explain(sweep, study.home, ["auto", "pivot"], *names)
