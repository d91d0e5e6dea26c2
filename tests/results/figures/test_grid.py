"""The image grid shows the right pixels in the right places."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from results.figures import grid
from results.gallery import Gallery

COLOURS = {"source": 10, "target": 60, "first": 120, "second": 200}


def flat(value: int, *shape: int) -> np.ndarray:
    return np.full(shape, value, dtype=np.uint8)


def gallery(names: tuple[str, ...] = ("first", "second"), side: int = 16) -> Gallery:
    renders = {name: flat(COLOURS.get(name, 90), 2, 3, 3, side, side) for name in names}
    source, target = flat(10, 2, 3, side, side), flat(60, 2, 3, 3, side, side)
    return Gallery(("left chair", "right chair"), source, target, renders)


def test_every_picture_is_there_at_its_enlarged_size() -> None:
    pixels = np.asarray(grid.draw(gallery()))
    counts = {name: int((pixels == value).all(axis=-1).sum()) for name, value in COLOURS.items()}
    area = grid.MIN_SIDE**2
    assert counts == {"source": 2 * area, "target": 6 * area, "first": 6 * area, "second": 6 * area}


def test_columns_are_in_order() -> None:
    pixels = np.asarray(grid.draw(gallery()))
    first = [np.argwhere((pixels == value).all(axis=-1))[:, 1].min() for value in COLOURS.values()]
    assert first == sorted(first)


@pytest.mark.parametrize(("side", "factor"), [(16, 6), (32, 3), (96, 1), (128, 1), (95, 2)])
def test_enlargement_is_whole_and_never_shrinks(side: int, factor: int) -> None:
    assert grid.enlargement(side, side) == factor


def test_long_names_are_wrapped_and_cut_inside_their_column() -> None:
    long = "semantic.encoder=dinov2_vitl14_reg_lc depth.model=dpt_large fusion=xattn_positional and more words"
    assert grid.draw(gallery(("a", "b"))).width == grid.draw(gallery((long, "b" * 300))).width
    lines = grid._wrapped(long, 96)
    assert len(lines) == 4
    assert lines[-1].endswith("…")
    assert grid._wrapped("encoder=clip fusion=film", 96) == ["encoder=clip", "fusion=film"]


def test_the_data_uri_holds_the_pixels_themselves() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    header, content = grid.data_uri(picture).split(",")
    assert header == "data:image/png;base64"
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    np.testing.assert_array_equal(np.moveaxis(decoded, -1, 0), picture)


def test_an_error_map_is_black_where_nothing_differs_and_brightest_from_a_quarter() -> None:
    target = flat(0, 1, 3, 2, 3)
    render = target.copy()
    render[0, :, 0, 1], render[0, :, 0, 2], render[0, :, 1, 2] = 16, 64, 255
    brightness = grid.error_map(render, target)[0].astype(int).sum(axis=0)
    assert brightness[0, 0] < 15
    assert brightness[0, 0] < brightness[0, 1] < brightness[0, 2] == brightness[1, 2]


def test_objects_are_called_by_their_rank() -> None:
    shown = gallery()
    ranked = Gallery(shown.objects, shown.source, shown.target, shown.renders, ("best", "worst"))
    assert grid.draw(ranked).width > grid.draw(shown).width


def test_each_object_has_the_scale_of_a_blank_pictures_error() -> None:
    shown = gallery(("first", "blank"))
    white = np.full_like(shown.target, 255)
    target = white.copy()
    target[:, :, :, 4:8, 4:8] = 204  # a light object, and one that is black in a quarter of it
    target[0, :, :, 4:8, 4] = 0
    renders = {"blank start": target, "first": target, "blank white": white}
    own = Gallery(shown.objects, shown.source, target, renders, trivial=frozenset({"blank white"}))
    assert grid.has_blank(own)
    assert grid.error_scales(own) == pytest.approx([1.0, 0.2])
    light = grid.error_map(white[1], target[1], 0.2)[0].astype(int).sum(axis=0)
    assert light[5, 5] == light.max() > light[0, 0]


def test_without_a_blank_row_all_objects_have_one_scale() -> None:
    assert not grid.has_blank(gallery())
    assert grid.error_scales(gallery()) == [grid.ERROR_WHITE] * 2


def test_a_blank_picture_that_is_right_gives_no_scale() -> None:
    shown = gallery(("first",))
    own = Gallery(shown.objects, shown.source, shown.target, {"blank": shown.target}, trivial=frozenset({"blank"}))
    assert grid.error_scales(own) == [grid.ERROR_WHITE] * 2
