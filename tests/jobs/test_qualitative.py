"""Chosen objects and views: the same pictures and scores as in the evaluation, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from jobs import qualitative
from jobs.data.prepare import open_dataset
from jobs.qualitative import draw_rows
from model.scenes import GaussianScene
from model.types import Views
from results.records.plan import PlannedTrial
from tests.conftest import TINY_DATA
from tests.trained import trained, trained_without_features

CPU = torch.device("cpu")


@pytest.fixture
def trial(home: Path) -> PlannedTrial:
    """A trained trial in `home`."""
    return trained(home)


def test_views_and_their_scores_are_those_of_the_evaluation(home: Path, trial: PlannedTrial) -> None:
    folder = home / "trials" / trial.key
    recorded = pd.read_parquet(folder / "per_object.parquet").query("metric == 'psnr' and view_kind == 'novel'")
    scores = dict(zip(recorded["object"], recorded["value"], strict=True))
    shown = draw_rows(home, {"mine": trial}, dict.fromkeys(scores, ""), (), CPU)
    # The objects have five views: three of the four novel ones are chosen.
    assert shown.views.tolist() == [[1, 3, 4], [1, 3, 4]]
    novel = draw_rows(home, {"mine": trial}, dict.fromkeys(scores, ""), (1, 2, 3, 4), CPU)
    np.testing.assert_allclose(novel.psnr["mine"].mean(1), list(scores.values()), rtol=1e-5)
    with np.load(folder / "samples.npz") as samples:
        assert samples["objects"].tolist() == list(scores)
        np.testing.assert_array_equal(shown.gallery.source, samples["source"])
        same = draw_rows(home, {"mine": trial}, dict.fromkeys(scores, ""), (1, 2, 4), CPU).gallery
        np.testing.assert_array_equal(same.target, samples["target"])
        difference = same.renders["mine"].astype(int) - samples["render"]
    assert abs(difference).max() <= 1
    assert shown.trials == {"mine": {"key": trial.key, "seed": 0}}


def test_rows_with_more_source_views_are_shown_in_views_that_are_novel_for_all(
    home: Path, trial: PlannedTrial, tiny
) -> None:
    two = trained(home, "two", model={**tiny()["model"], "input_views": 2})
    shown = draw_rows(home, {"mine": trial, "two": two}, {"chair_00008": ""}, (), CPU)
    assert shown.views.tolist() == [[1, 3, 4]]  # the second source is view 2
    alone = draw_rows(home, {"two": two}, {"chair_00008": ""}, (1, 3, 4), CPU)
    np.testing.assert_array_equal(shown.gallery.renders["two"], alone.gallery.renders["two"])


def test_an_object_may_be_of_another_split_than_the_evaluated(home: Path) -> None:
    """Features that the home lacks are computed, of all splits that are shown."""
    trial = trained_without_features(home)
    store = open_dataset(TINY_DATA["name"], TINY_DATA["options"], home)
    names = [store.split(split)["object"][0] for split in ("test", "train")]
    shown = draw_rows(home, {"mine": trial}, dict.fromkeys(names, ""), (1,), CPU)
    assert shown.gallery.objects == tuple(names)
    assert np.isfinite(shown.psnr["mine"]).all()


def test_an_object_that_cannot_be_drawn_is_black_and_its_score_is_no_number(
    home: Path, trial: PlannedTrial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in its evaluation: the object counts as the worst one, which a figure shows by default."""
    real, answers = qualitative.predicting, iter([1.0, math.nan])

    def predicting(*given: Any) -> Any:
        predict = real(*given)

        def scaled(views: Views) -> GaussianScene:
            scene = predict(views)
            return replace(scene, gaussians=replace(scene.gaussians, means=scene.gaussians.means * next(answers)))

        return scaled

    monkeypatch.setattr(qualitative, "predicting", predicting)
    shown = draw_rows(home, {"mine": trial}, {"chair_00008": "best", "chair_00009": "worst"}, (1, 2), CPU)
    assert np.isfinite(shown.psnr["mine"]).tolist() == [[True, True], [False, False]]
    assert shown.gallery.renders["mine"].any(axis=(1, 2, 3, 4)).tolist() == [True, False]
    assert "chair_00009 by mine cannot be drawn" in caplog.text


def test_mistakes_are_named(home: Path, trial: PlannedTrial) -> None:
    first = "chair_00008"
    with pytest.raises(ValueError, match=r"--view 5: object '.*' has the views 0 to 4"):
        draw_rows(home, {"mine": trial}, {first: ""}, (0, 5), CPU)
    with pytest.raises(ValueError, match=r"has no object 'chair_8'; did you mean 'chair_0000\d'\?"):
        draw_rows(home, {"mine": trial}, {"chair_8": ""}, (), CPU)
    larger = dict(trial.config, data=dict(trial.config["data"], resolution=8))
    with pytest.raises(ValueError, match=r"rows 'mine' and 'other' have other pictures \(data\.resolution\)"):
        draw_rows(home, {"mine": trial, "other": replace(trial, config=larger)}, {first: ""}, (), CPU)
