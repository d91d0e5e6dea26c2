"""`splatsweep predict`: no result overwrites a file or another result, and the record keeps those of earlier calls."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.photos.picture import PictureError
from model.rasterizers.validation import NonFiniteGaussiansError
from sweep.cli import app
from sweep.commands import predict
from sweep.commands.predict import _stems


@pytest.mark.parametrize(
    ("files", "taken", "stems"),
    [
        (("x/a.jpg", "y/a.jpg", "z/a-2.jpg"), (), ["a", "a-2", "a-2-2"]),
        (("chair.jpg", "chair-input.jpg"), (), ["chair", "chair-input-2"]),
        (("chair-input.jpg", "chair.jpg"), (), ["chair-input", "chair-2"]),
        (("chair.jpg",), ("chair.png", "chair-2.txt"), ["chair-2"]),
    ],
)
def test_no_two_pictures_have_a_result_of_one_name(files: tuple[str, ...], taken: Any, stems: list[str]) -> None:
    assert _stems([Path(file) for file in files], set(taken)) == stems


class FakePrediction:
    def __init__(self, picture: Path) -> None:
        self.picture, self.remarks, self.concerns = SimpleNamespace(path=picture), [], []

    def save(self, folder: Path, stem: str, **_: Any) -> list[Path]:
        if self.picture.path.stem == "infinite":
            raise NonFiniteGaussiansError("scales holds 1 values")
        (folder / f"{stem}.png").write_text("result")
        return [folder / f"{stem}.png"]

    def as_json(self, files: list[Path]) -> dict[str, Any]:
        return {"picture": str(self.picture.path), "files": [file.name for file in files]}


@pytest.fixture
def predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command on pictures of these names and returns its exit code with the recorded files."""

    def reconstruct(picture: Path, **_: Any) -> FakePrediction:
        if picture.stem == "bad":
            raise PictureError("bad")
        if picture.stem == "crash":
            raise RuntimeError("crash")
        return FakePrediction(picture)

    reconstruct.config = SimpleNamespace(model=SimpleNamespace(name="unet"))
    reconstruct.name = reconstruct.domain = "trial"
    monkeypatch.setattr("jobs.predict.load_reconstructor", lambda *_: reconstruct)
    monkeypatch.setattr(predict, "chosen_network", lambda *_: tmp_path)

    def run(*names: str) -> tuple[int, list[str]]:
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        out = tmp_path / "out"
        done = CliRunner().invoke(app, ["predict", "abc", *(str(tmp_path / n) for n in names), "--out", str(out)])
        assert ("infinite.jpg: its reconstruction cannot be drawn: scales" in done.stderr) == ("infinite.jpg" in names)
        records = json.loads((out / predict.RECORD_FILENAME).read_text())
        return done.exit_code, [f"{Path(r['picture']).name}: {', '.join(r['files'])}" for r in records]

    return run


def test_the_record_is_merged_and_survives_a_bad_picture(predicted: Any) -> None:
    assert predicted("a.jpg", "bad.jpg", "infinite.jpg", "b.jpg") == (2, ["a.jpg: a.png", "b.jpg: b.png"])
    assert predicted("a.webp", "c.jpg", "crash.jpg", "d.jpg") == (1, ["b.jpg: b.png", "a.webp: a.png", "c.jpg: c.png"])


def test_in_the_folder_of_the_pictures_others_are_kept_and_results_are_no_pictures(predicted: Any, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("a mask")
    assert predicted("out/a.jpg") == (0, ["a.jpg: a-2.png"])
    assert predicted("out/b.jpg") == (0, ["a.jpg: a-2.png", "b.jpg: b.png"])
    assert predicted("out/../out") == (0, ["a.jpg: a-2.png", "a.png: a-3.png", "b.jpg: b.png"])
    assert predicted("out/b.png") == (0, ["a.jpg: a-2.png", "a.png: a-3.png", "b.jpg: b.png", "b.png: b-2.png"])
    assert (tmp_path / "out" / "a.png").read_text() == "a mask"


def test_a_record_that_cannot_be_merged_is_left_as_it_is(predicted: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / predict.RECORD_FILENAME).write_text('["mine"]')
    with pytest.raises(TypeError):  # of this test: the record is still the user's own
        predicted("a.jpg")


@pytest.mark.parametrize(("network", "said"), [("abc", "unet, trial trial, "), ("x.safetensors", "unet, trial, ")])
@pytest.mark.usefixtures("predicted")
def test_the_network_is_called_a_trial_or_by_its_file(network: str, said: str, tmp_path: Path) -> None:
    for name in (network, "a.jpg"):
        (tmp_path / name).touch()
    network = str(tmp_path / network) if "." in network else network
    done = CliRunner().invoke(app, ["predict", network, str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out")])
    assert done.stderr.startswith(said)
