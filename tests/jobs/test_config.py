import pytest
from pydantic import ValidationError

from jobs.config import TrialConfig, frozen_weights, trial_key


def config(**sections) -> TrialConfig:
    return TrialConfig.model_validate(sections)


def key(trial: TrialConfig, fingerprint: str = "data", weights=None) -> str:
    return trial_key(trial, fingerprint, weights or {"vgg16": "hash"})


def test_equal_configurations_have_equal_keys_however_they_are_written():
    assert key(config()) == key(config(seed=0, render={"antialiasing": False}))
    assert key(config()) == key(config(depth={"fusion": "xattn"}, semantic={"resolution": 64}))
    assert len(key(config())) == 16


@pytest.mark.parametrize(
    "sections",
    [
        {"seed": 1},
        {"data": {"resolution": 64}},
        {"model": {"base_dim": 20}},
        {"depth": {"model": "oracle"}},
        {"semantic": {"encoder": "efficientnet_lite0"}},
        {"train": {"stages": [{"iterations": 25000, "lr": 5e-5, "losses": {"l2": 1.0, "tv": 0.1}}]}},
        {"eval": {"split": "val"}},
        {"model": {"name": "blank"}},
    ],
)
def test_whatever_decides_a_number_changes_the_key(sections):
    assert key(config(**sections)) != key(config())


def test_data_and_weights_are_in_the_key():
    assert key(config(), fingerprint="other") != key(config())
    assert key(config(), weights={"vgg16": "other"}) != key(config())


def test_trivial_predictors_do_not_depend_on_training():
    assert key(config(model={"name": "blank"}, seed=3)) == key(config(model={"name": "blank", "base_dim": 64}))


def test_identity_comes_back_as_the_same_configuration():
    trial = config(depth={"model": "oracle", "fusion": "xattn"}, seed=5)
    assert key(TrialConfig.model_validate(trial.identity())) == key(trial)


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
            r"what this model says \(map\); allowed: film",
        ),
        ({"depth": {"model": "oracle", "preprocess": "published"}}, ("depth",), "allowed: correct"),
    ],
)
def test_mistakes_are_named(sections, place, message):
    with pytest.raises(ValidationError, match=message) as caught:
        config(**sections)
    assert caught.value.errors()[0]["loc"] == place


@pytest.mark.parametrize("value", [0, -5, 2.5, float("nan")])
def test_iterations_are_positive_whole_numbers(value):
    with pytest.raises(ValidationError):
        config(train={"stages": [{"iterations": value, "lr": 1e-3, "losses": {"l2": 1.0}}]})


def test_a_configuration_cannot_change_after_it_was_hashed():
    with pytest.raises(ValidationError):
        config().seed = 3


def test_weights_of_training_and_of_judging_are_counted():
    trial = config(semantic={"encoder": "efficientnet_lite0"}, eval={"lpips": "alex"})
    assert list(frozen_weights(trial)) == ["alexnet", "efficientnet_lite0", "vgg16"]
    untrained = config(model={"name": "blank"}, semantic={"encoder": "efficientnet_lite0"}, eval={"lpips": "alex"})
    assert list(frozen_weights(untrained)) == ["alexnet"]
