"""The object of a photograph is found by transparency, a file, or colour against a plain background."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.photos import masks
from jobs.photos.masks import find_mask
from jobs.photos.picture import Picture, PictureError

HEIGHT, WIDTH = 160, 120


def truth() -> np.ndarray:
    """A block with a large hole, and a leg."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[40:100, 30:90] = True
    mask[55:85, 45:75] = False
    mask[100:130, 57:63] = True
    return mask


def photo(wall: np.ndarray | None = None, noise: float = 3.0, colour: tuple[int, int, int] = (150, 60, 40)) -> Picture:
    """The object before a wall whose light falls off, with a sensor's noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    if wall is None:
        wall = np.stack([190 + 0.2 * x - 0.2 * y, 180 + 0.1 * x - 0.15 * y, 160 - 0.1 * y], axis=-1)
    colours = np.where(truth()[..., None], np.array(colour), wall) + rng.normal(0, noise, (HEIGHT, WIDTH, 3))
    rgba = np.dstack([colours.clip(0, 255).astype(np.uint8), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    return Picture(Path("photo.jpg"), rgba, (WIDTH, HEIGHT))


def overlap(coverage: np.ndarray) -> float:
    """Intersection over union with the truth."""
    found = coverage > 0.5
    return float((found & truth()).sum() / (found | truth()).sum())


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Puts packages rembg, with this content, and onnxruntime where they are imported from."""

    def write(content: str) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        for name, text in (("rembg", content), ("onnxruntime", "")):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "__init__.py").write_text(textwrap.dedent(text))
            monkeypatch.delitem(sys.modules, name, raising=False)

    masks._rembg_session.cache_clear()
    yield write
    masks._rembg_session.cache_clear()
    for name in ("rembg", "onnxruntime"):
        sys.modules.pop(name, None)


#: A stand-in with the interface of the package: the middle of each picture is the object.
MIDDLE = """
    from PIL import Image

    sessions = []

    def new_session(model_name):
        assert model_name == "u2net"
        print("Downloading data")
        sessions.append(object())
        return sessions[-1]

    def remove(data, session=None, only_mask=False):
        assert session in sessions and only_mask and data.mode == "RGB"
        print("a message of its own")
        mask = Image.new("L", data.size, 0)
        width, height = data.size
        mask.paste(255, (width // 4, height // 4, 3 * width // 4, 3 * height // 4))
        return mask
"""


def test_a_large_picture_is_compared_at_a_smaller_size() -> None:
    small = photo()
    large = replace(small, rgba=small.rgba.repeat(7, axis=0).repeat(7, axis=1))
    mask = find_mask(large, "colour")
    assert mask is not None
    assert mask.coverage.shape == (7 * HEIGHT, 7 * WIDTH)
    assert overlap(mask.coverage[3::7, 3::7]) > 0.93


@pytest.mark.parametrize("noise", [0.0, 3.0, 8.0])
def test_a_plain_background_is_removed_by_colour(noise: float) -> None:
    mask = find_mask(photo(noise=noise), "colour")
    assert mask is not None
    assert overlap(mask.coverage) > 0.93
    assert not (mask.coverage[60:80, 50:70] > 0.5).any()  # seen through the hole
    assert "by colour alone" in mask.remarks[0]


def test_auto_uses_what_is_there(install: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    plain = photo()
    by_colour = find_mask(plain, "auto")
    assert by_colour is not None
    assert "colour" in by_colour.how
    install(MIDDLE)
    for _ in range(2):
        trained = find_mask(plain, "auto")
        assert trained is not None
        assert trained.how == "rembg"
        assert trained.coverage.shape == (HEIGHT, WIDTH)
        assert trained.coverage[HEIGHT // 2, WIDTH // 2] == 1
        assert trained.coverage.mean() == pytest.approx(0.25, abs=0.02)
    assert len(sys.modules["rembg"].sessions) == 1, "its network is loaded once"
    assert capsys.readouterr().out == ""
    plain.rgba[..., 3] = 255 * truth()
    transparent = find_mask(plain, "auto")
    assert transparent is not None
    assert (transparent.how, overlap(transparent.coverage)) == ("its transparency", 1.0)
    assert find_mask(plain, "none") is None


def test_transparent_corners_are_no_background() -> None:
    """Whatever colour they have: they are shown as white."""
    picture = photo(np.full((HEIGHT, WIDTH, 3), 250.0))
    expected = find_mask(picture, "colour")
    assert expected is not None
    picture.rgba[:16, :16] = 0
    found = find_mask(picture, "auto")
    assert found is not None
    assert found.how == expected.how
    assert overlap(found.coverage) == pytest.approx(overlap(expected.coverage), abs=0.01)


def test_rembg_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(PictureError, match=r"needs the package rembg .* pip install 'rembg\[cpu\]'"):
        find_mask(photo(), "rembg")


def test_rembg_without_a_backend(
    install: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Then the import of the package ends the process."""
    install('print("No onnxruntime backend found.")\nimport sys\nsys.exit(1)\n')
    with pytest.raises(PictureError, match=r"with one of its backends: pip install 'rembg\[cpu\]'"):
        find_mask(photo(), "rembg")
    assert capsys.readouterr().out == ""
    (tmp_path / "onnxruntime" / "__init__.py").unlink()
    (tmp_path / "onnxruntime").rmdir()
    mask = find_mask(photo(), "auto")
    assert mask is not None
    assert "colour" in mask.how


def test_rembg_that_fails(install: Callable[[str], None]) -> None:
    install("""
        def new_session(model_name):
            raise OSError("no network")

        def remove(data, session=None, only_mask=False):
            raise AssertionError
    """)
    with pytest.raises(PictureError, match="rembg failed: OSError: no network; --mask colour is simpler"):
        find_mask(photo(), "rembg")


def test_a_file_of_another_size_is_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray((255 * truth()).astype(np.uint8)).resize((WIDTH * 2, HEIGHT * 2)).save(tmp_path / "mask.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    mask = find_mask(photo(), "~/mask.png")  # no shell expands it in --mask=~/mask.png
    assert mask is not None
    assert overlap(mask.coverage) > 0.95
    Image.new("L", (WIDTH, HEIGHT + 5), 255).save(tmp_path / "higher.png")
    with pytest.raises(PictureError, match=r"higher\.png: 120 x 165 pixels, and photo\.jpg has 120 x 160"):
        find_mask(photo(), tmp_path / "higher.png")
    Image.new("L", (WIDTH, HEIGHT), 255).save(tmp_path / "white.png")
    with pytest.raises(
        PictureError, match=r"by the mask white\.png, .* 100\.0% .*; show the object white on black, or"
    ):
        find_mask(photo(), tmp_path / "white.png")
    (tmp_path / "text.png").write_text("no")
    with pytest.raises(PictureError, match=r"--mask .*text\.png"):
        find_mask(photo(), tmp_path / "text.png")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_file_is_turned_as_its_camera_was_held(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    lying = Image.fromarray((255 * np.rot90(truth())).astype(np.uint8))
    lying.save(tmp_path / f"mask{suffix}", exif=exif)
    mask = find_mask(photo(), tmp_path / f"mask{suffix}")
    assert mask is not None
    assert overlap(mask.coverage) > 0.95


def test_backgrounds_that_are_not_plain_are_refused() -> None:
    stripes = np.zeros((HEIGHT, WIDTH, 3))
    stripes[:, (np.arange(WIDTH) // 10) % 2 == 0] = 200
    with pytest.raises(PictureError, match=r"not plain enough to be removed by colour.*--mask FILE"):
        find_mask(photo(stripes), "colour")


def test_an_object_along_much_of_the_border_is_refused() -> None:
    picture = photo()
    picture.rgba[100:, :, :3] = (150, 60, 40)
    with pytest.raises(PictureError, match=r"4\d% of them are far from it"):
        find_mask(picture, "colour")


def test_specks_and_pinholes_count_as_neither_object_nor_background() -> None:
    found = np.zeros((60, 60), bool)
    found[:40, :40] = True
    found[5, 5] = found[20, 20:22] = False
    found[50:58, :10] = found[50:56, 20:33] = True  # 80 and 78 pixels; 5 % are 79.85
    expected = found.copy()
    expected[5, 5] = True
    expected[50:56, 20:33] = False
    assert np.array_equal(masks._parts(found), expected)


@pytest.mark.parametrize("word", ["colour", "auto"])
def test_a_picture_without_an_object_is_refused(word: str) -> None:
    wall = np.full((HEIGHT, WIDTH, 3), 170.0)
    with pytest.raises(PictureError, match=r"covers 0\.0% of the picture; allowed: 0\.2% to 90%"):
        find_mask(photo(wall, colour=(170, 170, 170)), word)


def test_an_object_that_runs_out_of_the_picture_is_remarked() -> None:
    picture = photo()
    picture.rgba[100:, 50:70, :3] = (150, 60, 40)
    mask = find_mask(picture, "colour")
    assert mask is not None
    assert "reaches the picture's border" in mask.remarks[1]
