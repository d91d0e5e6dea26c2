"""The whole path on real processes: sweep.yaml -> plan -> trial -> train -> journal -> MLflow -> tables."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from results.address import default_uri
from results.records.journal import read_events
from tests.processes import Home, finish, run, start, wait_for_middle

SWEEP = """
name: tiny
base:
  data: {name: chairs, resolution: 16, options: {train: 6, val: 2, test: 3, views: 5, image_size: 16}}
  model: {base_dim: 8, channel_mult: [1, 2], attention_resolutions: [8]}
  train:
    batch_size: 2
    stages:
      - {iterations: 140, lr: 1.0e-3, losses: {l2: 1.0}}
      - {iterations: 4, lr: 1.0e-4, losses: {l2: 0.99, lpips: 0.01}}
  eval: {every: 50, val_objects: 2}
trials:
  baseline: {}
  tv: {train.stages.*.losses.tv: 0.01}
  depth: {depth.model: oracle}
run: {log_every: 5, checkpoint_every: 20}
"""
NAMES = {"baseline", "tv", "depth"}
CONTROLS = {"blank", "copy_input"}


@dataclass
class Finished:
    """The home and output of a finished run."""

    home: Path
    output: str

    def trials(self) -> dict[str, dict]:
        plan = json.loads((self.home / "sweeps" / "tiny" / "plan.json").read_text())
        return {trial["name"]: trial for trial in plan["trials"] + plan["controls"]}

    def folder(self, name: str) -> Path:
        return self.home / "trials" / self.trials()[name]["key"]

    def journals(self) -> dict[str, bytes]:
        return {path.parent.name: path.read_bytes() for path in self.home.glob("trials/*/journal.jsonl")}


def measured(folder: Path) -> dict[tuple[int, str], float]:
    return {
        (event["step"], name): value
        for event in read_events(folder)
        for name, value in event.get("values", {}).items()
        if not name.startswith("time/")
    }


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, weights) -> Path:  # noqa: ARG001 - the commands find the weights by their variable
    path = tmp_path_factory.mktemp("sweep") / "tiny.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture(scope="module")
def inline(sweep, tmp_path_factory) -> Finished:
    """The sweep after an undisturbed run in one process, started as from a shell on a machine without a home."""
    home = tmp_path_factory.mktemp("inline")
    return Finished(home, run("run", sweep, "--executor", "inline", home=home, from_shell=True))


@pytest.fixture(scope="module")
def killed(sweep, prepared_home, tmp_path_factory) -> Finished:
    """The sweep after a run under Ray in which the worker of one trial was killed midway."""
    home = shutil.copytree(prepared_home, tmp_path_factory.mktemp("ray") / "home")
    process = start("run", sweep, "--executor", "ray", home=home)
    os.kill(wait_for_middle(Home(home), process)["pid"], signal.SIGKILL)
    return Finished(home, finish(process))


@pytest.fixture
def here(prepared_home, tmp_path) -> Path:
    """A home in which no trial has run."""
    return shutil.copytree(prepared_home, tmp_path / "home")


def test_every_trial_finishes_and_the_report_is_written(inline):
    assert "3 trials: 0 finished before, 3 to run" in inline.output
    assert set(inline.trials()) == NAMES | CONTROLS
    assert {trial["status"] for trial in inline.trials().values()} == {"finished"}
    report = inline.home / "reports" / "tiny" / "index.html"
    assert str(report) in inline.output
    page = report.read_text()
    assert all(name in page for name in NAMES | CONTROLS)


def test_an_archive_has_the_same_tables_and_no_weights(sweep, inline, tmp_path):
    out = tmp_path / "published"
    assert f"5 trials in {out}" in run("archive", sweep, "--out", out, home=inline.home)
    assert not [*out.rglob("*.safetensors"), *out.rglob("lock"), *out.rglob("mlflow*")]
    run("report", sweep, home=out)
    for name in ("auto.tex", "auto.csv", "auto.md"):
        ours, theirs = ((home / "reports" / "tiny" / name).read_text() for home in (out, inline.home))
        assert ours == theirs


def test_ray_and_a_killed_worker_change_no_bit(inline, killed):
    starts = {name: [e["step"] for e in read_events(killed.folder(name)) if e["event"] == "start"] for name in NAMES}
    assert any(steps[-1] >= 20 for steps in starts.values()), "the killed trial did not go on from its checkpoint"
    for name in NAMES | CONTROLS:
        assert measured(killed.folder(name)) == measured(inline.folder(name))
        ours, theirs = (pd.read_parquet(each.folder(name) / "per_object.parquet") for each in (killed, inline))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def test_mlflow_holds_one_run_per_trial_with_all_that_was_measured(killed):
    client = MlflowClient(default_uri(killed.home))
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.`splatsweep.key` LIKE '%'")
    assert {each.info.run_name for each in runs} == NAMES | CONTROLS
    assert len(runs) == len(NAMES | CONTROLS)
    for each in runs:
        assert each.info.status == "FINISHED"
        folder = killed.folder(each.info.run_name)
        # Final scores are recorded at step 0, where MLflow draws them as bars.
        expected = {(step if name.startswith(("train/", "val/")) else 0, name) for step, name in measured(folder)}
        recorded = {
            (metric.step, name)
            for name in each.data.metrics
            if not name.startswith("time/")
            for metric in client.get_metric_history(each.info.run_id, name)
        }
        assert recorded == expected
        artifacts = {file.path for file in client.list_artifacts(each.info.run_id)}
        assert {"per_object.parquet", "samples.png", "samples.npz", "config.json"} <= artifacts


def test_results_are_a_tidy_frame(inline, sweep):
    from results.load import load_results
    from sweep.file.load import load_sweep

    frame = load_results(load_sweep(sweep), inline.home)
    assert list(frame) == ["trial", "key", "seed", "split", "object", "view_kind", "metric", "value"]
    assert set(frame["trial"]) == NAMES | CONTROLS
    assert set(frame["metric"]) == {"psnr", "ssim", "lpips"}
    assert set(frame["view_kind"]) == {"conditioned", "novel"}
    assert len(frame) == 5 * 3 * 2 * 3  # trials, objects, view kinds, metrics
    result = json.loads((inline.folder("tv") / "result.json").read_text())
    cell = frame[(frame["trial"] == "tv") & (frame["view_kind"] == "novel") & (frame["metric"] == "ssim")]
    assert cell["value"].mean() == pytest.approx(result["metrics"]["novel/ssim"], rel=1e-12)


def test_a_finished_sweep_trains_nothing_and_reports_that(inline, sweep):
    before, (page,) = inline.journals(), inline.home.glob("reports/*/index.html")
    drawn, manifest = page.stat().st_ino, page.with_name("report.json")
    made_from = json.loads(manifest.read_text())["made_from"]
    assert made_from is not None, "all that it was made from was there"
    output = run("run", sweep, home=inline.home)
    assert "Nothing to train" in output
    assert inline.journals() == before
    assert json.loads(manifest.read_text())["made_from"] == made_from
    assert page.stat().st_ino == drawn  # the report is current
    assert "Report: " in output


def test_adding_a_seed_runs_only_the_new_trials(inline, sweep):
    before = inline.journals()
    output = run("run", sweep, "--executor", "inline", "--set", "seeds=[0, 1]", "--only", "tv", home=inline.home)
    assert "6 trials: 3 finished before, 1 to run" in output
    after = inline.journals()
    assert len(after.keys() - before.keys()) == 1
    assert all(after[key] == content for key, content in before.items())


def test_a_trial_that_fails_explains_itself_and_stops_no_other(sweep, here):
    # Adam's step and the weights are finite, but with this learning rate the next loss is not.
    settings = ["--set", "base.train.stages=[{iterations: 8, lr: 1.0e-3, losses: {l2: 1.0}}]"]
    settings += ["--set", "trials={burst: {train.stages.0.lr: 1.0e+30}, calm: {}}"]
    output = run("run", sweep, "--executor", "inline", *settings, home=here, code=1)
    assert "burst seed 0 failed" in output
    assert "--only=burst --retry-failed" in output
    finished = Finished(here, output)
    assert finished.trials()["calm"]["status"] == "finished"
    assert finished.trials()["burst"]["status"] == "failed"
    report = (here / "reports" / "tiny" / "auto.md").read_text()
    assert "burst" in report


def test_a_tracking_server_that_is_down_costs_no_trial(sweep, here):
    short = ["--set", "base.train.stages=[{iterations: 4, lr: 1.0e-3, losses: {l2: 1.0}}]", "--only", "baseline"]
    down = ["--set", "tracking.uri=http://127.0.0.1:9"]
    output = run("run", sweep, "--executor", "inline", *short, *down, home=here, code=2)
    assert "Nothing is lost" in output
    finished = Finished(here, output)
    assert finished.trials()["baseline"]["status"] == "finished"
    again = run("run", sweep, "--executor", "inline", *short, home=here)
    assert "Nothing to train" in again
    assert (here / "reports" / "tiny" / "index.html").exists()


def test_an_interrupted_sweep_reports_that_and_resumes(sweep, here):
    options = ("--only", "baseline", "--set", "base.train.stages.0.iterations=500")
    process = start("run", sweep, "--executor", "ray", *options, home=here)
    wait_for_middle(Home(here), process)
    process.send_signal(signal.SIGTERM)
    output = finish(process, code=130)
    assert "Stopped with 1 trial unfinished (by SIGTERM)" in output
    finished = Finished(here, output)
    assert finished.trials()["baseline"]["status"] == "interrupted"
    run("run", sweep, "--executor", "inline", *options, home=here)
    assert finished.trials()["baseline"]["status"] == "finished"
    starts = [e["step"] for e in read_events(finished.folder("baseline")) if e["event"] == "start"]
    assert len(starts) == 2
    assert starts[1] >= 20


def test_a_second_driver_is_refused(sweep, tmp_path):
    import filelock

    folder = tmp_path / "sweeps" / "tiny"
    folder.mkdir(parents=True)
    (folder / "driver.json").write_text(json.dumps({"pid": 4711, "host": "elsewhere"}))
    with filelock.FileLock(folder / "driver.lock"):
        output = run("run", sweep, home=tmp_path, code=2)
    assert "is being run by process 4711 on elsewhere" in output
