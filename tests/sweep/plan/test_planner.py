import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.data.store import StoreError
from results.load import TrialRecord
from results.records import atomic
from results.records.frozen_plans import freeze, read_plan
from results.records.home import plan_file
from results.records.monitor import Monitor, TrialProgress
from results.records.plan import PlanError, PrimaryMetric, States
from results.tables.select import selected
from sweep.file.load import load_sweep
from sweep.file.schema import Sweep
from sweep.plan import planner as plan_module
from sweep.plan.plan_diff import reasons, why_table
from sweep.plan.planner import make_plan, plan_table, report_tenths
from tests.datasets import planned_dataset

SMALL = {"base": {"train.stages": [{"iterations": 5, "lr": 1e-4, "losses": {"l2": 1.0}}]}}


class _Datasets:
    """Replaces the packed stores: it has what planning reads, and records each opening."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, dict[str, Any]]] = []
        self.fingerprint = "f" * 64
        self.resolution = 64

    def open(self, name: str, options: Mapping[str, Any], home: Path, progress: Callable[..., None]) -> SimpleNamespace:
        assert home.is_absolute()
        self.opened.append((name, dict(options)))
        return planned_dataset(self.fingerprint + name, self.resolution)


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> _Datasets:
    datasets = _Datasets()
    monkeypatch.setattr(plan_module, "open_dataset", datasets.open)
    return datasets


def _sweep(**content: Any) -> Sweep:
    return Sweep.model_validate({"name": "a", **SMALL, **content})


def _keys(home: Path, **content: Any) -> list[str]:
    return [trial.key for trial in make_plan(_sweep(**content), home).trials]


@pytest.mark.usefixtures("datasets")
def test_trials_with_one_key_are_one_under_all_their_names(tmp_path: Path) -> None:
    block = {"axes": {"depth.model": ["none", "oracle"], "depth.fusion": ["input", "xattn"]}}
    plan = make_plan(_sweep(trials={"baseline": {}}, grid=[block], seeds=[0, 1]), tmp_path)
    assert [(trial.names, trial.seed) for trial in plan.trials] == [
        (names, seed)
        for names in (
            ("baseline", "model=none fusion=input", "model=none fusion=xattn"),
            ("model=oracle fusion=input",),
            ("model=oracle fusion=xattn",),
        )
        for seed in (0, 1)
    ]
    assert plan.trials[0].name == "baseline"
    assert len({trial.key for trial in plan.trials}) == 6


@pytest.mark.usefixtures("datasets")
def test_a_key_holds_what_decides_numbers_and_nothing_else(tmp_path: Path) -> None:
    [key] = _keys(tmp_path)
    assert len(key) == 16
    assert _keys(tmp_path, name="b", tables=["auto"], run={"executor": "inline", "log_every": 1}) == [key]
    assert _keys(tmp_path, trials={"renamed": {}}) == [key]
    assert _keys(tmp_path / "elsewhere") == [key]
    assert _keys(tmp_path, trials={"a": {"depth.fusion": "xattn"}}) == [key], "depth is off"
    assert _keys(tmp_path, seeds=[1]) != [key]
    assert _keys(tmp_path, trials={"a": {"train.stages.0.losses.l2": 0.5}}) != [key]
    assert _keys(tmp_path, trials={"a": {"depth.model": "oracle"}}) != [key]


def test_a_key_changes_with_the_data(tmp_path: Path, datasets: _Datasets) -> None:
    before = _keys(tmp_path)
    datasets.fingerprint = "e" * 64
    assert _keys(tmp_path) != before


@pytest.mark.usefixtures("datasets")
def test_a_key_changes_with_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module.WeightStore, "identity", lambda *_: sha256)
    sha256 = "0" * 64
    before = _keys(tmp_path, base={"depth.model": "oracle"})
    sha256 = "1" * 64
    assert _keys(tmp_path, base={"depth.model": "oracle"}) != before


def test_each_dataset_is_opened_once(tmp_path: Path, datasets: _Datasets) -> None:
    axes = {"data.name": ["chairs", "scans"], "train.batch_size": [1, 2]}
    make_plan(_sweep(grid=[{"axes": axes}], seeds=[0, 1]), tmp_path)
    assert datasets.opened == [("chairs", {}), ("scans", {})]


@pytest.mark.usefixtures("datasets")
def test_every_plan_has_the_trivial_rows(tmp_path: Path) -> None:
    plan = make_plan(_sweep(seeds=[3, 4]), tmp_path)
    assert [(c.name, c.seed, c.config.model.name, c.config.is_trained) for c in plan.controls] == [
        ("blank", 0, "blank", False),
        ("copy_input", 0, "copy_input", False),
    ]
    assert plan.controls[0].config.data == plan.trials[0].config.data


@pytest.mark.usefixtures("datasets")
def test_trivial_rows_of_several_kinds_are_named_by_what_differs(tmp_path: Path) -> None:
    block = {"axes": {"data.resolution": [32, 64], "train.batch_size": [1, 2]}}
    plan = make_plan(_sweep(grid=[block]), tmp_path)
    assert [control.name for control in plan.controls] == [
        "blank resolution=32",
        "copy_input resolution=32",
        "blank resolution=64",
        "copy_input resolution=64",
    ]
    assert len({control.key for control in plan.controls}) == 4


@pytest.mark.usefixtures("datasets")
def test_a_trial_that_predicts_trivially_is_a_control_under_one_more_name(tmp_path: Path) -> None:
    plan = make_plan(_sweep(trials={"a": {}, "nothing": {"model.name": "blank"}}, seeds=[0, 1]), tmp_path)
    assert [trial.name for trial in plan.trials] == ["a", "a"]
    assert plan.controls[0].names == ("blank", "nothing")


@pytest.mark.usefixtures("datasets")
def test_what_is_pending_is_what_has_no_result_and_did_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = _sweep(trials={name: {"train.batch_size": n} for n, name in enumerate("abcd", start=1)})
    plan = make_plan(sweep, tmp_path)
    assert {trial.status for trial in plan.everything} == {"pending"}
    states = dict(zip([t.key for t in plan.trials], ["finished", "failed", "interrupted", "pending"], strict=True))
    for trial in plan.everything:
        (tmp_path / "trials" / trial.key).mkdir(parents=True)
    monkeypatch.setattr(Monitor, "look", lambda _, key: TrialProgress(states.get(key, "finished")))
    for later in (make_plan(sweep, tmp_path), plan.refreshed(Monitor(tmp_path))):
        assert [trial.name for trial in later.pending] == ["c", "d"]
        assert [trial.name for trial in later.failed] == ["b"]


@pytest.mark.usefixtures("datasets")
def test_a_seed_more_leaves_the_other_keys_alone(tmp_path: Path) -> None:
    assert set(_keys(tmp_path, seeds=[0])) < set(_keys(tmp_path, seeds=[0, 1]))


def test_a_resolution_that_the_data_cannot_give_is_refused(tmp_path: Path, datasets: _Datasets) -> None:
    datasets.resolution = 24
    with pytest.raises(PlanError, match=r"data.resolution 32: dataset 'chairs' has images of 24 px"):
        make_plan(_sweep(), tmp_path)


def test_what_is_missing_blocks_its_trials_and_no_other(
    tmp_path: Path, datasets: _Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_chairs_at_hand(name: str, *rest: Any) -> Any:
        return (datasets.open if name == "chairs" else open_dataset)(name, *rest)

    monkeypatch.setattr(plan_module, "open_dataset", with_chairs_at_hand)
    monkeypatch.setenv("SPLATSWEEP_WEIGHTS", str(tmp_path / "none"))
    block = {"axes": {"data.name": ["chairs", "srn_cars"], "depth.model": ["none", "dpt_large"]}}
    plan = make_plan(_sweep(base={**SMALL["base"], "data.options": {}}, grid=[block]), tmp_path)
    found = {trial.name: (trial.status, len(trial.missing)) for trial in plan.trials}
    assert found == {
        "name=chairs model=none": ("pending", 0),
        "name=chairs model=dpt_large": ("blocked", 1),
        "name=srn_cars model=none": ("blocked", 1),
        "name=srn_cars model=dpt_large": ("blocked", 2),
    }
    assert len(plan.missing) == 2
    assert any("splatsweep data prepare srn_cars --source" in reason for reason in plan.missing)
    assert any("splatsweep weights fetch dpt_large" in reason for reason in plan.missing)
    assert not {trial.status for trial in plan.pending} & {"blocked"}
    freeze(plan, tmp_path)
    assert {t.name: t.missing for t in read_plan("a", tmp_path).trials} == {t.name: t.missing for t in plan.trials}
    assert json.loads(plan.to_json())["trials"][1]["missing"]


@pytest.mark.usefixtures("datasets")
def test_a_network_as_it_is_is_one_trial_for_all_seeds_and_waits_for_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPLATSWEEP_WEIGHTS", str(tmp_path / "none"))
    start = {"train": {"start": "network:mine"}}
    rows = {"given": {"train": {**start["train"], "stages": []}}, "tuned": start, "baseline": {}}
    plan = make_plan(_sweep(trials=rows, seeds=[0, 1]), tmp_path)
    assert [(trial.name, trial.status) for trial in plan.trials] == [
        ("given", "blocked"),
        *[("tuned", "blocked"), ("tuned", "blocked")],
        *[("baseline", "pending"), ("baseline", "pending")],
    ]
    command = "splatsweep weights fetch network:mine --from FILE"
    assert plan.missing == (f"weights 'network:mine' are not here; run: {command}",)


@pytest.mark.usefixtures("datasets")
def test_a_frozen_plan_reads_back_the_same(tmp_path: Path) -> None:
    plan = make_plan(_sweep(trials={"a": {"depth.model": "oracle"}, "b": {}}), tmp_path)
    path = freeze(plan, tmp_path)
    assert path == plan_file(tmp_path, "a") == tmp_path / "sweeps" / "a" / "plan.json"
    assert [entry.name for entry in path.parent.iterdir()] == ["plan.json"]
    assert read_plan("a", tmp_path).to_json() == plan.to_json()
    content = json.loads(path.read_text())
    assert set(content) == {"sweep", "created", "axes", "trials", "controls"}
    assert content["axes"] == {"depth.model": "model"}
    assert set(content["trials"][0]) == {"key", "name", "names", "seed", "config", "status", "training", "defaults"}
    assert content["trials"][0]["config"] == plan.trials[0].config.identity()


@pytest.mark.usefixtures("datasets")
def test_a_plan_keeps_when_its_primary_metric_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = {"a": {}, "b": {"train.batch_size": 3}}

    def planned(primary: str | None) -> PrimaryMetric | None:
        plan = make_plan(_sweep(trials=trials, primary=primary), tmp_path)
        freeze(plan, tmp_path)
        assert read_plan("a", tmp_path).primary == plan.primary
        return plan.primary

    first = planned("novel_psnr")
    assert first == PrimaryMetric("novel_psnr", trials=2, finished=0)
    (key, _) = [trial.key for trial in read_plan("a", tmp_path).trials]
    (tmp_path / "trials" / key).mkdir(parents=True)
    monkeypatch.setattr(Monitor, "look", lambda *_: TrialProgress("finished"))
    assert planned("novel_psnr") == first
    assert planned("novel_lpips") == PrimaryMetric("novel_lpips", trials=2, finished=1)
    assert planned("novel_psnr") == PrimaryMetric("novel_psnr", trials=2, finished=1)
    monkeypatch.setattr(States, "of", lambda *_: "to be evaluated")
    assert planned("novel_ssim") == PrimaryMetric("novel_ssim", trials=2, finished=2), "their curves are known"
    assert planned(None) is None


@pytest.mark.usefixtures("datasets")
def test_trials_of_a_plan_are_selected_by_the_default_of_a_key_that_came_later(tmp_path: Path) -> None:
    trials = {"one": {}, "two": {"model.gaussians_per_pixel": 2}}
    freeze(make_plan(_sweep(trials=trials), tmp_path), tmp_path)
    records = [TrialRecord(trial, None, "pending", "", None) for trial in read_plan("a", tmp_path).trials]
    for count, name in ((1, "one"), (2, "two")):
        (found,) = selected(records, {"model.gaussians_per_pixel": count, "train.keep": "last"})
        assert found.planned.name == name


@pytest.mark.usefixtures("datasets")
def test_a_plan_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(_sweep(), tmp_path)
    path = freeze(plan, tmp_path)
    before = path.read_text()

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        freeze(make_plan(_sweep(seeds=[1]), tmp_path), tmp_path)
    assert path.read_text() == before
    assert [entry.name for entry in path.parent.rglob("*") if entry.is_file()] == ["plan.json"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sweep": "a", "created": "", "trials": [{}], "controls": []}'])
def test_a_damaged_plan_is_not_read(tmp_path: Path, content: str) -> None:
    path = plan_file(tmp_path, "a")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(PlanError, match=r"plan\.json .*; plan the sweep again"):
        read_plan("a", tmp_path)


def test_the_error_of_a_missing_plan_has_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="splatsweep run"):
        read_plan("a", tmp_path)


@pytest.mark.usefixtures("datasets")
def test_the_table_shows_names_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(_sweep(trials={"[bold]x": {}, "same": {}}), tmp_path)
    finished = plan.trials[0].key
    (tmp_path / "trials" / finished).mkdir(parents=True)
    monkeypatch.setattr(Monitor, "look", lambda _, key: TrialProgress("finished" if key == finished else "pending"))
    plan = plan.refreshed(Monitor(tmp_path))
    written = io.StringIO()
    Console(file=written, width=100).print(plan_table(plan))
    text = written.getvalue()
    for part in ("[bold]x", "= same", plan.trials[0].key, "blank", "copy_input", "2 pending, 1 finished"):
        assert part in text


@pytest.mark.usefixtures("datasets")
def test_a_narrow_terminal_shows_whole_names(tmp_path: Path) -> None:
    plan = make_plan(_sweep(trials={"a_name_that_is_longer_than_its_column": {}}), tmp_path)
    for table in (plan_table(plan), why_table(plan, reasons(plan, tmp_path))):
        written = io.StringIO()
        Console(file=written, width=60).print(table)
        assert "…" not in written.getvalue()
        cells = (line.split("│")[1] for line in written.getvalue().splitlines() if line.startswith("│"))
        assert "a_name_that_is_longer_than_its_column" in "".join(cells).replace(" ", "")


GRID_OF_10_000 = {
    "train.batch_size": list(range(1, 11)),
    "train.stages.0.lr": [n * 1e-5 for n in range(1, 11)],
    "train.stages.*.losses.tv": [n / 100 for n in range(1, 11)],
    "depth.fusion": ["input", "xattn"],
    "model.head.scale_bias": [n / 100 for n in range(1, 6)],
}


@pytest.mark.usefixtures("datasets")
def test_ten_thousand_trials_are_planned(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps({"name": "a", "base": {"depth.model": "oracle"}, "grid": [{"axes": GRID_OF_10_000}]}))
    plan = make_plan(load_sweep(path), tmp_path)
    assert len({trial.key for trial in plan.trials}) == 10_000


@pytest.mark.usefixtures("datasets")
def test_a_long_table_ends_with_how_much_is_left(tmp_path: Path) -> None:
    axes = {key: GRID_OF_10_000[key] for key in ("train.batch_size", "train.stages.0.lr", "train.stages.*.losses.tv")}
    plan = make_plan(_sweep(grid=[{"axes": axes}]), tmp_path)
    written = io.StringIO()
    Console(file=written, width=100).print(plan_table(plan))
    assert "... and 500 more; --json has all" in written.getvalue()


def test_progress_is_reported_in_tenths() -> None:
    lines: list[str] = []
    progress = report_tenths("chairs", lines.append)
    for done in range(2):
        progress(done, 2, f"{done}.whl")  # files of the source, and then objects
    for done in range(1, 101):
        progress(done, 100, f"chair_{done}")
    assert len(lines) == 2 + 11
    assert lines[-1] == "preparing dataset chairs: 100 of 100 (chair_100)"


@pytest.mark.usefixtures("datasets")
def test_configurations_are_whole(tmp_path: Path) -> None:
    [trial] = make_plan(_sweep(), tmp_path).trials
    assert isinstance(trial.config, TrialConfig)
    assert trial.config.train.iterations == 5


def test_a_damaged_dataset_blocks_its_own_trials_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(name: str, *_: Any) -> SimpleNamespace:
        if name == "scans":
            raise StoreError(f"{tmp_path}/data/scans-1/manifest.json is damaged: it is empty")
        return planned_dataset("f" * 64, 64)

    monkeypatch.setattr(plan_module, "open_dataset", opened)
    plan = make_plan(_sweep(trials={"own": {}, "other": {"data.name": "scans", "data.options.seed": 2}}), tmp_path)
    assert {trial.name: trial.status for trial in plan.trials} == {"own": "pending", "other": "blocked"}
    (problem,) = plan.missing
    assert "manifest.json is damaged: it is empty; delete that folder" in problem
    assert problem.endswith(f"run: splatsweep data prepare scans --set seed=2 --home {tmp_path}")
