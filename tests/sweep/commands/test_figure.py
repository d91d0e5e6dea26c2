"""`splatsweep figure`: the rows and objects that it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweep.cli import app
from tests.conftest import tiny_configuration

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a finished sweep, with its home beside it."""
    folder = tmp_path_factory.mktemp("figure")
    base = tiny_configuration(eval={"metrics": ["psnr"]})
    trials = {
        "baseline": {},
        "other pictures": {"data.resolution": 8},
        "tv": {"train.stages.0.losses.tv": 0.1},
    }
    content = {"name": "mine", "base": base, "trials": trials, "seeds": SEEDS, "run": {"executor": "inline"}}
    (folder / "sweep.yaml").write_text(json.dumps(content))
    done = CliRunner().invoke(app, ["run", str(folder / "sweep.yaml"), "--home", str(folder / "home")])
    assert done.exit_code == 0, done.output
    return folder / "sweep.yaml"


def figure(sweep: Path, *options: str) -> dict:
    """The record that the command writes."""
    out = sweep.parent / "figure"
    arguments = [str(sweep), "--home", str(sweep.parent / "home"), "--out", str(out), *options]
    done = CliRunner().invoke(app, ["figure", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads((out / "figure.json").read_text())


def test_the_best_median_and_worst_object_by_all_rows_unless_others_are_named(sweep: Path) -> None:
    shown = figure(sweep)
    assert list(shown["rows"]) == ["baseline", "tv"]
    assert [row["seed"] for row in shown["rows"].values()] == [0, 0]
    assert [found["rank"] for found in shown["objects"].values()] == ["best", "median", "worst"]
    worst = list(shown["objects"])[-1]
    named = figure(sweep, "--object", worst, "--view", "3", "--row", "tv")
    assert list(named["rows"]) == ["tv"]
    assert {name: (found["rank"], found["views"]) for name, found in named["objects"].items()} == {worst: ("", [3])}


def test_rows_with_other_pictures_are_named_as_left_out(sweep: Path) -> None:
    arguments = [str(sweep), "--home", str(sweep.parent / "home"), "--out", str(sweep.parent / "figure")]
    for row, is_said in (((), True), (("--row", "tv"), False)):
        printed = CliRunner().invoke(app, ["figure", *arguments, *row], catch_exceptions=False).output
        assert ("Left out: other pictures; --row chooses others" in printed) == is_said


def test_a_row_that_is_not_there_is_refused_before_anything_is_drawn(sweep: Path) -> None:
    with pytest.raises(
        ValueError, match=r"--row 'tvv' is no finished row of mine; allowed: baseline, other pictures, tv"
    ):
        figure(sweep, "--row", "tvv")
    with pytest.raises(ValueError, match=r"'tv' and 'other pictures' have other pictures \(data\.resolution\)"):
        figure(sweep, "--row", "tv", "--row", "other pictures")
