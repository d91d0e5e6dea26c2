import dataclasses
import json
import os
import re
import sqlite3
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path
from unittest import mock

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from model.methods import controls
from model.rasterizers import BACKENDS
from sweep import __main__ as entry
from sweep.cli import app, main


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
        assert ": valid, " in invoke("validate", path).output


def test_init_writes_a_sweep_and_overwrites_nothing(tmp_path):
    path = tmp_path / "new" / "sweep.yaml"
    invoke("init", "quick", "--out", path)
    assert ": valid, " in invoke("validate", path).output
    below = invoke("init", "quick", "--out", path / "sweep.yaml", code=1)
    assert "there is a file of that name" in str(below.exception)
    again = invoke("init", "quick", "--out", path, code=1)
    assert "exists" in str(again.exception)
    unknown = invoke("init", "quik", "--out", tmp_path / "other.yaml", code=1)
    assert "did you mean 'quick'" in str(unknown.exception)
    file = invoke("init", "my.yaml", code=1)
    assert "'my.yaml'; allowed: laptop," in str(file.exception)
    assert "to write my.yaml: splatsweep init --out my.yaml" in str(file.exception)


def test_an_unknown_executor_is_reported_with_its_option(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("name: tiny\n")
    for executor in ("inlin", ""):
        mistake = str(invoke("run", path, "--executor", executor, home=tmp_path / "home", code=1).exception)
        assert mistake.startswith(f"unknown --executor {executor!r}; allowed: inline, ray")
    assert not (tmp_path / "home").exists()


def test_plan_as_json_is_nothing_but_json(home, tmp_path, tiny):
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps({"name": "tiny", "base": tiny(), "seeds": [0, 1]}))
    plan = json.loads(invoke("plan", path, "--json", home=home).stdout)
    assert [trial["seed"] for trial in plan["trials"]] == [0, 1]
    assert {trial["status"] for trial in plan["trials"]} == {"pending"}
    assert all(re.fullmatch("[0-9a-f]{16}", trial["key"]) for trial in plan["trials"])
    assert [control["name"] for control in plan["controls"]] == [*controls()]


def test_doctor_looks_at_everything(home):
    output = invoke("doctor", home=home).output
    rasterisers = [f"rasteriser {name}" for name in BACKENDS]
    for subject in ("machine", "packages", *rasterisers, "gpu", "home", "weights", "mlflow"):
        assert re.search(rf"^(ok|--)\s+{subject}", output, re.MULTILINE)


def test_a_file_is_no_home(tmp_path):
    (tmp_path / "file").write_text("")
    found = invoke("trials", "--home", tmp_path / "file", code=1)
    assert str(found.exception).endswith("/file is a file; a home is a folder: choose another with --home")


def test_doctor_reports_an_unusable_home(tmp_path, monkeypatch):
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


def test_changes_since_the_plan_are_reported(home, tmp_path):
    """`report` ignores a mistake in a trial that is not planned yet, but not one in the tables."""
    path = tmp_path / "sweep.yaml"
    path.write_text("name: never\nbase: {train.batchsize: 4}\n")
    assert "splatsweep run" in str(invoke("report", path, home=home, code=1).exception)
    path.write_text("name: never\ntabels: [auto]\n")
    assert "did you mean 'tables'" in str(invoke("report", path, home=home, code=1).exception)


def test_the_ui_needs_a_store(tmp_path):
    assert "run a sweep first" in str(invoke("ui", home=tmp_path, code=1).exception)


def test_the_ui_shows_the_store_of_a_home_that_is_named_by_a_relative_path(tmp_path, monkeypatch):
    shown = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("results.store.ResultStore.exists", lambda _: True)
    monkeypatch.setattr("results.store.ResultStore.runs", lambda _: {})
    monkeypatch.setattr("sweep.run.mlflow_ui.serve", lambda uri, *_, **__: shown.append(uri))
    (tmp_path / "runs").mkdir()
    with sqlite3.connect(tmp_path / "runs" / "mlflow.db") as store:
        store.execute("CREATE TABLE experiments (experiment_id, artifact_location)")
        store.execute("CREATE TABLE experiment_tags (experiment_id, key)")
        store.execute("CREATE TABLE runs (run_uuid, experiment_id, artifact_uri)")
        store.execute("CREATE TABLE tags (run_uuid, key)")
    invoke("ui", "--no-browser", home="runs")
    assert shown == [f"sqlite:///{tmp_path}/runs/mlflow.db"]


@pytest.mark.parametrize(
    ("name", "exists", "reason"),
    [
        ("gone.safetensors", False, "there is no such file"),
        ("published.pth", True, "not the .safetensors file of an exported network.*evaluate --checkpoint"),
        ("notes.txt", True, "not the .safetensors file of an exported network"),
        ("gone.pth", False, "no trial .*gone.pth"),
    ],
)
def test_predict_names_a_file_that_is_no_exported_network(home, tmp_path, name, exists, reason):
    photo, path = tmp_path / "photo.png", tmp_path / name
    photo.touch()
    if exists:
        path.touch()
    problem = str(invoke("predict", path, photo, "--out", tmp_path / "out", home=home, code=1).exception)
    assert re.search(reason, problem), problem


def test_the_version_is_printed():
    from importlib.metadata import version

    assert invoke("--version").output == f"splatsweep {version('splatsweep')}\n"


def test_logs_are_found_by_name(home):
    from results.records.frozen_plans import freeze
    from results.records.home import trial_folder
    from results.records.journal import Journal
    from results.records.plan import Plan, PlannedTrial

    freeze(Plan("s", "now", (PlannedTrial("aa11", ("ours [ema]",), 0, {}, "pending"),), ()), home)
    with Journal(trial_folder(home, "aa11")) as journal:
        journal.start(0)
        journal.failed("[/lpips] is nan")
    lines = invoke("logs", "ours [ema]", "--follow", home=home).output.splitlines()
    assert lines[1].endswith("failed: [/lpips] is nan")
    assert lines[-1] == "aa11: failed"
    assert "ours [ema] seed 0" in str(invoke("logs", "theirs", home=home, code=1).exception)


def test_doctor_names_mps_where_it_would_help(tmp_path, monkeypatch):
    from sweep.doctor import _sharing

    assert list(_sharing()) == [], "without a GPU there is nothing to share"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    (finding,) = _sharing()
    assert finding.state == "limited"
    assert "nvidia-cuda-mps-control -d" in finding.detail
    (tmp_path / "control").touch()
    assert [finding.state for finding in _sharing()] == ["good"]


@pytest.mark.parametrize(
    ("order", "expected"),
    [("seeds-first", [(0, 5), (1, 5), (0, 3), (1, 3)]), ("rows-first", [(0, 5), (0, 3), (1, 5), (1, 3)])],
)
def test_the_first_seed_of_every_row_runs_first(order, expected):
    from sweep.file.schema import Sweep
    from sweep.run.driver import ordered
    from tests.works import trial_of

    trials = [dataclasses.replace(trial_of(seed), key=f"{row}{seed}") for row in (0, 1) for seed in (5, 3)]
    sweep = Sweep.model_validate({"name": "a", "seeds": [5, 3], "run": {"order": order}})
    assert [(int(t.key[0]), t.seed) for t in ordered(trials, sweep)] == expected


def test_trials_that_share_a_training_run_last():
    from sweep.file.schema import Sweep
    from sweep.run.driver import ordered
    from tests.works import trial_of

    trainings = ["a", "a", None, "b", "a", None, "b"]
    trials = [dataclasses.replace(trial_of(0), key=str(n), training=key) for n, key in enumerate(trainings)]
    sweep = Sweep.model_validate({"name": "a"})
    assert [trial.key for trial in ordered(trials, sweep)] == ["0", "2", "3", "5", "1", "4", "6"]


def test_an_interruption_during_imports_shows_no_traceback():
    """The signal is sent when the first module of a command is looked up."""
    code = (
        "import os, runpy, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs of a shell ignore it
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'sweep.commands':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "runpy.run_module('sweep', run_name='__main__')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_notes_of_an_error_are_printed_with_it(monkeypatch, capsys):
    error = ValueError("cannot unpack")
    error.add_note("(while the object 'a' was read)")
    monkeypatch.setattr("sweep.cli.app", mock.Mock(side_effect=error))
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == "error: cannot unpack\n(while the object 'a' was read)\n"


def test_errors_of_the_system_name_the_path_and_no_number(monkeypatch, capsys, tmp_path):
    command = ["splatsweep", "evaluate", "--checkpoint", str(tmp_path / "no.pth"), "--dataset", "chairs"]
    monkeypatch.setattr(sys, "argv", [*command, "--home", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == f"error: {tmp_path / 'no.pth'}: no such file or directory\n"


def test_the_package_is_the_console_script():
    ended = subprocess.run([sys.executable, "-m", "sweep", "--version"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert ended.stdout.startswith("splatsweep ")
    project = tomllib.loads((Path(entry.__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["splatsweep"] == f"{entry.main.__module__}:{entry.main.__name__}"
