import json
import os
import re
from importlib import resources

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from model.rasterizers import BACKENDS
from sweep.cli import app


def _commands(group, prefix=""):
    found = []
    for name, command in group.commands.items():
        path = f"{prefix}{name}"
        found += _commands(command, f"{path} ") if hasattr(command, "commands") else [path]
    return found


COMMANDS = _commands(get_command(app))
PRESETS = sorted(p.name for p in resources.files("sweep.presets").iterdir() if p.name.endswith(".yaml"))


def invoke(*arguments, home=None, code=0):
    environment = {"COLUMNS": "160", "TERM": "dumb"} | ({"SPLATSWEEP_HOME": str(home)} if home else {})
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command):
    text = re.sub(r"\s+", " ", invoke(*command.split(), "--help").output)
    assert f"splatsweep {command}" in text
    assert "Example" in text


def test_mistakes_are_all_reported_with_their_places(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "name: bad\n"
        "base:\n"
        "  data: {name: chars}\n"
        "  train:\n"
        "    batchsize: 4\n"
        "    stages:\n"
        "      - {iterations: -5, lr: fast, losses: {l2: 1.0}}\n"
        "trials:\n"
        "  a: {depth.fusion: xattn}\n"
    )
    errors = invoke("validate", path, code=2).stderr
    lines = errors.splitlines()
    assert len(lines) == 6
    assert lines[-1] == "5 mistakes"
    for place, words in {
        "3:16": "did you mean 'chairs'",
        "5:5": "did you mean 'batch_size'",
        "7:22": "-5",
        "7:30": "'fast'",
        "9:7": "depth.fusion",
    }.items():
        (line,) = [line for line in lines if f"bad.yaml:{place}:" in line]
        assert words in line
    assert "Traceback" not in errors


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset):
    with resources.as_file(resources.files("sweep.presets") / preset) as path:
        assert "all well" in invoke("validate", path).output


def test_init_writes_a_sweep_and_overwrites_nothing(tmp_path):
    path = tmp_path / "sweep.yaml"
    invoke("init", "quick", "--out", path)
    assert "all well" in invoke("validate", path).output
    again = invoke("init", "quick", "--out", path, code=1)
    assert "exists" in str(again.exception)
    unknown = invoke("init", "quik", "--out", tmp_path / "other.yaml", code=1)
    assert "did you mean 'quick'" in str(unknown.exception)


def test_plan_as_json_is_nothing_but_json(home, tmp_path, tiny):
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps({"name": "tiny", "base": tiny(), "seeds": [0, 1]}))
    plan = json.loads(invoke("plan", path, "--json", home=home).stdout)
    assert [trial["seed"] for trial in plan["trials"]] == [0, 1]
    assert {trial["status"] for trial in plan["trials"]} == {"pending"}
    assert all(re.fullmatch("[0-9a-f]{16}", trial["key"]) for trial in plan["trials"])
    assert [control["name"] for control in plan["controls"]] == ["blank", "copy_input"]


def test_doctor_looks_at_everything(home):
    output = invoke("doctor", home=home).output
    rasterisers = [f"rasteriser {name}" for name in BACKENDS]
    for subject in ("machine", "packages", *rasterisers, "gpu", "home", "weights", "mlflow"):
        assert re.search(rf"^(ok|--)\s+{subject}", output, re.MULTILINE)


def test_doctor_says_when_a_home_cannot_be_used(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "choose another with --home" in invoke("doctor", "--home", tmp_path / "locked", code=2).output


def test_data_commands(home, tiny, tmp_path):
    settings = [part for key, value in tiny()["data"]["options"].items() for part in ("--set", f"{key}={value}")]
    assert "chairs" in invoke("data", "list", home=home).output
    assert str(home / "data") in invoke("data", "prepare", "chairs", *settings, home=home).output.replace("\n", "")
    assert "sound" in invoke("data", "check", "chairs", *settings, home=home).output
    picture = tmp_path / "sheet.png"
    invoke("data", "show", "chairs", *settings, "--out", picture, home=home)
    assert picture.stat().st_size > 1000
    mistake = invoke("data", "prepare", "chairs", "--set", "vews=3", home=home, code=1)
    assert "did you mean 'views'" in str(mistake.exception)


def test_weights_commands(weights, monkeypatch, tmp_path):
    monkeypatch.setenv("SPLATSWEEP_WEIGHTS", str(weights.folder))
    weights.fetch("vgg16")
    assert "vgg16" in invoke("weights", "list").output
    assert "sound" in invoke("weights", "check", "vgg16").output
    monkeypatch.setenv("SPLATSWEEP_WEIGHTS", str(tmp_path))
    assert "splatsweep weights fetch vgg16" in invoke("weights", "check", "vgg16", code=2).stderr


def test_a_sweep_that_was_never_planned_has_no_report_and_no_status(home, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("name: never\n")
    assert "splatsweep run" in str(invoke("report", path, home=home, code=1).exception)
    assert "splatsweep run" in str(invoke("status", path, home=home, code=1).exception)


def test_what_was_planned_is_told_while_the_file_is_being_changed(home, tmp_path):
    """A mistake in a trial that is yet to be planned does not matter; one in what is asked for does."""
    path = tmp_path / "sweep.yaml"
    path.write_text("name: never\nbase: {train.batchsize: 4}\n")
    assert "splatsweep run" in str(invoke("report", path, home=home, code=1).exception)
    path.write_text("name: never\ntabels: [auto]\n")
    assert "did you mean 'tables'" in str(invoke("report", path, home=home, code=1).exception)


def test_the_ui_needs_a_store(home):
    assert "run a sweep first" in str(invoke("ui", home=home, code=1).exception)
