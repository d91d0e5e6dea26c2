"""The object of a photograph is found by transparency, a file, or colour against a plain background."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

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


def install(monkeypatch: pytest.MonkeyPatch, remove: Callable[..., Image.Image]) -> None:
    """A package rembg with this function, called with an image and `only_mask`."""
    package = ModuleType("rembg")
    package.remove = lambda image, **options: remove(image=image, **options)  # type: ignore[attr-defined]
    package.__spec__ = sys.__spec__
    monkeypatch.setitem(sys.modules, "rembg", package)


@pytest.mark.parametrize("noise", [0.0, 3.0, 8.0])
def test_a_plain_background_is_removed_by_colour(noise: float) -> None:
    mask = find_mask(photo(noise=noise), "colour")
    assert mask is not None
    assert overlap(mask.coverage) > 0.93
    assert not (mask.coverage[60:80, 50:70] > 0.5).any()  # seen through the hole
    assert "by colour alone" in mask.remarks[0]


def test_auto_uses_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = photo()
    by_colour = find_mask(plain, "auto")
    assert by_colour is not None
    assert "colour" in by_colour.how
    install(monkeypatch, lambda **_: Image.fromarray((255 * truth()).astype(np.uint8)))
    trained = find_mask(plain, "auto")
    assert trained is not None
    assert (trained.how, overlap(trained.coverage)) == ("rembg", 1.0)
    plain.rgba[..., 3] = 255 * truth()
    transparent = find_mask(plain, "auto")
    assert transparent is not None
    assert (transparent.how, overlap(transparent.coverage)) == ("its transparency", 1.0)
    assert find_mask(plain, "none") is None


def test_rembg_that_is_missing_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(PictureError, match="pip install 'rembg"):
        find_mask(photo(), "rembg")

    def remove(**_: Any) -> Image.Image:
        raise OSError("no network")

    install(monkeypatch, remove)
    with pytest.raises(PictureError, match="rembg failed: OSError: no network; --mask colour is simpler"):
        find_mask(photo(), "rembg")


def test_a_file_of_another_size_is_scaled(tmp_path: Path) -> None:
    Image.fromarray((255 * truth()).astype(np.uint8)).resize((WIDTH * 2, HEIGHT * 2)).save(tmp_path / "mask.png")
    mask = find_mask(photo(), tmp_path / "mask.png")
    assert mask is not None
    assert overlap(mask.coverage) > 0.95
    Image.new("L", (100, 100), 255).save(tmp_path / "square.png")
    with pytest.raises(PictureError, match=r"square\.png: 100 x 100 pixels, and photo\.jpg has 120 x 160"):
        find_mask(photo(), tmp_path / "square.png")
    (tmp_path / "text.png").write_text("no")
    with pytest.raises(PictureError, match=r"--mask .*text\.png"):
        find_mask(photo(), tmp_path / "text.png")


def test_backgrounds_that_are_not_plain_are_refused() -> None:
    stripes = np.zeros((HEIGHT, WIDTH, 3))
    stripes[:, (np.arange(WIDTH) // 10) % 2 == 0] = 200
    with pytest.raises(PictureError, match=r"not plain enough to be removed by colour.*--mask FILE"):
        find_mask(photo(stripes), "colour")


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
