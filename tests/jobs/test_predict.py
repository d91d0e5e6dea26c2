"""Photographs as source views: equal pictures give equal Gaussians, photographs give the object, bad files errors."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.data.sampling import evaluation_frames
from jobs.gaussian_sources import predicted
from jobs.photos.picture import PictureError
from jobs.predict import PhotoReconstructor, load_reconstructor
from jobs.trial import Runtime, run_trial
from model.ply import read_ply
from sweep.cli import app
from tests.conftest import TINY_DATA, tiny_configuration


def train(home: Path, config: dict[str, Any]) -> str:
    return run_trial(TrialConfig.model_validate(config), home, Runtime()).key


@pytest.fixture(scope="module")
def trained(prepared_home: Path, weights, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A read-only home with a trial of the configuration `tiny`, and its key."""
    home = tmp_path_factory.mktemp("trained") / "home"
    shutil.copytree(prepared_home, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLATSWEEP_WEIGHTS", str(weights.folder))
        return home, train(home, tiny_configuration())


def source_picture(home: Path, path: Path) -> Path:
    """The stored source picture of the first test object, as a PNG."""
    store = open_dataset("chairs", TINY_DATA["options"], home)
    row = next(store.split("test").itertuples())
    frame = evaluation_frames(row, store.manifest.evaluation)[0]
    Image.fromarray(np.asarray(store.images[frame]).transpose(1, 2, 0)).save(path)
    return path


@pytest.mark.parametrize(
    ("sections", "rounding"),
    [
        ({}, 0.0),
        # Frozen networks read pictures in batches; on some processors the last bits depend on a batch's size.
        ({"depth": {"model": "random", "fusion": "input"}}, 1e-4),
        ({"depth": {"model": "constant", "fusion": "input"}}, 0.0),
        ({"semantic": {"encoder": "efficientnet_lite0", "fusion": "concat", "resolution": 64}}, 1e-4),
    ],
    ids=["plain", "depth network", "constant", "encoder"],
)
def test_a_picture_of_a_test_object_predicts_the_gaussians_of_that_object(
    home, tiny, tmp_path, sections, rounding
) -> None:
    key = train(home, tiny(**sections))
    photo = source_picture(home, tmp_path / "chair.png")
    prediction = load_reconstructor(home, key, device="cpu")(photo)
    expected = predicted(home / "trials" / key).scene.gaussians
    assert prediction.framed.as_it_is
    for field in fields(expected):
        found, wanted = getattr(prediction.scene.gaussians, field.name), getattr(expected, field.name)
        torch.testing.assert_close(found, wanted, rtol=rounding, atol=rounding, msg=lambda text, f=field: f.name + text)
    paths = prediction.save(tmp_path / "out", views=3, side=16)
    assert torch.equal(read_ply(tmp_path / "out" / "chair.ply").means, prediction.scene.gaussians.means)
    assert {path.name for path in paths} >= {"chair.ply", "chair.gif", "chair.png", "chair-input.png"}
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "chair-input.png")), np.asarray(Image.open(photo)))
    assert Image.open(tmp_path / "out" / "chair.gif").n_frames > 1


def photograph(path: Path, size: tuple[int, int] = (300, 400)) -> Path:
    """A chair-like object of two blocks before a wall with graded light and noise."""
    width, height = size
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:height, 0:width] / height
    wall = np.stack([200 - 30 * y + 10 * x, 190 - 25 * y, 175 - 20 * y], axis=-1) + rng.normal(0, 3, (height, width, 3))
    wall[150:240, 90:130] = (120, 60, 30)
    wall[210:240, 90:190] = (140, 70, 40)
    Image.fromarray(wall.clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def reconstruct(trained: tuple[Path, str]) -> PhotoReconstructor:
    """The network of the configuration `tiny`."""
    return load_reconstructor(*trained, device="cpu")


def test_the_object_of_a_photograph_is_rendered_from_all_sides(reconstruct, tmp_path) -> None:
    prediction = reconstruct(photograph(tmp_path / "photo.jpg"), fov=50)
    assert not prediction.framed.as_it_is
    assert prediction.framed.silhouette is not None
    assert 0.1 < prediction.framed.silhouette.mean() < 0.6
    assert prediction.scene.gaussians.means.shape == (1, 256, 3)
    images = prediction.turntable(4, 24)
    assert images.shape == (4, 3, 24, 24)
    assert images.min() >= 0
    assert "plain background" in prediction.remarks[0]
    assert any("--fov 50, 50 degrees" in remark for remark in prediction.remarks)


def test_a_failing_ffmpeg_costs_nothing_but_the_video(trained, reconstruct, tmp_path, monkeypatch, caplog) -> None:
    (tmp_path / "ffmpeg").symlink_to(shutil.which("false"))
    monkeypatch.setenv("PATH", str(tmp_path))
    paths = reconstruct(source_picture(trained[0], tmp_path / "a.png")).save(tmp_path / "out", views=2, side=8)
    assert {path.name for path in paths} == {"a-input.png", "a.png", "a.gif", "a.ply"}
    assert set((tmp_path / "out").iterdir()) == set(paths)
    assert "a.mp4: ffmpeg failed" in caplog.text


def test_the_turntable_begins_at_the_photographs_camera_and_looks_at_the_object(trained, reconstruct, tmp_path) -> None:
    prediction = reconstruct(source_picture(trained[0], tmp_path / "a.png"))
    source = prediction.framed.source
    expected = prediction.scene.render(source.cameras, source.background).images[0, 0].clamp(0, 1)
    first = prediction.turntable(5, 16)[0]
    assert torch.allclose(first, expected, atol=1e-3)


def test_a_photograph_far_from_the_training_pictures_is_reported(trained, reconstruct, tmp_path) -> None:
    own = reconstruct(source_picture(trained[0], tmp_path / "own.png"))
    assert own.concerns == []
    assert replace(own, by=replace(reconstruct, lowest=own.fidelity + 1e-6)).concerns == []
    assert "worst evaluated object" in replace(own, by=replace(reconstruct, lowest=own.fidelity + 0.2)).concerns[0]
    odd = np.full((90, 90, 3), 255, np.uint8)
    odd[40:52, 5:85] = (0, 255, 0)
    Image.fromarray(odd).save(tmp_path / "odd.png")
    assert "times as far" in reconstruct(tmp_path / "odd.png").concerns[0]
    assert "6 objects of chairs (chair) at 16 px: procedural chairs" in str(reconstruct.domain)


def test_among_pictures_with_surroundings_no_object_is_looked_for(reconstruct, tmp_path) -> None:
    surrounded = replace(reconstruct, domain=replace(reconstruct.domain, is_plain=False))
    photo = photograph(tmp_path / "photo.png")
    whole, named = surrounded(photo), surrounded(photo, mask="colour")
    assert (whole.mask, whole.framed.crop) == (None, (0, 50, 300, 350))
    assert "the largest square in the middle is read, background included" in whole.remarks
    assert whole.concerns
    assert named.mask is not None


def test_methods_without_gaussians_write_pictures(home, tiny, tmp_path) -> None:
    stages = [{"iterations": 2, "lr": 1e-3, "losses": {"l2": 1.0}}]
    model = {
        "name": "pixelnerf", "pretrained": False, "hidden": 16, "blocks": 2, "view_blocks": 1, "coarse_samples": 4,
        "importance_samples": 2, "depth_samples": 2,
    }  # fmt: skip
    config = tiny(model=model)
    config["train"] = {"batch_size": 2, "views_per_object": 3, "stages": stages}
    prediction = load_reconstructor(home, train(home, config), device="cpu")(photograph(tmp_path / "photo.png"))
    names = {path.name for path in prediction.save(tmp_path / "out", views=2, side=8)}
    assert names >= {"photo.gif", "photo.png", "photo-input.png"}
    assert "photo.ply" not in names


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"depth": {"model": "oracle", "fusion": "input"}},
            r"own depth \(depth.model: oracle\).*another",
        ),
        ({"model": {"name": "blank"}}, r"has no network \(blank\)"),
    ],
)
def test_rows_that_cannot_take_a_photograph(home, tiny, sections, message: str) -> None:
    key = train(home, tiny(**sections))
    with pytest.raises(ValueError, match=message):
        load_reconstructor(home, key)


def test_networks_of_several_views_need_their_cameras(home, tiny) -> None:
    config = tiny()
    config["model"]["input_views"] = 2
    with pytest.raises(ValueError, match="takes 2 pictures with known cameras"):
        load_reconstructor(home, train(home, config))


def test_files_that_are_no_pictures(reconstruct, tmp_path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(PictureError, match=r"text\.jpg: not a picture"):
        reconstruct(tmp_path / "text.jpg")


def test_the_command_writes_files_and_reports_how_pictures_were_read(trained, tmp_path) -> None:
    home, key = trained
    photos = tmp_path / "photos"
    photos.mkdir()
    photograph(photos / "a.png")
    photograph(photos / "a.jpg")
    (photos / "b.png").write_bytes(b"")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a.mp4", "c.mp4"):
        (out / name).write_text("of an earlier call")
    earlier = [{"picture": "a.jpg", "files": ["a.gif", "a.mp4"]}, {"picture": "c.jpg", "files": ["c.mp4"]}]
    (out / "predictions.json").write_text(json.dumps(earlier))
    arguments = [key[:6], str(photos), "--out", str(out), "--views", "2", "--size", "16"]
    result = CliRunner().invoke(app, ["predict", *arguments, "--home", str(home)])
    assert result.exit_code == 2, result.output
    assert "b.png: the file is empty" in result.output
    assert "1 of 3 pictures could not be used" in result.output
    assert "trained on 6 objects of chairs" in result.output
    names = {path.name for path in out.iterdir()}
    assert names >= {"a.ply", "a-2.ply", "a.gif", "a-input.png", "predictions.json"}
    other, first, second = json.loads((out / "predictions.json").read_text())
    assert other == earlier[1]
    assert [path.name for path in out.glob("*.mp4") if path.read_bytes() == b"of an earlier call"] == ["c.mp4"]
    assert (Path(first["picture"]).name, Path(second["picture"]).name) == ("a.jpg", "a.png")
    assert first["trial"] == key
    assert set(first["files"]) <= names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["KEY"], "give the pictures after TRIAL"),
        (["KEY", "none.jpg"], "none.jpg: there is no such file"),
        (["KEY", "PHOTO", "--mask", "none.png"], "--mask none.png: there is no such file; allowed besides files: auto"),
        (["KEY", "PHOTO", "PHOTO2", "--mask", "PHOTO"], "one mask for 2 pictures"),
        (["KEY", "PHOTO", "--fov", "50", "--focal", "100"], "--fov and --focal name the same thing"),
        (["zz", "PHOTO"], "no trial 'zz'"),
        (["FILE", "PHOTO", "--seed", "0"], "--sweep and --seed choose a trial"),
    ],
)
def test_mistakes(trained, tmp_path, arguments: list[str], message: str) -> None:
    home, key = trained
    files = {"PHOTO": "photo.png", "PHOTO2": "other.png", "FILE": "model.safetensors"}
    known = {"KEY": key} | {word: str(tmp_path / name) for word, name in files.items()}
    (tmp_path / "model.safetensors").touch()
    for name in ("photo", "other"):
        photograph(tmp_path / f"{name}.png", (30, 40))
    words = [known.get(word, word) for word in arguments]
    result = CliRunner().invoke(app, ["predict", *words, "--out", str(tmp_path / "out"), "--home", str(home)])
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)
