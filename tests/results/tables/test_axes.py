"""Axes: the settings that vary, those that vary together as one, and what follows from them last."""

from __future__ import annotations

import pytest

from results.tables.axes import Axis, find_axes, named_axis


def test_settings_that_vary_together_are_one_axis_with_the_declared_ones_first() -> None:
    configs = [
        {"depth.model": "none", "train.lr": 1e-3, "train.stages.0.losses.tv": 0.1, "train.stages.1.losses.tv": 0.1},
        {"depth.model": "a", "depth.resolution": 96, "depth.fusion": "input", "train.lr": 1e-3},
        {"depth.model": "a", "depth.resolution": 96, "depth.fusion": "xattn", "train.lr": 1e-4},
    ]
    declared = {"train.lr": "lr", "train.stages.*.losses.tv": "tv", "depth.model": "model", "depth.fusion": "fusion"}
    axes = find_axes(configs, declared)
    # tv, model and the resolution that follows from it divide the configurations alike.
    assert [(axis.label, axis.keys) for axis in axes] == [
        ("lr", ("train.lr",)),
        ("tv, model", ("train.stages.*.losses.tv", "depth.model")),
        ("fusion", ("depth.fusion",)),
    ]
    assert [axis.value(config) for config in configs for axis in axes[:2]] == [
        "0.001", "0.1, none", "0.001", "a", "0.0001", "a",
    ]  # fmt: skip


def test_what_the_file_does_not_vary_follows_last() -> None:
    configs = [{"a.x": 1, "b.y": 1}, {"a.x": 2, "b.y": 1}, {"a.x": 1, "b.y": 2}, {"a.x": 1, "b.y": 3}]
    assert [(axis.label, axis.is_declared) for axis in find_axes(configs, {"b.y": "y"})] == [("y", True), ("x", False)]


def test_settings_that_follow_are_called_by_the_first_and_parts_stand_where_their_section_does() -> None:
    configs = [{"a.x": 1, "b.y": 1}, {"a.x": 2, "b.y": 2}]
    assert find_axes(configs, {}) == [Axis("x", ("a.x",), is_declared=False)]
    configs = [{"b": 1, "s.0.lr": 1}, {"b": 2, "s.0.lr": 1}, {"b": 1, "s.0.lr": 2}]
    assert [axis.label for axis in find_axes(configs, {"s": "s", "b": "b"})] == ["lr", "b"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-3, "0.001"), (0.123456789, "0.123456789"), (1.0, "1"), ([1, 2.0], "1-2"), (None, "null"), (True, "true")],
)
def test_values_are_written_as_in_the_names_of_a_grid(value: object, text: str) -> None:
    assert Axis("x", ("x",)).value({"x": value}) == text


def test_stages_that_differ_from_each_other_are_axes_of_their_own() -> None:
    configs = [{"s.0.lr": first, "s.1.lr": second} for first in (1, 2) for second in (1, 2)]
    assert [axis.keys for axis in find_axes(configs, {})] == [("s.0.lr",), ("s.1.lr",)]
    assert [axis.keys for axis in find_axes(configs[:2], {})] == [("s.1.lr",)], "the first stage does not vary"


def test_a_searched_weight_is_the_loss_that_has_it_alone() -> None:
    configs = [{"s.0.tv": 0.5}, {"s.0.tv": 0.25}]
    assert find_axes(configs, {"s.*.tv.weight": "weight"}) == [Axis("weight", ("s.*.tv.weight",))]


def test_settings_below_a_declared_one_count_as_declared() -> None:
    configs = [{"stages.0.lr": 1, "other": 1}, {"stages.0.lr": 2, "other": 1}, {"stages.0.lr": 2, "other": 2}]
    axes = find_axes(configs, {"stages": "stages"})
    assert [(axis.label, axis.is_declared) for axis in axes] == [("lr", True), ("other", False)]


def test_an_axis_is_found_by_its_key_and_by_its_short_name() -> None:
    configs = [{"depth.model": "a", "s.0.tv": 1}]
    declared = {"depth.model": "model", "s.*.tv": "tv"}
    assert named_axis("model", configs, declared) == named_axis("depth.model", configs, declared)
    assert named_axis("s.0.tv", configs, declared) == Axis("tv", ("s.0.tv",))
    assert named_axis("s.0.tv", configs, {"s.0.tv": "first tv"}).label == "first tv"
    with pytest.raises(ValueError, match=r"no setting is called 'depth\.modle'; near it: depth\.model"):
        named_axis("depth.modle", configs, declared)
    with pytest.raises(ValueError, match=r"no setting is called 'zzz'; near it: model, tv"):
        named_axis("zzz", configs, declared)


def test_a_section_is_an_axis_of_its_parts_that_vary() -> None:
    configs = [
        {"train.ema": None, "s.0.losses.l2": 1.0},
        {"train.ema.every": 10, "train.ema.max_decay": 0.9, "s.0.losses.l2": 1.0, "s.0.losses.tv": 0.1},
        {"train.ema.every": 10, "train.ema.max_decay": 0.99, "s.0.losses.l2": 1.0, "s.0.losses.tv": 0.1},
    ]
    declared = {"train.ema": "ema", "train.ema.max_decay": "max_decay", "s.*.losses": "losses"}
    ema, losses = named_axis("ema", configs, declared), named_axis("s.*.losses", configs, declared)
    assert [ema.value(config) for config in configs] == ["null", "every 10, max_decay 0.9", "every 10, max_decay 0.99"]
    assert [losses.value(config) for config in configs] == ["–", "tv 0.1", "tv 0.1"]
