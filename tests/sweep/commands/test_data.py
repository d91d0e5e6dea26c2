"""`splatsweep data` on a dataset imported from a folder of the user."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sweep.cli import app


@pytest.fixture
def run(tmp_path):
    def invoke(*arguments, code=0):
        environment = {"COLUMNS": "200", "TERM": "dumb", "SPLATSWEEP_HOME": str(tmp_path / "home")}
        result = CliRunner().invoke(app, ["data", *map(str, arguments)], env=environment)
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return invoke


@pytest.fixture
def source(tmp_path):
    """Two objects in Zero-1-to-3's format, both seen from the front, and a list with only the first."""
    folder = tmp_path / "views"
    for uid in ("a1", "b2"):
        (folder / uid).mkdir(parents=True)
        picture = np.zeros((16, 16, 4), np.uint8)
        picture[5:11, 5:11] = 255, 0, 0, 255
        Image.fromarray(picture).save(folder / uid / "000.png")
        np.save(folder / uid / "000.npy", np.column_stack([np.eye(3), [0, 0, -1.5]]))
    (folder / "lvis-annotations-filtered.json").write_text(json.dumps(["a1", "b2"]))
    (tmp_path / "few.json").write_text(json.dumps(["a1"]))
    return folder


OPTIONS = ("--set", "image_size=8")


def test_import_check_and_show(run, source, tmp_path):
    done = run("prepare", "objaverse", *OPTIONS, "--source", source, "--workers", 1)
    assert "preparing dataset objaverse: 2 of 2 (" in done.stderr
    assert str(tmp_path / "home" / "data") in done.stdout
    assert "imported before" not in done.stderr
    again = run("prepare", "objaverse", *OPTIONS, "--source", source)
    assert f"{source} was imported before and is not read again; if its files have changed, delete" in again.stderr
    assert "sound" in run("check", "objaverse", *OPTIONS).stdout
    run("show", "objaverse", *OPTIONS, "--out", tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.size == (2 * 128, 2 * 146)
    assert "objaverse-" in run("list").stdout


def test_a_dataset_that_is_not_there_is_explained(run, tmp_path):
    for command in ("prepare", "show"):
        error = run(command, "objaverse", *OPTIONS, code=1).exception
        assert "splatsweep data prepare objaverse --set image_size=8 --source DIR" in str(error)
    assert "needs a folder" in str(run("prepare", "objaverse", "--source", tmp_path / "no", code=1).exception)
    shown = " ".join(run("list", "objaverse").stdout.split())
    assert "--source DIR a folder for each uid with its .png" in shown
    assert "--file objects=FILE optional; a JSON list of uids" in shown
    assert "resampling direct how larger pictures are shrunk: by area, or by Lanczos' filter" in shown
    unknown = run("list", "objavers", code=1).exception
    assert "unknown dataset 'objavers'" in str(unknown)


def test_files_are_named_by_role(run, source, tmp_path):
    run("prepare", "objaverse", *OPTIONS, "--source", source, "--file", f"objects={tmp_path / 'few.json'}")
    (manifest,) = (tmp_path / "home" / "data").glob("objaverse-*/manifest.json")
    assert json.loads(manifest.read_text())["counts"] == {"train": 0, "val": 1, "test": 0}
    mistake = run("prepare", "objaverse", *OPTIONS, "--source", source, "--file", "few.json", code=1).exception
    assert "expected ROLE=FILE" in str(mistake)


def test_left_out_objects_are_listed(run, source, monkeypatch):
    monkeypatch.setattr("jobs.data.importers.base.Importer.max_skipped_share", 0.5)
    (source / "b2" / "000.npy").unlink()
    done = run("prepare", "objaverse", *OPTIONS, "--source", source, "--workers", 1)
    assert "left out b2: " in done.stderr
    assert "000.npy missing" in done.stderr


def test_problems_are_listed_and_the_exit_code_is_not_zero(run, source, tmp_path):
    run("prepare", "objaverse", *OPTIONS, "--source", source, "--workers", 1)
    (path,) = (tmp_path / "home" / "data").glob("objaverse-*/focal.npy")
    np.save(path, np.load(path) * -1)
    found = run("check", "objaverse", *OPTIONS, code=2).stderr
    assert "checksum" in found
    assert "object 'a1': frame 0 has a focal length" in found
