"""The exhibition: upright objects in columns, Gaussians moved with their shapes, and pictures beside them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.evaluate import object_views
from jobs.exhibits import PANEL_SHARE, SPACING, WIDTH_AT_ONE, Picture, Splats, _shown, exhibition, stand
from jobs.gaussian_sources import gaussians_on_surface
from model.scenes import GaussianScene
from model.types import Gaussians
from results.records.plan import PlannedTrial
from tests.conftest import TINY_DATA
from tests.trained import trained, trained_without_features


@pytest.fixture(scope="module")
def views(prepared_home: Path):
    """All views of one chair."""
    store = open_dataset(TINY_DATA["name"], TINY_DATA["options"], prepared_home)
    return object_views(store, next(store.split("test").itertuples()), TINY_DATA["resolution"])


def test_an_object_stands_upright_with_its_input_view_to_the_front(views) -> None:
    place = stand(views.cameras, 0, 0)
    camera = views.cameras.world_to_camera[0, 0].double().numpy()
    position = place.axes @ (-camera[:3, :3].T @ camera[:3, 3] - place.middle)
    assert position[0] > 0
    assert abs(position[1]) < 1e-3 * position[0]  # in the plane of x and z
    surface = place.splats(gaussians_on_surface(views.select(0, 4)))
    assert np.abs(surface.centers).max() < 1.2  # what the input view shows lies within one unit
    assert np.ptp(surface.centers[:, 2]) > 0.5


def test_gaussians_keep_their_shapes_and_places(views) -> None:
    place = stand(views.cameras, 2, 1)
    turn = Rotation.from_euler("xyz", [0.3, -0.8, 1.1])
    one = Gaussians(
        means=torch.tensor(place.middle)[None, None] + torch.tensor([0.1, 0.0, 0.0]),
        scales=torch.tensor([[[0.3, 0.2, 0.1]]]),
        rotations=torch.from_numpy(turn.as_quat(scalar_first=True)).float()[None, None],
        opacities=torch.tensor([[[0.7]]]),
        sh=torch.zeros(1, 1, 4, 3),
    )
    found = place.splats(one)
    moved = place.axes @ turn.as_matrix() @ np.diag([0.3, 0.2, 0.1]) / place.radius
    np.testing.assert_allclose(found.covariances[0], moved @ moved.T, atol=1e-5)
    expected = place.axes @ np.array([0.1, 0, 0]) / place.radius + np.array([0, 2 * SPACING, -SPACING])
    np.testing.assert_allclose(found.centers[0], expected, atol=1e-4)
    np.testing.assert_allclose(found.colours, 0.5)
    transparent = Gaussians(one.means, one.scales, one.rotations, one.opacities * 0, one.sh)
    assert len(place.splats(transparent).centers) == 0


def test_gaussians_that_are_not_finite_are_left_out(views) -> None:
    gaussians = gaussians_on_surface(views.select(0, 4))
    rotations = gaussians.rotations.clone()
    rotations[0, 0] = math.nan
    gaussians = replace(gaussians, rotations=rotations)
    found = _shown(GaussianScene(gaussians), views, "mine", "chair", stand(views.cameras, 2, 0))
    assert len(found.content.centers) == gaussians.means.shape[1] - 1


def test_one_camera_does_not_place_an_object(views) -> None:
    with pytest.raises(ValueError, match="at least 2 views"):
        stand(views.select(0, 1).cameras, 0, 0)


def test_rows_stand_beside_the_input_and_the_truth(home) -> None:
    trial = trained(home)
    shown = exhibition(home, [trial], 2, torch.device("cpu"))
    columns = ("input", "ground truth", "mine")
    assert [label.text for label in shown.labels[:3]] == list(columns)
    kinds = [(exhibit.column, type(exhibit.content)) for exhibit in shown.exhibits]
    assert kinds == 2 * [("input", Picture), ("ground truth", Splats), ("mine", Splats)]
    for exhibit in shown.exhibits:
        if isinstance(exhibit.content, Splats):
            assert len(exhibit.content.centers) > 10
            assert all(np.isfinite(part).all() for part in vars(exhibit.content).values())
    assert math.dist(shown.camera, shown.look_at) > SPACING
    last = shown.exhibits[-1].object
    named = exhibition(home, [trial], [last], torch.device("cpu"))
    assert [exhibit.object for exhibit in named.exhibits] == [last] * 3
    # Of what the viewer sees at that distance, all columns and the names beside them are left of its panel.
    width = shown.camera[0] * WIDTH_AT_ONE
    left = shown.look_at[1] - width / 2
    assert left <= -SPACING
    assert left + width * (1 - PANEL_SHARE) >= SPACING * (len(columns) - 0.5)


def test_a_named_object_may_be_of_another_split_than_the_evaluated(home) -> None:
    """Features that the home lacks are computed, of all splits that are shown."""
    trial = trained_without_features(home)
    store = open_dataset(TINY_DATA["name"], TINY_DATA["options"], home)
    names = [store.split(split)["object"][0] for split in ("test", "train")]
    shown = exhibition(home, [trial], names, torch.device("cpu"))
    assert [exhibit.object for exhibit in shown.exhibits if exhibit.column == "mine"] == names


def test_objects_of_different_splits_are_never_on_one_line(prepared_home, tiny, monkeypatch) -> None:
    from jobs import exhibits
    from jobs.trained import LoadedNetwork, OpenedTraining
    from model.scenes import PictureScene

    def opened(home: Path, key: str) -> OpenedTraining:
        config = TrialConfig.model_validate(tiny(eval={**tiny()["eval"], "split": key}))
        return OpenedTraining(home, Path(), config, open_dataset(TINY_DATA["name"], TINY_DATA["options"], home))

    def loaded(training: OpenedTraining, _device: object, splits: set[str]) -> LoadedNetwork:
        assert splits == {training.config.eval.split}
        return LoadedNetwork(training.config, None, None)

    def picture(*_: object) -> object:
        return lambda views: PictureScene(views.images[:, 0])

    monkeypatch.setattr(exhibits, "open_trained", opened)
    monkeypatch.setattr(OpenedTraining, "load", loaded)
    monkeypatch.setattr(exhibits, "predicting", picture)
    monkeypatch.setattr(exhibits, "_shown", lambda *given: exhibits.Exhibit(*given[2:4], given[4].line))
    splits = ("test", "val", "test")
    names = ("row 0", "input", "row 2")
    trials = [PlannedTrial(split, (name,), 0, {}, "finished") for name, split in zip(names, splits, strict=True)]
    shown = exhibition(prepared_home, trials, 1, torch.device("cpu"))
    lines = {exhibit.column: exhibit.content for exhibit in shown.exhibits if "row" in exhibit.column}
    assert lines == {"row 0": 0, "input (row)": 1, "row 2": 0}
    assert [exhibit.column for exhibit in shown.exhibits].count("input") == 2
    assert len(shown.labels) == len(("input", "ground truth", *trials)) + 2
