"""Training curves: lines, bands, names, and reproducible bytes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

from results.figures import curves
from results.figures.style import PALETTE, inline_svg, line_look, save

STEPS = range(100, 1001, 100)
HOSTILE = ["_hidden", "<script>alert(1)</script>", "cost $5 & $6", "a\\b"]


def frame(trials: list[str], seeds: int = 1, metrics: tuple[str, ...] = ("train/loss", "val/psnr")) -> pd.DataFrame:
    rows = [
        (trial, f"{trial}{seed}", seed, metric, step, 1.0 + index + seed + 100 / step)
        for index, trial in enumerate(trials)
        for seed in range(seeds)
        for metric in metrics
        for step in STEPS
    ]
    return pd.DataFrame(rows, columns=["trial", "key", "seed", "metric", "step", "value"])


def test_one_panel_per_recorded_metric_and_none_without_any() -> None:
    assert len(curves.draw(frame(["a"])).axes) == 2
    assert len(curves.draw(frame(["a"], metrics=("val/psnr",))).axes) == 1
    assert curves.draw(frame(["a"], metrics=("train/l2",))) is None
    assert curves.draw(frame([])) is None


def test_a_line_is_the_mean_over_seeds_and_its_band_one_deviation() -> None:
    axes = curves.draw(frame(["a"], seeds=3, metrics=("val/psnr",))).axes[0]
    (line,) = axes.lines
    expected = np.array([2.0 + 100 / step for step in STEPS])
    np.testing.assert_allclose(line.get_ydata(), expected)
    (band,) = axes.collections
    vertices = band.get_paths()[0].vertices
    assert vertices[:, 1].max() == pytest.approx(expected[0] + 1.0)
    assert vertices[:, 1].min() == pytest.approx(expected[-1] - 1.0)


def test_a_line_has_a_gap_where_a_seed_has_nan() -> None:
    trials = [f"trial {index}" for index in range(curves.MOST_NAMED + 1)]
    diverged = frame(trials, seeds=2, metrics=("val/psnr",))
    diverged.loc[(diverged["seed"] == 1) & (diverged["step"] > 500), "value"] = np.nan
    (axes,) = curves.draw(diverged).axes
    (grey,) = (found for found in axes.collections if hasattr(found, "get_segments"))
    for line in axes.lines:
        assert np.isnan(line.get_ydata()).tolist() == [step > 500 for step in STEPS]
    assert grey.get_segments()[0][:, 0].max() == 500


def test_one_seed_has_no_band() -> None:
    assert not curves.draw(frame(["a"], metrics=("val/psnr",))).axes[0].collections


def test_a_trial_keeps_its_colour_in_every_panel() -> None:
    both = frame(["a", "b"])
    both = both[~((both["trial"] == "a") & (both["metric"] == "train/loss"))]
    loss, psnr = curves.draw(both).axes
    assert [line.get_color() for line in loss.lines] == [PALETTE[1]]
    assert [line.get_color() for line in psnr.lines] == [PALETTE[0], PALETTE[1]]


def test_looks_do_not_repeat_before_every_colour_has_every_style() -> None:
    assert len({line_look(index) for index in range(28)}) == 28
    assert {line_look(index)[1] for index in range(len(PALETTE))} == {"-"}, "colours before styles"


def test_names_are_shown_as_they_are() -> None:
    svg = inline_svg(curves.draw(frame(HOSTILE)))
    texts = {"".join(element.itertext()).strip() for element in ElementTree.fromstring(svg).iter()}
    assert set(HOSTILE) <= texts
    assert "<script" not in svg


def test_the_inline_svg_follows_the_pages_colours_and_loads_nothing() -> None:
    svg = inline_svg(curves.draw(frame(["a", "b"])))
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert f"var(--series-0, {PALETTE[0]})" in svg
    assert 'href="http' not in svg


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_equal_figures_give_equal_bytes(kind: str) -> None:
    assert save(curves.draw(frame(["a"], 2)), kind) == save(curves.draw(frame(["a"], 2)), kind)


def test_beyond_the_named_trials_lines_are_grey_and_nameless() -> None:
    names = [f"trial {index}" for index in range(curves.MOST_NAMED + 3)]
    figure = curves.draw(frame(names, seeds=2, metrics=("val/psnr",)))
    (axes,) = figure.axes
    assert len(axes.lines) == curves.MOST_NAMED
    (background,) = [found for found in axes.collections if hasattr(found, "get_segments")]
    assert len(background.get_segments()) == 3
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names[: curves.MOST_NAMED]


def test_a_thousand_nameless_lines_do_not_make_a_page_of_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MOST_BACKGROUND_POINTS", 12)
    names = [f"trial {index}" for index in range(curves.MOST_NAMED + 3)]
    (axes,) = curves.draw(frame(names, metrics=("val/psnr",))).axes
    (background,) = [found for found in axes.collections if hasattr(found, "get_segments")]
    assert [len(line) for line in background.get_segments()] == [4, 4, 4]
    assert all((line[0, 0], line[-1, 0]) == (STEPS[0], STEPS[-1]) for line in background.get_segments())


def test_a_change_of_stage_is_a_line_in_every_panel() -> None:
    for axes in curves.draw(frame(["a"]), changes=[500]).axes:
        (_, mark) = sorted(axes.lines, key=lambda line: len(line.get_xdata()), reverse=True)
        assert list(mark.get_xdata()) == [500, 500]
    many = range(curves.MOST_MARKS + 1)
    assert all(len(axes.lines) == 1 for axes in curves.draw(frame(["a"]), changes=many).axes)
