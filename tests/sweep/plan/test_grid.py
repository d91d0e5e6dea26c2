from collections import Counter
from math import prod
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.config import TrialConfig
from sweep.file.checks import find_mistakes
from sweep.file.schema import Sweep
from sweep.plan.grid import OFF, SWITCHES, expand, varied_keys

LR, TV, BATCH = "train.stages.*.lr", "train.stages.*.losses.tv", "train.batch_size"


def _sweep(**content: Any) -> Sweep:
    return Sweep.model_validate({"name": "a", **content})


def _names(**content: Any) -> list[str]:
    return [name for name, _ in expand(_sweep(**content))]


def test_a_sweep_of_nothing_is_its_base() -> None:
    [(name, config)] = expand(_sweep(base={"train.batch_size": 4}))
    assert name == "base"
    assert config.train.batch_size == 4


def test_trials_then_grid_then_leave_one_out_each_seed_in_turn() -> None:
    content = {
        "base": {"depth.model": "oracle"},
        "trials": {"b": {}, "a": None},
        "grid": [{"axes": {BATCH: [4, 8]}}],
        "leave_one_out": ["depth.model"],
    }
    once = ["b", "a", "batch_size=4", "batch_size=8", "full", "without depth"]
    assert _names(**content) == once
    both = expand(_sweep(**content, seeds=[5, 3]))
    assert [(name, config.seed) for name, config in both] == [(name, seed) for name in once for seed in (5, 3)]


def test_axes_multiply_and_the_last_moves_fastest() -> None:
    points = expand(_sweep(grid=[{"axes": {"depth.model": ["none", "oracle"], "depth.fusion": ["input", "xattn"]}}]))
    assert [name for name, _ in points] == [
        "model=none fusion=input",
        "model=none fusion=xattn",
        "model=oracle fusion=input",
        "model=oracle fusion=xattn",
    ]
    assert points[3][1] == TrialConfig.model_validate({"depth": {"model": "oracle", "fusion": "xattn"}})


def test_excluded_points_are_left_out() -> None:
    block = {"axes": {BATCH: [1, 2, 4], LR: [1e-3, 1e-4]}, "exclude": [{BATCH: 2}, {BATCH: 4, LR: 1e-4}]}
    assert _names(grid=[block]) == ["batch_size=1 lr=0.001", "batch_size=1 lr=0.0001", "batch_size=4 lr=0.001"]


def test_zipped_axes_move_together_and_names_keep_the_order_of_axes() -> None:
    block = {"axes": {BATCH: [1, 2], TV: [0.1, 0.2], LR: [1e-3, 1e-4]}, "zip": [[LR, BATCH]]}
    assert _names(grid=[block]) == [
        "batch_size=1 tv=0.1 lr=0.001",
        "batch_size=1 tv=0.2 lr=0.001",
        "batch_size=2 tv=0.1 lr=0.0001",
        "batch_size=2 tv=0.2 lr=0.0001",
    ]


def test_an_axis_may_hold_mappings() -> None:
    points = expand(_sweep(grid=[{"axes": {"depth": [{"model": "oracle", "fusion": "xattn"}, {"model": "none"}]}}]))
    assert [(name, config.depth.model) for name, config in points] == [("depth=#1", "oracle"), ("depth=#2", "none")]


def test_true_is_not_taken_for_one() -> None:
    block = {"axes": {"render.antialiasing": [True, False]}, "exclude": [{"render.antialiasing": 1}]}
    assert [f.message for f in find_mistakes(_sweep(grid=[block]))] == ["not a value of this axis"]


def test_names_are_short_but_unique_across_blocks() -> None:
    blocks = [{"axes": {"depth.fusion": ["input"]}}, {"axes": {"semantic.fusion": ["xattn"], BATCH: [1]}}]
    assert _names(grid=blocks) == ["depth.fusion=input", "semantic.fusion=xattn batch_size=1"]


def test_a_point_of_two_blocks_is_one_trial() -> None:
    assert _names(grid=[{"axes": {BATCH: [1, 2]}}, {"axes": {BATCH: [2, 4]}}]) == [
        "batch_size=1",
        "batch_size=2",
        "batch_size=4",
    ]


def test_leave_one_out_switches_one_thing_off_at_a_time() -> None:
    base = {"semantic.encoder": "efficientnet_lite0", "depth.model": "oracle"}
    components = ["semantic.encoder", "depth.model", "train.stages.*.losses.lpips"]
    trials = dict(expand(_sweep(base=base, leave_one_out=components)))
    assert list(trials) == ["full", "without semantic", "without depth", "without lpips"]
    assert (trials["without semantic"].semantic.encoder, trials["without semantic"].depth.model) == ("none", "oracle")
    assert trials["without depth"].depth.model == "none"
    assert [set(stage.losses) for stage in trials["without lpips"].train.stages] == [{"l2"}, {"l2"}]
    assert trials["full"].train == trials["without depth"].train


def test_switches_that_are_off_leave_their_sections_out_of_the_identity() -> None:
    """The settings that the checks report as without effect are those that the key leaves out."""
    off = TrialConfig().identity()
    for switch in SWITCHES:
        section, key = switch.split(".")
        assert off[section] == {key: OFF}


@pytest.mark.parametrize("content", [{"base": {"train.batch_size": 0}}, {"trials": {"a": {"train.stages.9.lr": 1}}}])
def test_a_mistaken_sweep_does_not_expand(content: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="train"):
        expand(_sweep(**content))


_KEYS = [BATCH, "train.stages.*.losses.l1", "train.stages.*.losses.tv", "eval.objects"]


@st.composite
def _blocks(draw: st.DrawFn) -> dict[str, Any]:
    keys = draw(st.lists(st.sampled_from(_KEYS), min_size=1, unique=True))
    axes = {key: draw(st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True)) for key in keys}
    entry = st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in axes.items()})
    return {"axes": axes, "exclude": draw(st.lists(entry.filter(bool), max_size=3))}


@settings(max_examples=60, deadline=None)
@given(block=_blocks(), seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True))
def test_a_grid_is_its_product_less_what_is_excluded(block: dict[str, Any], seeds: list[int]) -> None:
    sweep = _sweep(grid=[block], seeds=seeds)
    trials = expand(sweep)
    axes, exclude = block["axes"], block["exclude"]
    points = [dict(pair.split("=") for pair in name.split()) for name, _ in trials]
    short = {key: key.split(".")[-1] for key in axes}
    for point in points:
        assert not any(all(point[short[k]] == str(v) for k, v in entry.items()) for entry in exclude)
    if not exclude:
        assert len(trials) == prod(map(len, axes.values())) * len(seeds)
    free = [entry for entry in exclude if len(entry) == 1]
    if len(exclude) == len(free) == 1:
        [key] = free[0]
        others = prod(len(values) for other, values in axes.items() if other != key)
        assert len(trials) == (prod(map(len, axes.values())) - others) * len(seeds)
    assert max(Counter((name, config.seed) for name, config in trials).values(), default=1) == 1
    assert len({config.model_dump_json() for _, config in trials}) == len(trials)
    assert expand(sweep) == trials


def _block_names(**block: Any) -> list[str]:
    return _names(grid=[block])


CONDITIONAL = {"depth.model": ["none", "oracle", "midas_small"], "depth.fusion": ["input", "xattn"]}


def test_an_axis_exists_only_where_its_condition_holds() -> None:
    assert _block_names(axes=CONDITIONAL, when={"depth.fusion": {"depth.model": ["oracle", "midas_small"]}}) == [
        "model=none",
        "model=oracle fusion=input",
        "model=oracle fusion=xattn",
        "model=midas_small fusion=input",
        "model=midas_small fusion=xattn",
    ]


def test_where_an_axis_does_not_exist_the_base_decides() -> None:
    block = {"axes": CONDITIONAL, "when": {"depth.fusion": {"depth.model": "oracle"}}}
    configs = dict(expand(_sweep(base={"depth.fusion": "input_normalised"}, grid=[block])))
    assert configs["model=midas_small"].depth.fusion == "input_normalised"
    assert configs["model=oracle fusion=xattn"].depth.fusion == "xattn"


def test_conditions_may_lead_to_conditions() -> None:
    axes = {**CONDITIONAL, "depth.resolution": [32, 64]}
    when = {"depth.resolution": {"depth.fusion": "xattn"}, "depth.fusion": {"depth.model": "midas_small"}}
    assert _block_names(axes=axes, when=when) == [
        "model=none",
        "model=oracle",
        "model=midas_small fusion=input",
        "model=midas_small fusion=xattn resolution=32",
        "model=midas_small fusion=xattn resolution=64",
    ]


def test_exclusions_and_zips_go_with_conditions() -> None:
    axes = {**CONDITIONAL, "train.batch_size": [2, 4]}
    when = {"depth.fusion": {"depth.model": ["oracle"]}}
    excluded = _block_names(axes=CONDITIONAL, when=when, exclude=[{"depth.fusion": "xattn"}])
    assert excluded == ["model=none", "model=oracle fusion=input", "model=midas_small"]
    zipped = _block_names(axes=axes, when=when, zip=[["depth.fusion", "train.batch_size"]])
    assert zipped == [
        "model=none batch_size=2",
        "model=none batch_size=4",
        "model=oracle fusion=input batch_size=2",
        "model=oracle fusion=xattn batch_size=4",
        "model=midas_small batch_size=2",
        "model=midas_small batch_size=4",
    ]


def test_the_varied_keys_are_those_of_all_parts_of_the_file_in_its_order() -> None:
    sweep = _sweep(
        trials={"named": {"semantic": {"encoder": "random"}, "depth.fusion": "input"}},
        grid=[{"axes": {"semantic.fusion": ["concat"], TV: [0.1]}}],
        leave_one_out=["depth.model"],
        search={"space": {LR: [1, 2]}, "trials": 1},
    )
    # A grid's axes are called as in the names of its points; a name taken by another key is longer.
    assert varied_keys(sweep) == {
        "semantic.encoder": "encoder",
        "depth.fusion": "depth.fusion",
        "semantic.fusion": "fusion",
        TV: "tv",
        "depth.model": "model",
        LR: "lr",
    }
