"""Settings that do not fit together: each error names the key and the values that would fit."""

from __future__ import annotations

import pytest

from jobs.config import TrialConfig
from jobs.fit import check_fit
from model.options import MisfitError

NERF = {"name": "pixelnerf", "input_views": 3}
STAGE = {"iterations": 1, "lr": 0.1, "losses": {"l2": 1.0}}


def config(model, train=None, **sections) -> TrialConfig:
    """A configuration of sections that are each valid, combined without validation of the whole."""
    made = TrialConfig.model_validate({"model": model, "train": {"views_per_object": 5, "stages": [STAGE]}})
    train = TrialConfig.model_validate({"train": {"stages": [STAGE]} | (train or {})}).train
    others = TrialConfig.model_validate(sections)
    return made.model_copy(update={"train": train} | {name: getattr(others, name) for name in sections})


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
    ],
)
def test_misfits_name_the_key_and_what_fits(parts, key, message):
    with pytest.raises(MisfitError) as caught:
        check_fit(parts)
    assert caught.value.key == key
    assert message in str(caught.value)


def test_sources_of_a_method_of_pixels_are_not_among_its_targets():
    check_fit(config(NERF, {"views_per_object": 1}))


def test_what_training_would_need_does_not_concern_a_control():
    check_fit(config({"name": "blank", "input_views": 9}, losses(lpips=0.1), depth={"model": "oracle"}))
