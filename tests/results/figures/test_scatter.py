"""Objects against the baseline: means over seeds of the same objects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from results.figures import scatter
from results.table import Cell, Column, Comparison, Row, Section, Source, Table

FOUND = Comparison("base", 1.0, 0.5, 1.5, 0.01, 0.02, 1.0, "paired", "better")


def row(label: str, keys: tuple[str, ...], compared: bool = True) -> Row:
    sources = tuple(Source(key, seed, "finished") for seed, key in enumerate(keys))
    return Row(label, (Cell((20.0,), comparison=FOUND if compared else None),), sources)


def table(*rows: Row) -> Table:
    return Table("t", "", (Column("novel_psnr", "PSNR", direction="up"),), (Section(rows),))


def results(scores: dict[str, dict[str, float]]) -> pd.DataFrame:
    rows = [
        (key, name, kind, "psnr", value + (100 if kind == "conditioned" else 0))
        for key, objects in scores.items()
        for name, value in objects.items()
        for kind in ("novel", "conditioned")
    ]
    return pd.DataFrame(rows, columns=["key", "object", "view_kind", "metric", "value"])


SCORES = results(
    {
        "b0": {"x": 20.0, "y": 22.0, "z": 5.0},
        "a0": {"x": 21.0, "y": 20.0},
        "a1": {"x": 23.0, "y": 21.0},
    }
)


def test_a_point_is_an_object_and_its_mean_over_seeds() -> None:
    figure = scatter.draw(table(row("base", ("b0",), compared=False), row("a", ("a0", "a1"))), SCORES)
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[20.0, 22.0], [22.0, 20.5]])
    assert axes.get_xlabel() == "ahead on 1 of 2 objects"


def test_a_tie_and_a_seed_without_a_score_are_not_ahead() -> None:
    """The baseline is a point of a grid, whose label is not its name; it lacks an object of the variant."""
    scores = results(
        {
            "b0": {"x": 20.0, "y": 22.0, "z": 5.0},
            "c0": {"w": 1.0, "x": 20.0, "y": 25.0},
            "c1": {"w": 1.0, "x": 20.0, "y": np.nan},
        }
    )
    base = replace(row("0", ("b0",), compared=False), name="base")
    (axes,) = scatter.draw(table(base, row("c", ("c0", "c1"))), scores).axes
    assert axes.collections[0].get_offsets().filled(np.nan).tolist()[0] == [20.0, 20.0]
    assert axes.get_xlabel() == "ahead on 0 of 2 objects"


def test_without_comparisons_or_common_objects_there_is_no_figure() -> None:
    base = row("base", ("b0",), compared=False)
    assert scatter.draw(table(base), SCORES) is None
    assert scatter.draw(table(base, row("a", ("unknown",))), SCORES) is None


def test_at_most_the_first_rows_have_a_panel() -> None:
    rows = [row(f"r{index}", ("a0",)) for index in range(scatter.MOST_PANELS + 3)]
    figure = scatter.draw(table(row("base", ("b0",), compared=False), *rows), SCORES)
    visible = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in visible] == [f"r{index}" for index in range(scatter.MOST_PANELS)]
