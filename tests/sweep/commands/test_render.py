"""`splatsweep render` writes files to the given paths, and reports mistakes before any long computation."""

from __future__ import annotations

import pytest
from PIL import Image
from typer.testing import CliRunner

from jobs.turntable import GaussianObject
from model.ply import read_ply
from model.scenes import PictureScene
from sweep.cli import app
from sweep.commands.render import _write

TINY = ("--set", "train=6", "--set", "val=2", "--set", "test=3", "--set", "views=5", "--set", "image_size=16")


def invoke(*arguments, home):
    return CliRunner().invoke(app, ["render", *map(str, arguments)], env={"SPLATSWEEP_HOME": str(home)})


@pytest.mark.parametrize("command", ["trial", "data"])
def test_explains_itself_with_an_example(home, command):
    assert f"Example: splatsweep render {command}" in invoke(command, "--help", home=home).output


def test_an_object_of_a_dataset(home, tmp_path):
    out, ply = tmp_path / "chair.png", tmp_path / "chair.ply"
    arguments = ("chairs", *TINY, "--object", "chair_00009", "--views", 7, "--size", 20, "--out", out, "--ply", ply)
    result = invoke("data", *arguments, home=home)
    assert result.exit_code == 0, result.output
    assert Image.open(out).size == (6 * 20, 2 * 20)
    gaussians = read_ply(ply)
    assert gaussians.means.shape[1] > 50
    assert gaussians.sh.shape[2] == 1
    assert str(out) in result.output.replace("\n", "")


def test_the_default_name_is_the_objects(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("data", "chairs", *TINY, "--views", 1, "--size", 16, home=home)
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.glob("*.png")] == ["chair_00008.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data", "chairs", "--out", "chair.jpg"), "chair.jpg: a picture's name must end in .png or .gif"),
        (("data", "chairs", "--ply", "chair.obj"), "chair.obj: the name of a file of Gaussians must end in .ply"),
        (("data", "chars"), "did you mean 'chairs'"),
        (("trial", "abc"), "no trial 'abc'"),
    ],
)
def test_mistakes(home, arguments, message):
    result = invoke(*arguments, home=home)
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)


def test_a_dot_in_an_objects_name_is_no_suffix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jobs.turntable.render_turntable", lambda *_: None)
    monkeypatch.setattr("jobs.turntable.save_pictures", lambda _, path: path.touch())
    for name in ("chair.v1", "chair.v2"):
        _write(GaussianObject(name, *[None] * (len(GaussianObject.__dataclass_fields__) - 1)), 1, 8, None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chair.v1.png", "chair.v2.png"]


def test_scenes_without_gaussians_are_no_ply(tmp_path):
    subject = GaussianObject("chair", PictureScene(None), None)
    with pytest.raises(
        ValueError, match=r"a\.ply: only Gaussians can be written, and the scene of chair is of kind pictures"
    ):
        _write(subject, 3, 8, tmp_path / "a.png", tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())
