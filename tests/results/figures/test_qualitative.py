"""The qualitative figure: its files, their names, and a page that LaTeX makes of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from results.figures.qualitative import QualitativeFigure
from results.gallery import Gallery
from tests.latex import text_of, typeset

OBJECTS = ("a/b_1", "a-b 1")  # names that only their places tell apart in files
ROWS = ("baseline", "depth & 50%_input")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shades = np.random.default_rng(0).integers(0, 256, (3, 2, 3, 3, 8, 8), dtype=np.uint8)
    figure = QualitativeFigure(
        Gallery(OBJECTS, shades[0, :, 0], shades[0], {row: shades[place + 1] for place, row in enumerate(ROWS)}),
        views=np.array([[4, 0, 7], [4, 0, 7]]),
        psnr={ROWS[0]: np.array([[20.0, 21.5, math.inf]] * 2), ROWS[1]: np.full((2, 3), 9.994)},
        trials={row: {"key": row[0] * 16, "seed": 0} for row in ROWS},
    )
    figure.write(tmp_path)
    return tmp_path


def test_each_picture_is_a_file_that_the_figure_includes_once(folder: Path) -> None:
    text = (folder / "figure.tex").read_text()
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    assert len(names) == 2 * (1 + 3 * (1 + len(ROWS)))
    assert all(text.count(f"{{{name}}}") == 1 for name in names)
    assert "1-a-b-1_view4_2-depth-50-input.png" in names
    with Image.open(folder / "pictures" / "1-a-b-1_input.png") as picture:
        assert picture.size == (96, 96)


def test_the_record_has_keys_views_and_psnr(folder: Path) -> None:
    record = json.loads((folder / "figure.json").read_text())
    assert record["rows"]["baseline"] == {"key": "b" * 16, "seed": 0}
    assert record["objects"]["a/b_1"] == {
        "rank": "",
        "views": [4, 0, 7],
        "psnr": {"baseline": [20.0, 21.5, None], ROWS[1]: [9.994] * 3},
    }


def test_latex_makes_one_page_of_it(folder: Path) -> None:
    printed = typeset(folder / "figure_standalone.tex")
    assert "(1 page" in printed
    assert "Overfull" not in printed
    page = text_of(folder / "figure_standalone.pdf")
    assert page.count("9.99") == 6
    assert "baseline depth & 50% input 20.00 9.99 21.50 9.99 ∞ 9.99" in " ".join(page.split())
