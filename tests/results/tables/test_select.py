"""Selectors: the trials of a row."""

from __future__ import annotations

from typing import Any

import pytest

from results.tables.select import configurations, rows_with, selected, varying

TV: dict[str, Any] = {
    "depth": {"model": "none"},
    "train": {"stages": [{"losses": {"l2": 1.0, "tv": 0.01}}], "ema": True},
}
DPT: dict[str, Any] = {
    "depth": {"model": "dpt_large", "fusion": "input"},
    "train": {"stages": [{"losses": {"l2": 1.0}}]},
}


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ({}, ["tv", "dpt"]),
        ({"depth.model": "dpt_*"}, ["dpt"]),
        ({"depth.model": ["dpt_large", "none"]}, ["tv", "dpt"]),
        ({"depth.model": None}, ["tv"]),
        ({"depth.model": "none"}, ["tv"]),
        ({"depth.fusion": None}, ["tv"]),
        ({"train.stages.*.losses.tv": 0.01}, ["tv"]),
        ({"train.stages.*.losses.tv": "*"}, ["tv"]),
        ({"train.stages.*.losses.tv": None}, ["dpt"]),
        ({"train.stages.*.losses.tv": 0.0}, ["dpt"]),
        ({"train.stages.*.losses.tv": [0, 0.01]}, ["tv", "dpt"]),
        ({"train.stages.*.losses.tv": False}, []),
        ({"train.ema": True}, ["tv"]),
        ({"train.ema": 1}, []),
        ({"depth.rate": 0}, []),
        ({"trial": "d*"}, ["dpt"]),
        ({"trial": "alias"}, ["tv"]),
        ({"trial": "lr [1e-3]"}, ["tv"]),
        ({"trial": "lr ?1e-3?"}, []),
        ({"trial": "lr [1*]"}, ["tv"]),
        ({"depth.model": "dpt_*", "depth.fusion": "xattn"}, []),
    ],
)
def test_selected(make, selector: dict[str, Any], names: list[str]) -> None:
    records = [make.record("tv", config=TV, names=("tv", "alias", "lr [1e-3]")), make.record("dpt", config=DPT)]
    assert [record.planned.name for record in selected(records, selector)] == names


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ({"train.stages.*.losses.tv": None}, ["without"]),
        ({"train.stages.*.losses.tv": 0}, ["without"]),
        ({"train.stages.0.losses.tv": "none"}, ["without"]),
        ({"train.stages.*.losses.tv": "*"}, ["late"]),
        ({"train.stages.*.losses.tv": 0.01}, []),
        ({"train.stages.*.losses.tv.weight": 0.01}, ["late"]),
        ({"train.ema": None}, ["without"]),
        ({"train.ema": "*"}, ["late"]),
    ],
)
def test_settings_with_parts_are_not_absent(make, selector: dict[str, Any], names: list[str]) -> None:
    losses = [{"l2": 1.0}, {"l2": 1.0, "tv": {"weight": 0.01, "start": 100, "views": None}}]
    configs = [{"train": {"stages": [{"losses": terms}], "ema": None}} for terms in losses]
    configs[1]["train"]["ema"] = {"every": 10}
    records = [make.record(name, config=config) for name, config in zip(("without", "late"), configs, strict=True)]
    assert [record.planned.name for record in selected(records, selector)] == names


def test_configurations_differ_by_more_than_their_seed(make) -> None:
    records = [make.record("a", 0, config=TV), make.record("a", 1, config=TV), make.record("a", 2, config=DPT)]
    assert [[record.planned.seed for record in group] for group in configurations(records)] == [[0, 1], [2]]
    renamed = [make.record("a", 0, config=TV), make.record("b", 1, config=TV)]
    assert len(configurations(renamed)) == 2
    assert varying([record.planned.flat_config for record in records]) == [
        "depth.model",
        "train.stages.0.losses.tv",
        "train.ema",
        "depth.fusion",
    ]
    assert varying([record.planned.flat_config for record in renamed]) == []


def test_of_equal_rows_with_a_setting_the_first_is_named() -> None:
    rows = {"a": {"x": 1, "y": 2}, "b": {"y": 2, "x": 1}, "c": {"x": 1, "y": 3}, "d": {"x": 2}}
    assert rows_with(rows, {"x": 1}) == ["a", "c"]
