import pickle

import pytest
from pydantic import ValidationError

from jobs.config import TrialConfig
from results.records.flat import flatten


def config(**sections) -> TrialConfig:
    return TrialConfig.model_validate(sections)


@pytest.mark.parametrize(
    ("sections", "place", "message"),
    [
        ({"data": {"name": "chair"}}, ("data", "name"), "unknown dataset 'chair'.*did you mean 'chairs'"),
        ({"data": {"resolution": 30}}, ("data", "resolution"), "multiple of 8"),
        ({"train": {"batchsize": 3}}, ("train", "batchsize"), "Extra inputs"),
        ({"model": {"base_dim": "16"}}, ("model", "base_dim"), "valid integer"),
        ({"seed": -1}, ("seed",), "greater than or equal to 0"),
        ({"data": {"resolution": 8}, "model": {"channel_mult": [1] * 5}}, (), "cannot be halved 4 times"),
        ({"data": {"resolution": 8}, "model": {"channel_mult": [1]}}, (), "needs data.resolution 16 or more"),
        (
            {"depth": {"model": "oracle", "fusion": "concat"}},
            ("depth",),
            r"the output of this model \(map\); allowed: film",
        ),
        ({"depth": {"model": "oracle", "preprocess": "published"}}, ("depth",), "allowed: correct"),
        ({"eval": {"metrics": ["psnrs"]}}, ("eval", "metrics", 0), "unknown metric 'psnrs'.*did you mean 'psnr'"),
        ({"eval": {"metrics": []}}, ("eval", "metrics"), "at least 1 item"),
        (
            {"data": {"resolution": 16}, "model": {"channel_mult": [1]}, "eval": {"lpips": "alex"}},
            (),
            "eval.lpips alex needs data.resolution 32 or more, got 16",
        ),
        (
            {
                "train": {
                    "stages": [{"iterations": 10, "lr": 1e-3, "losses": {"l2": 1, "tv": {"weight": 1, "start": 10}}}]
                }
            },
            (),
            "losses.tv.start 10 is not below train.stages.0.iterations 10",
        ),
        (
            {"data": {"resolution": 128}, "depth": {"model": "oracle", "fusion": "xattn_positional"}},
            (),
            "no level has such a side: at data.resolution 128 the U-Net's levels have 128, 64, 32, 16",
        ),
    ],
)
def test_mistakes_are_named(sections, place, message):
    with pytest.raises(ValidationError, match=message) as caught:
        config(**sections)
    assert caught.value.errors()[0]["loc"] == place


def test_a_metric_that_the_method_renders_nothing_for_is_refused(monkeypatch):
    method = config().method
    monkeypatch.setattr(method, "geometry", lambda _: frozenset({"opacity"}))
    assert config(eval={"metrics": ["iou"]}).metrics == ("iou",)
    with pytest.raises(
        ValidationError, match=r"eval.metrics abs_rel needs inverse_depth, which model.name splatter_image renders not"
    ):
        config(eval={"metrics": ["psnr", "abs_rel"]})


def test_small_pictures_need_no_lpips():
    stages = [{"iterations": 1, "lr": 1e-3, "losses": {"l2": 1.0}}]
    small = {"data": {"resolution": 8}, "model": {"channel_mult": [1]}, "train": {"stages": stages}}
    assert config(**small, eval={"metrics": ["psnr", "ssim"]}).metrics == ("psnr", "ssim")


@pytest.mark.parametrize("value", [0, -5, 2.5, float("nan")])
def test_iterations_are_positive_whole_numbers(value):
    with pytest.raises(ValidationError):
        config(train={"stages": [{"iterations": value, "lr": 1e-3, "losses": {"l2": 1.0}}]})


def test_a_configuration_cannot_change_after_it_was_hashed():
    with pytest.raises(ValidationError):
        config().seed = 3


def test_a_loss_of_weight_0_is_the_same_as_none() -> None:
    def of(**losses) -> TrialConfig:
        return config(train={"stages": [{"iterations": 4, "lr": 1e-4, "losses": losses}]})

    assert of(l2=1.0, tv=0.0).identity() == of(l2=1.0).identity()
    assert of(l2=1.0, tv={"weight": 0, "start": 2}).identity() == of(l2=1).identity()
    assert of(l2=1.0, tv=0.1).identity() != of(l2=1.0).identity()
    with pytest.raises(ValidationError, match="one of the losses must have a weight"):
        of(l2=0.0, tv=0)


def test_settings_hold_the_defaults_that_came_later():
    vanilla = config()
    two = config(model={"gaussians_per_pixel": 2}, train={"keep": "best"}, eval={"every": 100})
    assert "model.gaussians_per_pixel" not in flatten(vanilla.identity())
    assert vanilla.settings()["model.gaussians_per_pixel"] == 1
    assert vanilla.settings()["model.backbone"] == "unet"
    assert vanilla.settings()["train.keep"] == "last"
    assert vanilla.settings()["eval.metrics"] == ["psnr", "ssim", "lpips"]
    assert (two.settings()["model.gaussians_per_pixel"], two.settings()["train.keep"]) == (2, "best")
    assert "train.keep" not in config(model={"name": "blank"}).settings(), "nothing is trained"
    l2 = {"stages": [{"iterations": 4, "lr": 1e-4, "losses": {"l2": 1.0}}]}
    pixelnerf = config(model={"name": "pixelnerf"}, train=l2)
    for each in (vanilla, two, pixelnerf, config(model={"backbone": "transformer"}, depth={"model": "oracle"})):
        identity = flatten(each.identity())
        assert identity.items() <= each.settings().items()
        assert not identity.keys() & each.omitted_defaults().keys()


def test_a_configuration_travels_between_processes():
    trial = config(depth={"model": "oracle"}, model={"backbone": "transformer"})
    assert pickle.loads(pickle.dumps(trial)) == trial
