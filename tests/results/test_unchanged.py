"""A report that is still true is left as it is; any other is drawn again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from results import report_files
from results.records.hashing import file_sha256
from results.records.journal import Journal
from results.report import build_report
from results.report_files import ReportFiles
from results.runs import Run
from results.store import ResultStore
from tests.results.conftest import FakeSweep, RecordedHome, entry, pictures, record_study, scores


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An entry for each report that is drawn; figures are left out, which take seconds."""
    made: list[str] = []
    whole = ReportFiles.of

    def noted(*arguments: Any) -> ReportFiles:
        made.append("drawn")
        return whole(*arguments)

    monkeypatch.setattr(report_files, "illustrate", lambda *_: [])
    monkeypatch.setattr(ReportFiles, "of", noted)
    return made


@pytest.fixture
def own(recorded: RecordedHome) -> RecordedHome:
    """A home with two finished trials."""
    recorded.plan([entry("a0", "baseline"), entry("a1", "other")])
    for key, name, psnr in (("a0", "baseline", 20.0), ("a1", "other", 21.0)):
        recorded.record(key, name, per_object=scores(psnr, 0.8, 0.2), samples=pictures(1))
    return recorded


def test_equal_results_are_drawn_once(own: RecordedHome, sweep: FakeSweep, drawings: list[str]) -> None:
    seen: list[str] = []
    first = build_report(sweep, own.home)
    before = {path.name: (path.read_bytes(), path.stat().st_ino) for path in first.parent.iterdir()}
    again = build_report(sweep, own.home, on_tables=lambda tables: seen.extend(table.name for table in tables))
    assert {path.name: (path.read_bytes(), path.stat().st_ino) for path in again.parent.iterdir()} == before
    assert (drawings, seen) == (["drawn"], ["auto"])


def test_the_order_of_the_stores_answers_is_no_change(
    own: RecordedHome, sweep: FakeSweep, drawings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_report(sweep, own.home)
    read = ResultStore.runs

    def backwards(*arguments: Any) -> dict[str, Run]:
        found = reversed(read(*arguments).items())
        return {key: replace(run, tags=dict(reversed(run.tags.items()))) for key, run in found}

    monkeypatch.setattr(ResultStore, "runs", backwards)
    build_report(sweep, own.home)
    assert drawings == ["drawn"]


def test_what_changes_the_page_draws_it_again(
    own: RecordedHome, sweep: FakeSweep, drawings: list[str], tmp_path: Path
) -> None:
    table = tmp_path / "mine.yaml"
    table.write_text("tables: [{kind: auto, name: mine}]\n")
    build_report(sweep, own.home, tables=[str(table)])
    build_report(sweep, own.home, tables=[str(table)])
    assert len(drawings) == 1
    table.write_text("tables: [{kind: auto, name: mine, caption: Another.}]\n")
    assert "Another." in build_report(sweep, own.home, tables=[str(table)]).read_text()
    assert "a note" in build_report(sweep, own.home, tables=[str(table)], notes="a note").read_text()
    assert "gpu" in build_report(sweep, own.home, tables=[str(table)], labels={"machine": "gpu"}).read_text()
    own.plan([entry("a0", "baseline"), entry("a1", "other"), entry("a2", "third")])
    own.record("a2", "third", per_object=scores(25.0, 0.8, 0.2))
    assert "25.00" in build_report(sweep, own.home, tables=[str(table)], labels={"machine": "gpu"}).read_text()
    assert len(drawings) == 5


def test_a_file_of_the_working_directory_is_no_table(
    own: RecordedHome, sweep: FakeSweep, drawings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_report(sweep, own.home)
    (tmp_path / "auto").write_bytes(b"\xff")
    monkeypatch.chdir(tmp_path)
    build_report(sweep, own.home)
    assert drawings == ["drawn"]


def test_a_page_that_was_edited_or_lost_a_file_is_drawn_again(
    own: RecordedHome, sweep: FakeSweep, drawings: list[str]
) -> None:
    page = build_report(sweep, own.home)
    page.write_text("edited")
    assert "baseline" in build_report(sweep, own.home).read_text()
    (page.parent / "auto.tex").unlink()
    build_report(sweep, own.home)
    assert (page.parent / "auto.tex").exists()
    (page.parent / "report.json").write_text("{}")
    build_report(sweep, own.home)
    assert len(drawings) == 4


def test_while_a_trial_runs_or_its_scores_are_damaged_it_is_drawn_each_time(
    own: RecordedHome, sweep: FakeSweep, drawings: list[str]
) -> None:
    build_report(sweep, own.home)
    artifact = next(own.home.glob("artifacts/*/artifacts/per_object.parquet"))
    sound = artifact.read_bytes()
    artifact.write_bytes(b"damaged")
    assert "not what was recorded" in build_report(sweep, own.home).read_text()
    artifact.write_bytes(sound)
    assert "not what was recorded" not in build_report(sweep, own.home).read_text()
    assert len(drawings) == 3
    own.plan([entry("a0", "baseline"), entry("a1", "other"), entry("r", "running")])
    own.record("r", "running", status="running")
    build_report(sweep, own.home)
    build_report(sweep, own.home)
    assert len(drawings) == 5


def test_a_trial_that_a_killed_driver_left_running_keeps_no_report_from_being_current(
    own: RecordedHome, sweep: FakeSweep, drawings: list[str]
) -> None:
    own.plan([entry("a0", "baseline"), entry("r", "other")])
    own.record("r", "other", status="running")
    with Journal(own.home / "trials" / "r") as journal:
        journal.start(0)
        journal.stopped()
    for _ in range(2):
        assert "interrupted" in build_report(sweep, own.home).read_text()
    assert len(drawings) == 1
    with Journal(own.home / "trials" / "r") as journal:
        journal.failed("out of memory")
    assert "out of memory" in build_report(sweep, own.home).read_text()


def test_pictures_that_are_back_are_shown(own: RecordedHome, sweep: FakeSweep, drawings: list[str]) -> None:
    lost = [path.rename(path.with_suffix(".away")) for path in own.home.glob("artifacts/*/artifacts/samples.npz")]
    page = build_report(sweep, own.home)
    assert not (page.parent / "samples.png").exists()
    for path in lost:
        path.rename(path.with_suffix(".npz"))
    assert (build_report(sweep, own.home).parent / "samples.png").exists()
    assert len(drawings) == 2


def test_a_whole_study_with_its_figures_is_recognised(
    recorded: RecordedHome, sweep: FakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_study(recorded)
    build_report(sweep, recorded.home)
    monkeypatch.setattr(ReportFiles, "of", lambda *_: pytest.fail("drawn again"))
    build_report(sweep, recorded.home)


@pytest.mark.parametrize("known", [True, False])
def test_hashes_in_one_tag_count_and_without_any_a_report_is_drawn_each_time(
    own: RecordedHome, sweep: FakeSweep, drawings: list[str], known: bool
) -> None:
    run = own.record("a1", "other", status="failed", tags={"splatsweep.key": "a2"})
    own.plan([entry("a0", "baseline"), entry("a2", "another")])
    client = MlflowClient(f"sqlite:///{own.home / 'mlflow.db'}")
    client.set_tag(run, "splatsweep.status", "finished")
    path = next(own.home.glob("artifacts/*/artifacts/per_object.parquet"))
    client.log_artifact(run, str(path))
    if known:
        client.set_tag(run, "splatsweep.sha256", json.dumps({path.name: file_sha256(path)}))
    for _ in range(2):
        build_report(sweep, own.home)
    assert len(drawings) == (1 if known else 2)
