"""Loading tidy frames from a real MLflow store."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from results.errors import ResultsError
from results.load import RESULT_COLUMNS, load_curves, load_results, load_samples, load_trials, read_evidence
from results.records.journal import Journal
from tests.homes import write_result
from tests.results.conftest import entry


def fake_entry(key: str, name: str, **more: Any) -> dict[str, Any]:
    values = {"key": key, "name": name, "names": [name], "seed": 0, "config": {}, "status": "pending"}
    return {**values, **more}


def scores(value: float) -> pd.DataFrame:
    row = {"object": "o", "split": "test", "view_kind": "novel", "metric": "psnr", "value": value}
    return pd.DataFrame([row])


def finish(home: Path, key: str, measured: pd.DataFrame | None = None) -> None:
    """Writes the folder of a finished trial."""
    write_result(home / "trials" / key, (scores(20.0) if measured is None else measured).to_parquet())


def test_results_are_tidy_and_hold_the_trivial_rows(study, sweep) -> None:
    frame = load_results(sweep, study.home)
    assert list(frame.columns) == RESULT_COLUMNS
    assert list(dict.fromkeys(frame["trial"])) == ["baseline", "depth", "blank", "copy_input"]
    assert set(frame["metric"]) == {"psnr", "ssim", "lpips"}
    assert set(frame["view_kind"]) == {"conditioned", "novel"}
    assert frame["value"].dtype == np.float64
    # 6 finished runs x 3 objects x 2 view kinds x 3 metrics
    assert len(frame) == 6 * 3 * 2 * 3
    novel = frame[(frame["view_kind"] == "novel") & (frame["metric"] == "psnr")]
    means = novel.groupby(["trial", "seed"])["value"].mean()
    assert means["baseline", 1] == pytest.approx(21.0)
    assert means["blank", 0] == pytest.approx(12.0)


def test_other_metrics_can_be_requested(study, sweep) -> None:
    frame = load_results(sweep, study.home, metrics=["psnr_clamped"])
    assert set(frame["metric"]) == {"psnr_clamped"}


def test_a_folded_key_appears_under_its_first_name_only(recorded, sweep) -> None:
    recorded.plan([fake_entry("a", "base", names=["base", "depth=none"])])
    recorded.record("a", "base", per_object=scores(20.0))
    assert list(load_results(sweep, recorded.home)["trial"]) == ["base"]
    assert load_trials(sweep, recorded.home)["names"].tolist() == [("base", "depth=none")]


def test_every_planned_trial_is_listed_with_its_state(recorded, sweep) -> None:
    recorded.plan(
        [
            fake_entry("done", "done"),
            fake_entry("failed", "failed"),
            fake_entry("running", "running"),
            fake_entry("pending", "pending"),
            fake_entry("removed", "removed", status="finished"),
            fake_entry("unsynced", "unsynced"),
            fake_entry("empty", "empty"),
            fake_entry("stopped", "stopped"),
            fake_entry("judged", "judged", status="to be evaluated"),
        ]
    )
    finish(recorded.home, "unsynced")
    with Journal(recorded.home / "trials" / "stopped") as journal:
        journal.start(0)
        journal.stopped("Ctrl-C")
    recorded.record("done", "done", per_object=scores(20.0))
    recorded.record("failed", "failed", status="failed", tags={"splatsweep.error": "out of memory"})
    recorded.record("running", "running", status="running")
    recorded.record("empty", "empty")
    trials = load_trials(sweep, recorded.home).set_index("trial")
    assert trials["state"].to_dict() == {
        "done": "finished",
        "failed": "failed",
        "running": "running",
        "pending": "pending",
        "removed": "pending",
        "unsynced": "unrecorded",
        "empty": "unrecorded",
        "stopped": "interrupted",
        "judged": "to be evaluated",
    }
    assert trials.loc["stopped", "note"] == "Ctrl-C"
    assert trials.loc["failed", "note"] == "out of memory"
    assert "splatsweep sync" in trials.loc["unsynced", "note"]
    assert "no artifact per_object.parquet" in trials.loc["empty", "note"]
    assert set(load_results(sweep, recorded.home)["trial"]) == {"done"}


def test_a_trial_whose_driver_was_killed_is_as_its_folder_says(recorded, sweep) -> None:
    recorded.plan([fake_entry(name, name) for name in ("failed", "killed", "alive", "elsewhere")])
    for name in ("failed", "killed", "alive", "elsewhere"):
        recorded.record(name, name, status="running")
    with Journal(recorded.home / "trials" / "failed") as journal:
        journal.start(0)
        journal.failed("out of memory")
    with Journal(recorded.home / "trials" / "alive") as journal:
        journal.start(0)
    dead = {"event": "start", "time": 1.0, "step": 0, "host": socket.gethostname(), "pid": os.getpid(), "created": 1.0}
    (recorded.home / "trials" / "killed").mkdir()
    (recorded.home / "trials" / "killed" / "journal.jsonl").write_text(f"{json.dumps(dead)}\n")
    trials = load_trials(sweep, recorded.home).set_index("trial")
    states = {"failed": "failed", "killed": "interrupted", "alive": "running", "elsewhere": "running"}
    assert trials["state"].to_dict() == states
    assert trials.loc["failed", "note"] == "out of memory"


def test_a_report_of_a_home_is_of_its_own_trials(recorded, sweep) -> None:
    """Another home recorded other scores of the same keys later; of one trial this home's scores are in no run."""
    recorded.plan([fake_entry("a", "base"), fake_entry("b", "lost")])
    for key, values in (("a", (20.0, 25.0)), ("b", (30.0,))):
        for value in values:
            recorded.record(key, key, per_object=scores(value))
    for key, value in (("a", 20.0), ("b", 31.0)):
        finish(recorded.home, key, scores(value))
    assert load_results(sweep, recorded.home)["value"].tolist() == [20.0]
    lost = load_trials(sweep, recorded.home).set_index("trial").loc["lost"]
    assert lost["state"] == "unrecorded"
    assert "splatsweep sync" in lost["note"]
    shutil.rmtree(recorded.home / "trials")
    assert set(load_results(sweep, recorded.home)["value"]) in ({20.0, 30.0}, {25.0, 30.0})


def test_a_damaged_artifact_is_reported_not_raised(recorded, sweep) -> None:
    recorded.plan([fake_entry("a", "base"), fake_entry("b", "short")])
    recorded.record("a", "base", per_object=scores(20.0))
    recorded.record("b", "short", per_object=scores(20.0).drop(columns="split"))
    (artifact,) = [p for p in recorded.home.glob("artifacts/**/*.parquet") if "split" in pd.read_parquet(p)]
    artifact.write_bytes(b"PAR1 nonsense")
    trials = load_trials(sweep, recorded.home).set_index("trial")
    assert set(trials["state"]) == {"unrecorded"}
    assert "lacks split" in trials.loc["short", "note"]
    assert load_results(sweep, recorded.home).empty


def test_a_finished_run_wins_over_a_later_failed_one_of_its_key(recorded, sweep) -> None:
    recorded.plan([fake_entry("a", "base")])
    recorded.record("a", "base", per_object=scores(20.0))
    recorded.record("a", "base", status="failed")
    assert load_results(sweep, recorded.home)["value"].tolist() == [20.0]


def test_runs_of_other_sweeps_are_used_for_shared_keys_only(recorded, sweep) -> None:
    recorded.plan([fake_entry("a", "base")])
    recorded.record("a", "other name", per_object=scores(20.0), tags={"splatsweep.sweep": "another"})
    recorded.record("z", "unplanned", per_object=scores(30.0))
    frame = load_results(sweep, recorded.home)
    assert frame[["trial", "value"]].to_numpy().tolist() == [["base", 20.0]]


def test_a_missing_store_is_empty_and_is_not_created(recorded, sweep) -> None:
    recorded.plan([fake_entry("a", "base")])
    (recorded.home / "mlflow.db").unlink()
    assert load_results(sweep, recorded.home).empty
    assert list(load_results(sweep, recorded.home).columns) == RESULT_COLUMNS
    assert load_trials(sweep, recorded.home)["state"].tolist() == ["pending"]
    assert not (recorded.home / "mlflow.db").exists()


def test_a_file_that_is_no_database_is_refused(recorded, sweep) -> None:
    recorded.plan([fake_entry("a", "base")])
    (recorded.home / "mlflow.db").write_text("not a database, but long enough to look at" * 100)
    with pytest.raises(ResultsError, match=r"mlflow\.db cannot be read"):
        load_trials(sweep, recorded.home)


def test_the_sweeps_own_store_is_used(recorded, tmp_path_factory) -> None:
    other = tmp_path_factory.mktemp("other")
    (recorded.home / "mlflow.db").rename(other / "mlflow.db")
    sweep = SimpleNamespace(name="study", tracking=SimpleNamespace(uri=f"sqlite:///{other / 'mlflow.db'}"))
    recorded.plan([fake_entry("a", "base")])
    assert load_trials(sweep, recorded.home)["state"].tolist() == ["pending"]


def test_curves_hold_every_step_once(recorded, sweep) -> None:
    recorded.plan([fake_entry("a", "base")])
    points = [(50, 3.0), (100, 2.0), (100, 1.0), (150, math.inf)]
    recorded.record("a", "base", status="running", curves={"train/loss": points, "time/step_ms": [(0, 5.0)]})
    curves = load_curves(sweep, recorded.home)
    assert curves[["metric", "step", "value"]].to_numpy().tolist() == [
        ["train/loss", 50, 3.0],
        ["train/loss", 100, 1.0],
        ["train/loss", 150, math.inf],
    ]
    assert load_curves(sweep, recorded.home, ["time/step_ms"])["value"].tolist() == [5.0]


def test_samples_are_in_the_plans_order(study, sweep) -> None:
    samples = load_samples(sweep, study.home)
    assert [(s.trial, s.seed) for s in samples] == [
        ("baseline", 0),
        ("baseline", 1),
        ("depth", 0),
        ("depth", 1),
        ("blank", 0),
        ("copy_input", 0),
    ]


def test_damaged_samples_are_left_out(recorded, sweep) -> None:
    recorded.plan([fake_entry("a", "base")])
    recorded.record("a", "base", per_object=scores(20.0), samples={"objects": np.array(["o"])})
    assert load_samples(sweep, recorded.home) == ()


def test_costs_are_read_from_the_trials_folder_or_its_training(recorded, sweep) -> None:
    recorded.plan([entry("a", "measured"), entry("b", "older", training="t"), entry("c", "damaged")])
    for key in "abc":
        recorded.record(key, key, per_object=scores(20.0))
        (recorded.home / "trials" / key).mkdir(parents=True)
    (recorded.home / "trials" / "a" / "costs.json").write_text('{"predict_ms": 3.0, "device": "a GPU"}')
    (recorded.home / "trials" / "c" / "costs.json").write_text("[")
    training = recorded.home / "trainings" / "t"
    training.mkdir(parents=True)
    (training / "training.json").write_text('{"key": "t", "seconds": 90.0}')
    (training / "weights.safetensors").write_bytes(b"")
    found = read_evidence(sweep, recorded.home)
    assert [record.costs.values for record in found.records] == [{"predict_ms": 3.0}, {"train_min": 1.5}, {}]
    assert [record.costs.device for record in found.records] == ["a GPU", "", ""]
    costs = found.results(["predict_ms"])
    assert costs[["key", "view_kind", "value"]].to_numpy().tolist() == [["a", "cost", 3.0]]
    assert set(found.results()["view_kind"]) <= {"conditioned", "novel"}


def test_notes_name_the_sweep_file(recorded) -> None:
    recorded.plan([entry("a", "a")])
    finish(recorded.home, "a")
    origin = SimpleNamespace(file="my sweeps/a.yaml", settings=("seeds=[0, 1]",))
    sweep = SimpleNamespace(name="study", tracking=SimpleNamespace(uri=None), origin=origin)
    call = f"splatsweep sync 'my sweeps/a.yaml' --set 'seeds=[0, 1]' --home {recorded.home}"
    assert load_trials(sweep, recorded.home)["note"].tolist() == [f"finished, but not in MLflow: `{call}`"]
