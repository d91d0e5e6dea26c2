"""Conversion of parameters to configurations and back, and the probes of a space."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.config import TrialConfig
from jobs.keys import frozen_weights
from sweep.file.schema import Sweep
from sweep.search.space import configurations, count_points, examples, params_of, study_name

TV = "train.stages.*.losses.tv.weight"


def sweep(space: dict[str, Any], **more: Any) -> Sweep:
    axes = {key: {"choices": axis} if isinstance(axis, list) else axis for key, axis in space.items()}
    return Sweep.model_validate({"name": "s", "search": {"space": axes, "trials": 3}} | more)


def test_a_step_is_the_number_as_one_would_write_it() -> None:
    options = sweep({TV: {"low": 0.1, "high": 0.7, "step": 0.1}})
    for index in range(7):
        (config,) = configurations(options, {TV: 0.1 + index * 0.1})
        assert config.train.stages[0].losses["tv"].weight == round(0.1 + index / 10, 1)


@pytest.mark.parametrize(
    ("space", "params"),
    [
        ({TV: {"low": 1e-4, "high": 1.0, "log": True}}, {TV: 0.03}),
        ({"train.stages.1.losses.lpips": {"low": 0.0, "high": 1.0}}, {"train.stages.1.losses.lpips": 0.25}),
        ({"train.batch_size": {"low": 2, "high": 8, "int": True}}, {"train.batch_size": 4}),
        ({"train.ema": [None, {"every": 5}]}, {"train.ema": 0}),
        (
            {"depth.model": ["none", "oracle"], "render.antialiasing": [True, False]},
            {"depth.model": 1, "render.antialiasing": 0},
        ),
        ({"depth": [{"model": "oracle", "fusion": "xattn"}]}, {"depth": 0}),
    ],
)
def test_parameters_lead_to_a_configuration(space, params) -> None:
    options = sweep(space, seeds=[3, 4])
    configs = configurations(options, params)
    assert [config.seed for config in configs] == [3, 4]
    if "depth" not in space:  # a choice of a few keys says nothing of the others of its section
        assert params_of(options.search, configs[0]) == params


def test_values_are_set_at_their_key() -> None:
    (config,) = configurations(
        sweep({TV: {"low": 0.1, "high": 1.0}, "depth.model": ["none", "oracle"]}), {TV: 0.5, "depth.model": 1}
    )
    assert [stage.losses["tv"].weight for stage in config.train.stages] == [0.5, 0.5]
    assert config.depth.model == "oracle"


@pytest.mark.parametrize(
    "written",
    [{}, {"train.stages.0.losses.tv": 0.5}, {"train.stages.*.losses.tv": 2.0}],
    ids=["nothing", "in one stage only", "beyond the bounds"],
)
def test_a_configuration_outside_the_space_has_no_parameters(written) -> None:
    (config,) = configurations(sweep({"train.batch_size": [8]}, base=written), {"train.batch_size": 0})
    assert params_of(sweep({TV: {"low": 0.1, "high": 1.0}}).search, config) is None


@pytest.mark.parametrize("stages", [[], [{"iterations": 5, "lr": 1e-4, "losses": {"l2": 1.0}}]])
@pytest.mark.parametrize("key", ["train.stages.1.lr", "train.stages.1.losses.lpips.ramp"])
def test_a_configuration_with_fewer_stages_is_outside_the_space(stages: list[dict[str, Any]], key: str) -> None:
    config = TrialConfig.model_validate({"train": {"start": "network:a", "stages": stages}})
    assert params_of(sweep({key: {"low": 0, "high": 1}}).search, config) is None


def test_parameters_that_do_not_fit_together_make_no_configuration() -> None:
    space = {"data.resolution": [32, 40], "model.channel_mult": [[1, 2], [1, 2, 2, 2, 2]]}
    assert configurations(sweep(space), {"data.resolution": 0, "model.channel_mult": 1})
    assert configurations(sweep(space), {"data.resolution": 1, "model.channel_mult": 1}) == []


def test_examples_have_every_choice_and_both_bounds() -> None:
    found = examples(sweep({"train.batch_size": {"low": 2, "high": 8, "int": True}, "depth.model": ["none", "oracle"]}))
    assert {(config.train.batch_size, config.depth.model) for config in found} == {
        (size, model) for size in (2, 3, 8) for model in ("none", "oracle")
    }


@pytest.mark.parametrize(("is_log", "between"), [(True, 0.01), (False, 0.50005)])
def test_examples_have_a_number_between_the_bounds(is_log: bool, between: float) -> None:
    found = examples(sweep({TV: {"low": 1e-4, "high": 1.0, "log": is_log}}))
    assert [config.train.stages[0].losses["tv"].weight for config in found] == pytest.approx([1e-4, between, 1.0])


def test_many_axes_are_sampled_not_multiplied() -> None:
    space = {f"train.stages.*.losses.{name}": {"low": 0.1, "high": 1.0} for name in ("l1", "l2", "tv", "edge", "ssim")}
    space |= {"train.batch_size": {"low": 2, "high": 9, "int": True}, "train.stages.0.lr": {"low": 0.1, "high": 1.0}}
    found = examples(sweep(space))
    assert 800 < len(found) <= 1024
    assert {config.train.batch_size for config in found} == {2, 3, 9}


def test_examples_need_what_any_proposal_may_need() -> None:
    names = {
        name for config in examples(sweep({"depth.model": ["none", "midas_small"]})) for name in frozen_weights(config)
    }
    assert any("midas" in name for name in names)


@pytest.mark.parametrize(
    ("axis", "count"),
    [
        ([1, 2, 3], 3),
        ({"low": 2, "high": 9, "int": True}, 8),
        ({"low": 2, "high": 9, "int": True, "step": 3}, 3),
        ({"low": 0.0, "high": 0.3, "step": 0.1}, 4),
        ({"low": 0.0, "high": 1.0}, None),
    ],
)
def test_points_are_counted(axis, count) -> None:
    assert count_points(sweep({"model.base_dim": axis, "train.batch_size": [1, 2]}).search) == (count and 2 * count)


def test_a_study_is_that_of_its_space_metric_and_base() -> None:
    search = sweep({"train.batch_size": [1, 2]}).search
    name = study_name(search, [0], "key")
    same = search.model_copy(update={"trials": 9, "sampler": "random", "pruner": "median", "seed": 5})
    assert study_name(same, [0], "key") == name
    others = [
        study_name(search, [0, 1], "key"),
        study_name(search, [0], "another base"),
        study_name(search.model_copy(update={"metric": "novel_ssim"}), [0], "key"),
        study_name(search.model_copy(update={"direction": "minimize"}), [0], "key"),
        study_name(sweep({"train.batch_size": [1, 3]}).search, [0], "key"),
    ]
    assert len({name, *others}) == 6


def test_without_a_search_there_are_no_examples() -> None:
    assert examples(Sweep(name="s")) == []
    assert isinstance(examples(sweep({"train.batch_size": [1]}))[0], TrialConfig)


@pytest.mark.parametrize(
    ("choices", "count"),
    [
        ([1e-4, 0.0001, 1e-3], 2),
        ([1, 1.0, True], 2),
        ([[1, 2], [1.0, 2.0], [2, 1]], 2),
        ([{"every": 5}, {"every": 5.0}, None], 2),
        (["a", "b"], 2),
    ],
)
def test_equal_choices_count_once(choices: list[Any], count: int) -> None:
    axes = sweep({"train.ema": choices, "train.batch_size": [1, 2]})
    assert count_points(axes.search) == 2 * count


def test_equal_choices_are_proposed_once_and_found_again_under_the_first() -> None:
    key = "train.stages.0.lr"
    search = sweep({key: [1e-4, 0.0001, 1e-3]}).search
    (config,) = configurations(sweep({key: [1e-4, 0.0001, 1e-3]}), {key: 1})
    assert params_of(search, config) == {key: 0}


def test_a_loss_of_no_weight_is_one_that_is_not_there() -> None:
    search = sweep({"train.stages.*.losses.tv": {"low": 0.0, "high": 1.0}}).search
    assert params_of(search, TrialConfig()) == {"train.stages.*.losses.tv": 0.0}


# Conditions

MODELS = ["none", "midas_small", "oracle"]
CONDITIONAL = {
    "depth.fusion": ["input", "xattn"],
    "depth.model": MODELS,
    "train.batch_size": {"low": 2, "high": 3, "int": True},
    "when": {"depth.fusion": {"depth.model": ["midas_small", "oracle"]}, "train.batch_size": {"depth.fusion": "xattn"}},
}


def test_an_axis_applies_only_where_its_condition_holds() -> None:
    options = sweep(CONDITIONAL)
    for params in (
        {"depth.model": 0},
        {"depth.model": 1, "depth.fusion": 0},
        {"depth.model": 2, "depth.fusion": 1, "train.batch_size": 3},
    ):
        (config,) = configurations(options, params)
        assert params_of(options.search, config) == params
    (config,) = configurations(options, {"depth.model": 0})
    assert config.train.batch_size == 8, "the value of `base`"


def test_points_of_a_large_space_with_conditions_are_counted() -> None:
    numbers = {"low": 1, "high": 1000, "int": True}
    axes = {f"model.head.{name}": numbers for name in ("depth_scale", "offset_scale", "opacity_scale", "scale_scale")}
    space = sweep(axes | {"train.ema": [None, {}], "train.ema.every": numbers})
    conditional = space.search.space.model_copy(update={"when": {"train.ema.every": {"train.ema": [{}]}}})
    assert count_points(space.search.model_copy(update={"space": conditional})) == 1000**4 * (1 + 1000)


def test_examples_and_points_of_a_space_with_conditions() -> None:
    options = sweep(CONDITIONAL)
    found = {
        (config.depth.model, config.depth.fusion if config.depth.model != "none" else "", config.train.batch_size)
        for config in examples(options)
    }
    depths = MODELS[1:]
    assert found == {("none", "", 8)} | {(model, "input", 8) for model in depths} | {
        (model, "xattn", size) for model in depths for size in (2, 3)
    }
    assert count_points(options.search) == len(examples(options)) == 7


def test_conditions_tell_studies_apart_and_their_absence_changes_no_name() -> None:
    space = {key: axis for key, axis in CONDITIONAL.items() if key != "when"}
    plain, conditional = sweep(space).search, sweep(CONDITIONAL).search
    assert study_name(plain, [0], "key") != study_name(conditional, [0], "key")
    assert study_name(sweep({"train.batch_size": [1, 2]}).search, [0], "key") == "10f4c1a7e867ef20"
