"""Configurations that the installed rasterisers cannot draw are found before anything trains."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from rich.console import Console
from typer.testing import CliRunner

from jobs.config import TrialConfig
from model.rasterizers import compat, gsplat, inria, triton
from sweep.cli import app
from sweep.file.load import RunOptions, SweepError, load_sweep
from sweep.plan.drawing import drawing_as_json, drawing_lines, installed, refuse_undrawable, undrawable
from sweep.run import driver
from sweep.run.driver import run_sweep

NEWER = compat.GaussianRasterizationSettings
OLDER = NamedTuple("OlderSettings", list(NEWER.__annotations__.items())[:-1])
ON_GPU, ON_CPU = RunOptions(gpus_per_trial=0.5), RunOptions()


@pytest.fixture
def nothing_installed(monkeypatch):
    for module in (gsplat, inria, triton):
        monkeypatch.setattr(module, "PACKAGE", "a_package_that_is_nowhere")


@pytest.fixture
def older_inria(monkeypatch):
    for module in (gsplat, triton):
        monkeypatch.setattr(module, "PACKAGE", "a_package_that_is_nowhere")
    monkeypatch.setitem(sys.modules, inria.PACKAGE, SimpleNamespace(GaussianRasterizationSettings=OLDER))


def rows(**renders: dict[str, object]) -> list[tuple[str, TrialConfig]]:
    return [(name, TrialConfig.model_validate({"render": render})) for name, render in renders.items()]


@pytest.mark.usefixtures("nothing_installed")
def test_trials_on_a_gpu_need_a_rasteriser_for_it():
    named = [
        *rows(a={}, b={}, c={"backend": "cpu"}),
        ("blank", TrialConfig.model_validate({"model": {"name": "blank"}})),
    ]
    (found,) = undrawable(named, ON_GPU)
    assert found.names == ("a", "b")
    assert "pip install 'gsplat" in found.reason
    assert undrawable(named, ON_CPU) == ()
    with pytest.raises(ValueError, match=r"a, b: no installed rasteriser supports this on a GPU(.|\n)*--only"):
        refuse_undrawable(named, ON_GPU)


@pytest.mark.usefixtures("older_inria")
def test_the_older_generation_draws_rows_without_antialiasing():
    named = rows(tv={"backend": "inria"}, baseline={"backend": "inria", "antialiasing": True}, auto={})
    (found,) = undrawable(named, ON_GPU)
    assert found.names == ("baseline",)
    assert "'inria' (older generation) has no antialiasing" in found.reason
    assert inria.COMMIT in found.reason
    assert installed()["inria"] == "older generation, without antialiasing and inverse depth"
    first, second = drawing_lines([found], ON_GPU)
    assert first.startswith("rasterisers: cpu, inria older generation")
    assert first.endswith("not installed: gsplat, triton; auto is inria on a GPU")
    assert drawing_lines([], ON_CPU)[0].endswith("not installed: gsplat, triton")
    assert second.startswith("cannot be drawn here: baseline: ")
    assert drawing_as_json([found])["cannot_draw"] == [{"names": ("baseline",), "reason": found.reason}]


def test_a_long_list_of_trials_is_counted():
    (found,) = undrawable(rows(**{f"row {i}": {"backend": "gsplat"} for i in range(7)}), ON_CPU)
    assert str(found).startswith("row 0, row 1, row 2, row 3 and 3 more: ")


def sweep_file(folder: Path, content: dict[str, object]) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.usefixtures("nothing_installed")
def test_validate_and_plan_report_it_and_run_refuses_it(home, tiny, tmp_path, monkeypatch):
    trials = {"gpu row": {}, "cpu row": {"render.backend": "cpu"}}
    path = sweep_file(tmp_path, {"name": "a", "base": tiny(), "trials": trials, "run": {"gpus_per_trial": 1}})
    done = CliRunner().invoke(app, ["doctor", str(path), "--home", str(home)], env={"COLUMNS": "400"})
    assert done.exit_code == 2
    assert re.search(r"no +sweep a +cannot be drawn: gpu row: no installed rasteriser", done.output)
    on_cpu = ["doctor", str(path), "--set", "run.gpus_per_trial=0", "--home", str(home)]
    assert "all 2 trials can be drawn" in CliRunner().invoke(app, on_cpu, env={"COLUMNS": "400"}).output
    for command in (["validate"], ["plan", "--home", str(home)]):
        done = CliRunner().invoke(app, [command[0], str(path), *command[1:]], catch_exceptions=False)
        assert done.exit_code == 0
        assert "cannot be drawn here: gpu row: no installed rasteriser supports this on a GPU" in done.output
        assert "not installed: gsplat, inria, triton" in done.output
    done = CliRunner().invoke(app, ["plan", str(path), "--home", str(home), "--json"], catch_exceptions=False)
    assert [item["names"] for item in json.loads(done.stdout)["rasterizers"]["cannot_draw"]] == [["gpu row"]]

    executed = []
    monkeypatch.setattr(driver, "execute", lambda *arguments, **_: executed.append(arguments))
    with pytest.raises(ValueError, match="gpu row: no installed rasteriser"):
        run_sweep(load_sweep(path), home, console=Console(quiet=True))
    assert executed == []
    run_sweep(load_sweep(path), home, console=Console(quiet=True), only=["cpu row"])
    assert len(executed) == 1


def test_a_rasteriser_that_needs_a_gpu_is_a_mistake_without_one(tmp_path):
    base = {"render": {"backend": "inria"}}
    path = sweep_file(tmp_path, {"name": "a", "base": base, "trials": {"x": {"render.backend": "gsplat"}, "y": {}}})
    with pytest.raises(SweepError) as error:
        load_sweep(path)
    assert [(mistake.path, mistake.value) for mistake in error.value.mistakes] == [
        ("base.render.backend", "inria"),
        ("trials.x.render.backend", "gsplat"),
    ]
    assert error.value.mistakes[0].allowed == ("auto", "cpu", "reference")
    load_sweep(path, ["run.gpus_per_trial=0.5"])
