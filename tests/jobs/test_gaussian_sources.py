"""Objects as Gaussians: measured and predicted ones match the object; errors for objects without Gaussians."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.feature_file import FeatureFile
from jobs.gaussian_sources import measured, predicted
from jobs.trial import Runtime, run_trial


@pytest.fixture
def store(home, tiny):
    return open_dataset("chairs", tiny()["data"]["options"], home)


def test_measured_gaussians_look_like_the_object(store):
    subject = measured(store)
    assert subject.name == store.split("test")["object"][0]
    views = subject.views
    error = (subject.scene.render(views.cameras, views.background).images - views.images).abs()
    hit = (views.depth[0] > 0).float()
    inside = (-F.max_pool2d(-hit, 3, stride=1, padding=1) > 0).expand(-1, 3, -1, -1)[None]
    outside = (F.max_pool2d(hit, 3, stride=1, padding=1) == 0).expand(-1, 3, -1, -1)[None]
    assert inside.float().mean() > 0.1
    assert error[inside].mean() < 0.08  # of which other views' Gaussians, and shading, are a part
    assert error[outside].mean() < 0.01


def test_measured_gaussians_lie_on_the_surface(store):
    """Points of one view, projected into another, are not in front of that view's depth."""
    subject = measured(store, store.objects["object"][1])
    depth, cameras = subject.views.depth[0], subject.views.cameras
    for view in range(depth.shape[0]):
        matrix = cameras.world_to_camera[0, view]
        points = subject.scene.gaussians.means[0] @ matrix[:3, :3].T + matrix[:3, 3]
        pixels = points[:, :2] / points[:, 2:] * cameras.focal[0, view] + cameras.principal[0, view]
        column, row = pixels.floor().long().clamp(0, 15).unbind(1)
        surface = depth[view, 0, row, column]
        assert (points[:, 2] > surface - 0.15)[surface > 0].float().mean() > 0.95


def test_objects_and_datasets_that_cannot_be_shown(store):
    with pytest.raises(ValueError, match=r"no object 'chair_0001'; did you mean 'chair_\d{5}'"):
        measured(store, "chair_0001")
    with pytest.raises(ValueError, match="holds no depth"):
        measured(replace(store, depth=None))


def test_a_trial_predicts_an_evaluated_object(home, tiny):
    trial = run_trial(TrialConfig.model_validate(tiny()), home, Runtime())
    subject = predicted(trial.folder)
    images = subject.scene.render(subject.views.cameras, subject.views.background).images
    samples = np.load(trial.folder / "samples.npz")
    assert subject.name == samples["objects"][0]
    pixels = (images[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    for sample in samples["render"][0]:
        assert any(np.array_equal(sample, picture) for picture in pixels)


def test_where_the_home_lacks_the_features_those_of_the_objects_split_are_computed(home, tiny, store):
    config = TrialConfig.model_validate(tiny(depth={"model": "oracle_noisy", "fusion": "input"}))
    trial = run_trial(config, home, Runtime())
    features = home / "cache" / "features"
    shutil.rmtree(features)
    predicted(trial.folder)
    (path,) = features.glob("*.npy")
    assert len(FeatureFile(path).frames) == len(store.split("test"))
    of_training = store.split("train")["object"][0]
    assert predicted(trial.folder, of_training).name == of_training


def test_the_moving_average_is_what_is_shown(home, tiny):
    config = tiny()
    config["train"]["ema"] = {"every": 1, "start": 0, "max_decay": 0.99}
    trial = run_trial(TrialConfig.model_validate(config), home, Runtime())
    subject = predicted(trial.folder)
    images = subject.scene.render(subject.views.cameras, subject.views.background).images
    pixels = (images[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    for sample in np.load(trial.folder / "samples.npz")["render"][0]:
        assert any(np.array_equal(sample, picture) for picture in pixels)


def test_trials_that_cannot_be_shown(home, tiny):
    blank = run_trial(TrialConfig.model_validate(tiny(model={"name": "blank"})), home, Runtime())
    with pytest.raises(ValueError, match=r"has no network \(blank\)"):
        predicted(blank.folder)
    with pytest.raises(ValueError, match="neither a trial nor a training"):
        predicted(home / "trials" / "other")
