"""Settings that do not fit together: each error names the key and the values that would fit."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from jobs.config import TrainConfig, TrialConfig
from jobs.fit import check_fit
from model.options import MisfitError

NERF = {"name": "pixelnerf", "input_views": 3}
STAGE = {"iterations": 1, "lr": 0.1, "losses": {"l2": 1.0}}


def config(model, train=None, **sections) -> TrialConfig:
    """A configuration of sections that are each valid, combined without validation of the whole."""
    made = TrialConfig.model_validate({"model": model, "train": {"views_per_object": 5, "stages": [STAGE]}})
    train = TrainConfig.model_validate({"stages": [STAGE]} | (train or {}))
    others = {name: getattr(TrialConfig.model_validate({name: value}), name) for name, value in sections.items()}
    return made.model_copy(update={"train": train} | others)


def losses(**terms):
    return {"stages": [STAGE | {"losses": {"l2": 1.0} | terms}]}


@pytest.mark.parametrize(
    ("parts", "key", "message"),
    [
        (
            config({"input_views": 5}),
            "model.input_views",
            "model.input_views 5 is more than train.views_per_object 4, which they are among",
        ),
        (
            config(NERF, losses(lpips=0.1)),
            "train.stages.0.losses.lpips",
            "needs whole views, and model.name pixelnerf is trained on single pixels; allowed: l1, l2",
        ),
        (
            config(NERF, losses(big_gaussians=0.1)),
            "train.stages.0.losses.big_gaussians",
            "needs a scene of Gaussians, and model.name pixelnerf makes none; allowed: l1, l2",
        ),
        (
            config(NERF, losses(l1={"weight": 1.0, "views": 2})),
            "train.stages.0.losses.l1.views",
            "views 2 needs whole views, and model.name pixelnerf is trained on single pixels; allowed: null",
        ),
        (
            config(NERF, depth={"model": "oracle"}),
            "depth.model",
            "depth.model oracle is context, which model.name pixelnerf does not take; allowed: none",
        ),
        (
            config({"backbone": "transformer"}, semantic={"encoder": "clip_vit_b32", "fusion": "concat"}),
            "semantic.fusion",
            r"the network (model.backbone transformer) does not have; allowed: film, xattn, xattn_tokens",
        ),
        (
            config({}, data={"resolution": 96}, depth={"model": "oracle", "fusion": "film"}),
            "model.attention_resolutions",
            "depth.fusion film enters blocks at model.attention_resolutions [8], and no level has such a side: "
            "at data.resolution 96 the U-Net's levels have 96, 48, 24, 12",
        ),
        (
            config({"attention_resolutions": []}, semantic={"encoder": "clip_vit_b32", "fusion": "xattn"}),
            "model.attention_resolutions",
            "semantic.fusion xattn enters blocks at model.attention_resolutions [], and no level has such a side: "
            "at data.resolution 32 the U-Net's levels have 32, 16, 8, 4",
        ),
        (
            config({}, losses(lpips={"weight": 0.1, "start": 1})),
            "train.stages.0.losses.lpips.start",
            "train.stages.0.losses.lpips.start 1 is not below train.stages.0.iterations 1, so the loss would never act",
        ),
    ],
)
def test_misfits_name_the_key_and_what_fits(parts, key, message):
    with pytest.raises(MisfitError) as caught:
        check_fit(parts)
    assert caught.value.key == key
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("model", "fusion"),
    [
        ({}, "input"),
        ({"attention_resolutions": [8, 16]}, "xattn"),
        ({"backbone": "transformer"}, "xattn"),
    ],
    ids=["at the input", "at one of the listed sides", "in every block"],
)
def test_context_that_enters_somewhere_fits_pictures_of_any_size(model, fusion):
    check_fit(config(model, data={"resolution": 128}, depth={"model": "oracle", "fusion": fusion}))


def test_a_unet_without_context_may_have_no_attention_in_its_blocks():
    check_fit(config({}, data={"resolution": 128}))


def test_a_loss_may_start_in_the_last_iteration_and_not_reach_its_full_weight():
    late = {"weight": 0.1, "start": 4, "ramp": 9}
    check_fit(config({}, {"stages": [STAGE | {"iterations": 5, "losses": {"l2": 1.0, "tv": late}}]}))


def test_sources_and_a_loss_may_be_all_views_that_are_drawn():
    everything = {"losses": {"l2": {"weight": 1.0, "views": 4}}}
    check_fit(config({"input_views": 4}, {"views_per_object": 4, "stages": [STAGE | everything]}))


def test_the_loss_lpips_needs_views_as_large_as_the_metric_does():
    small = {"data": {"resolution": 8}, "eval": {"metrics": ["psnr"]}}
    with pytest.raises(
        ValidationError, match=r"0\.losses\.lpips \(vgg\) needs data.resolution 16 or more, got 8; allowed: "
    ):
        TrialConfig.model_validate(small | {"train": losses(lpips=0.1)})
    TrialConfig.model_validate(small | {"train": losses()})


def test_sources_of_a_method_of_pixels_are_not_among_its_targets():
    check_fit(config(NERF, {"views_per_object": 1}))


def test_what_training_would_need_does_not_concern_a_control():
    check_fit(config({"name": "blank", "input_views": 9}, losses(lpips=0.1), depth={"model": "oracle"}))
