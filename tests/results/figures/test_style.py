"""Names of any length fit into the space of figures."""

from __future__ import annotations

import pytest

from results.figures.style import shortened, wrapped

GRID_POINT = "depth.model=midas_small depth.fusion=xattn_positional train.ema=late"


@pytest.mark.parametrize("name", ["tv", GRID_POINT, "x" * 100, "a_" * 50, "word " * 19 + "word", "λ=0.1", " ", "= ="])
@pytest.mark.parametrize(("width", "lines"), [(25, 3), (40, 2), (8, 1)])
def test_a_name_fits_and_keeps_both_of_its_ends(name: str, width: int, lines: int) -> None:
    found = wrapped(name, width, lines).split("\n")
    assert len(found) <= lines
    assert all(len(line) <= width for line in found)
    words = name.split()
    assert found[0][:3] == name[:3].rstrip() or not words
    assert found[-1][-2:] == name.rstrip()[-2:] or not words


def test_lines_end_between_words_before_they_end_within_one() -> None:
    assert wrapped(GRID_POINT, 40, 3).split("\n") == [
        "depth.model=midas_small",
        "depth.fusion=xattn_positional",
        "train.ema=late",
    ]
    assert wrapped("semantic.encoder=dinov2_vitl14", 20, 2).split("\n") == ["semantic.encoder=", "dinov2_vitl14"]


def test_names_that_differ_at_the_end_still_do_when_they_are_cut() -> None:
    names = {shortened(f"{GRID_POINT} seed={seed}", 30) for seed in range(3)}
    assert len(names) == 3
    assert all(len(name) == 30 for name in names)
    assert (shortened("tv", 30), shortened("x" * 30, 30)) == ("tv", "x" * 30)
