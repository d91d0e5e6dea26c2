"""Read-only commands: their imports, and the home's path from every origin."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from typer import Typer
from typer.testing import CliRunner

from results.records.frozen_plans import freeze
from results.records.home import user_path
from results.records.journal import Journal
from results.records.plan import Plan, PlannedTrial
from results.store import ResultStore
from sweep.bench.report_fill import Place, Size, fill
from sweep.cli import app
from tests.homes import write_result

#: packages whose import costs a tenth of a second or more, or hundreds of megabytes
HEAVY = {
    "torch", "ray", "mlflow", "transformers", "timm", "optuna", "pandas", "pyarrow", "sqlalchemy", "matplotlib",
    "scipy", "numpy", "PIL",
}  # fmt: skip
#: what is drawn or read for the first time needs
_DRAWING = {"pandas", "pyarrow", "matplotlib", "scipy", "numpy", "PIL"}
#: command and its arguments; SWEEP is the file -> the heavy packages that it may import
LOOKING = {
    "status SWEEP": set(),
    "stop SWEEP": set(),
    "sync SWEEP": set(),
    "trials --sweep SWEEP": set(),
    "logs baseline --seed 0 --sweep SWEEP": set(),
    "report SWEEP": {"numpy"},
    "explain auto baseline novel_psnr --sweep SWEEP": {"numpy", "scipy"},
    "schema": set(),
    "--version": set(),
}
SWEEP = "name: bench\nbase: {data: {name: chairs}}\ntrials: {baseline: {}}\nseeds: [0]\n"
CODE = """
import json, sys
from sweep.cli import main
sys.argv = ["splatsweep", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
print("MODULES", json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a finished and recorded sweep."""
    home = tmp_path_factory.mktemp("home")
    fill(home, Size(runs=4, objects=3, steps=2), Place.in_home(home))
    (home / "sweep.yaml").write_text(SWEEP)
    store = ResultStore.of(home, None)
    for key, run in store.runs().items():
        folder = home / "trials" / key
        with Journal(folder) as journal:
            journal.start(0)
        with store.artifact(run, "per_object.parquet") as scores:
            write_result(folder, scores.read_bytes())
    return home


def imported(home: Path, command: str) -> set[str]:
    """The heavy packages that a command imports."""
    arguments = [str(home / "sweep.yaml") if word == "SWEEP" else word for word in command.split()]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "SPLATSWEEP_HOME": str(home)},
    )
    assert "error" not in done.stderr or command.startswith("stop")
    return set(json.loads(done.stdout.rpartition("MODULES ")[2])) & HEAVY


@pytest.fixture(scope="module")
def drawn(home: Path) -> Path:
    """The home with its report, as `run` leaves it."""
    first = imported(home, "report SWEEP")
    assert first <= _DRAWING
    assert first >= {"matplotlib"}
    return home


@pytest.mark.parametrize("command", LOOKING)
def test_a_command_that_only_looks_imports_little(drawn: Path, command: str) -> None:
    assert imported(drawn, command) <= LOOKING[command]


def test_a_recorded_sweep_is_synced_by_looking_and_another_is_not_taken_for_one(home: Path, monkeypatch) -> None:
    from sweep.run import recording

    result = CliRunner().invoke(app, ["sync", str(home / "sweep.yaml"), "--home", str(home)])
    assert result.output == "4 of 4 trials are in MLflow\n"
    elsewhere = ["--home", str(home), "--set", "tracking.experiment=another"]
    result = CliRunner().invoke(app, ["sync", str(home / "sweep.yaml"), *elsewhere])
    assert result.output.endswith("MLflow\n4 of them stay in the experiment 'bench', where they were first recorded\n")

    def called(*_: object) -> None:
        raise RuntimeError("MLflow is written")

    monkeypatch.setattr(recording, "_tracker", called)
    with Journal(home / "trials" / "fresh") as journal:
        journal.start(0)
    trial = PlannedTrial("fresh", ("fresh",), 0, {"seed": 0}, "pending")
    freeze(Plan("bench", "2026-03-01T12:00:00+00:00", (trial,), ()), home)
    result = CliRunner().invoke(app, ["sync", str(home / "sweep.yaml"), "--home", str(home)])
    assert "MLflow is written" in str(result.exception)


@pytest.mark.parametrize("command", ["report SWEEP", "explain auto baseline novel_psnr --sweep SWEEP"])
def test_a_damaged_store_is_named_once(home: Path, tmp_path: Path, command: str) -> None:
    copied = tmp_path / "home"
    shutil.copytree(home, copied)
    (copied / "mlflow.db").write_bytes(b"no database")
    arguments = [str(copied / "sweep.yaml") if word == "SWEEP" else word for word in command.split()]
    words = [sys.executable, "-c", "from sweep.cli import main; main()", *arguments, "--home", str(copied)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == 2
    assert (done.stdout + done.stderr).count("is no MLflow store") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_home_and_a_sweep_file_below_a_tilde_are_found(tmp_path: Path, monkeypatch, way: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    trial = PlannedTrial("k", ("baseline",), 0, {"seed": 0, "eval": {"split": "test"}}, "pending")
    freeze(Plan("bench", "2026-03-01T12:00:00+00:00", (trial,), ()), tmp_path / "my runs")
    arguments = ["status", "~/sweep.yaml"]
    if way == "variable":
        monkeypatch.setenv("SPLATSWEEP_HOME", "~/my runs")
    else:
        arguments += ["--home=~/my runs"]
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, "baseline" in result.output) == (0, True), result.output
    assert not (tmp_path / "~").exists()


def test_every_path_of_a_command_is_parsed_in_one_place() -> None:
    def callbacks(commands: Typer) -> Iterator[Callable[..., None]]:
        yield from (command.callback for command in commands.registered_commands if command.callback)
        for group in commands.registered_groups:
            yield from callbacks(group.typer_instance)

    options = [
        (f"{callback.__module__}.{callback.__name__} {name}", hint)
        for callback in callbacks(app)
        for name, hint in get_type_hints(callback, include_extras=True).items()
        if get_origin(hint) is Annotated and Path in (get_args(hint)[0], *get_args(get_args(hint)[0]))
    ]
    assert len(options) > 10
    assert [name for name, hint in options if get_args(hint)[1].parser is not user_path] == []


def test_a_tilde_of_nobody_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", "~nobody-at-all/x.yaml", "--home", str(tmp_path)])
    assert result.exit_code != 0
    assert "~nobody-at-all/x.yaml" in result.output + str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_home_is_a_mistake_and_a_missing_one_is_named(tmp_path: Path) -> None:
    """As of a variable of the shell that is not set, and of a mistyped path."""
    result = CliRunner().invoke(app, ["trials", "--home", ""])
    assert result.exit_code == 2
    assert "path is empty" in " ".join(result.output.split())
    for command, found in (("trials", "No trials in"), ("clean", "nothing to remove")):
        output = " ".join(CliRunner().invoke(app, [command, "--home", str(tmp_path / "x")]).output.split())
        assert found in output
        assert "does not exist" in output


def test_a_folder_with_the_name_of_a_sweep_does_not_hide_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bench").mkdir()
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["trials", "--sweep", "bench", "--home", str(home)])
    assert result.exit_code == 0, result.output
