"""The file that the plan in a sweep's folder belongs to, and its changes since."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from results.records.home import SWEEP_FILE_FILENAME
from sweep.file.schema import Origin, Sweep
from sweep.run import frozen_file
from sweep.run.frozen_file import FILE_VARIABLE, NameTakenError, check_name, difference
from sweep.run.submit import JOB_VARIABLE


def sweep_of(path: Path, **sections: Any) -> Sweep:
    path.write_text("name: ablation\n")
    return Sweep.model_validate({"name": "ablation", **sections}).read_from(Origin(path))


def claim(sweep: Sweep, folder: Path, take_over: bool = False) -> str | None:
    """Checks and claims the name, as a driver does before and after it plans."""
    message = check_name(sweep, folder, take_over)
    frozen_file.claim(sweep, folder)
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "sweeps" / "ablation"


LR = {"trials": {"lr": {"train.stages.0.lr": 2e-4}}}
BATCH = {"trials": {"batch": {"train.batch_size": 1}}}


def test_a_name_that_another_file_has_is_refused(tmp_path: Path, folder: Path) -> None:
    first, second = sweep_of(tmp_path / "first.yaml", **LR), sweep_of(tmp_path / "second.yaml", **BATCH)
    assert claim(first, folder) is None
    with pytest.raises(NameTakenError, match=r"belongs to .*first\.yaml .*--take-over"):
        claim(second, folder)
    assert difference(first, folder, "renew") is None


def test_a_name_can_be_taken_over(tmp_path: Path, folder: Path) -> None:
    first, second = sweep_of(tmp_path / "first.yaml", **LR), sweep_of(tmp_path / "second.yaml", **BATCH)
    claim(first, folder)
    assert "first.yaml" in str(claim(second, folder, take_over=True))
    shown = difference(first, folder, "splatsweep run first.yaml")
    assert shown is not None
    again = "splatsweep run first.yaml --take-over"
    for words in ("second.yaml", "same name", "'lr' is new", "'batch' is gone", again):
        assert words in shown
    assert "\n" not in shown


def test_a_list_that_has_changed_is_shown_as_a_whole(tmp_path: Path, folder: Path) -> None:
    file, metrics = tmp_path / "first.yaml", ["psnr", "ssim", "lpips", "iou", "abs_rel"]
    claim(sweep_of(file, **LR), folder)
    edited = sweep_of(file, **LR, base={"eval.metrics": metrics})
    assert f"base.eval.metrics is {json.dumps(metrics)}, was absent" in str(difference(edited, folder, "renew"))


def test_a_name_that_a_file_in_a_private_folder_has_is_refused(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, look = tmp_path / "theirs.yaml", os.stat
    claim(sweep_of(theirs, **LR), folder)

    def refuse(path: Path, **options: bool) -> os.stat_result:
        if Path(path) == theirs:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    mine = sweep_of(tmp_path / "mine.yaml", **BATCH)
    with pytest.raises(NameTakenError, match=r"belongs to .*theirs\.yaml"):
        claim(mine, folder)
    assert "same name" in str(difference(mine, folder, "renew"))


def test_a_file_may_be_edited_moved_and_copied(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "first.yaml"
    claim(sweep_of(path, **LR), folder)
    assert claim(sweep_of(path, **BATCH), folder) is None, "edited"
    assert claim(sweep_of(tmp_path / "copy.yaml", **BATCH), folder) is None, "a copy without a change"
    with pytest.raises(NameTakenError):
        claim(sweep_of(tmp_path / "copy.yaml", **LR), folder)
    path.rename(tmp_path / "renamed.yaml")
    assert "first.yaml" in str(claim(sweep_of(tmp_path / "renamed.yaml", **LR), folder)), "moved, then edited"


def test_one_path_on_several_nodes_is_one_file(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(sweep_of(tmp_path / "first.yaml", **LR), folder)
    monkeypatch.setattr(frozen_file.socket, "gethostname", lambda: "node17")  # the next job's, or another container
    edited = sweep_of(tmp_path / "first.yaml", **BATCH)
    assert "is older than the file" in str(difference(edited, folder, "renew"))
    assert claim(edited, folder) is None
    assert difference(edited, folder, "renew") is None


@pytest.mark.parametrize("way", ["sub/..", "link"])
def test_a_file_is_the_same_by_whatever_way_it_is_named(tmp_path: Path, folder: Path, way: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    claim(sweep_of(tmp_path / "first.yaml", **LR), folder)
    edited = sweep_of(tmp_path / way / "first.yaml", **BATCH)
    assert "is older than the file" in str(difference(edited, folder, "renew"))
    assert claim(edited, folder) is None


def test_what_is_new_and_gone_is_named_in_the_order_of_the_file(tmp_path: Path, folder: Path) -> None:
    names = ["b", "d", "a", "c"]
    claim(sweep_of(tmp_path / "a.yaml", trials={name: {} for name in names}), folder)
    shown = str(difference(sweep_of(tmp_path / "a.yaml", trials={}), folder, "renew"))
    assert "; ".join(f"trial {name!r} is gone" for name in names) in shown


def test_a_job_has_the_name_of_the_file_that_it_was_submitted_from(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sweep_of(tmp_path / "first.yaml", **LR)
    claim(first, folder)
    copy = sweep_of(tmp_path / "sent.yaml", **BATCH)
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    assert claim(copy, folder) is None, "sent by Ray's own command: nobody can tell"
    monkeypatch.delenv(JOB_VARIABLE)
    claim(first, folder, take_over=True)
    monkeypatch.setenv(FILE_VARIABLE, "elsewhere:/data/second.yaml")
    with pytest.raises(NameTakenError, match=r"belongs to /.*first\.yaml .* running elsewhere:/data/second\.yaml"):
        claim(copy, folder)


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({"base": {"train": {"batch_size": 2}}}, {"base": {"train": {"batch_size": 4}}}, "batch_size is 4, was 2"),
        ({"base": {"train.batch_size": 2}}, {}, "base.train.batch_size is absent, was 2"),
        ({"seeds": [0]}, {"seeds": [0, 1]}, "seeds has changed"),
        ({"trials": {"tv": {}}}, {"trials": {"tv": {"train.batch_size": 1}}}, "trial 'tv' has changed"),
        ({}, {"grid": [{"axes": {"train.batch_size": [1, 2]}}]}, "grid has changed"),
        ({"baseline": "a"}, {"baseline": {"data.name": "für"}}, """baseline is {"data.name": "für"}, was 'a'"""),
        ({"primary": "novel_psnr"}, {}, "primary is null, was 'novel_psnr'"),
    ],
)
def test_what_differs_is_named(
    tmp_path: Path, folder: Path, before: dict[str, Any], now: dict[str, Any], words: str
) -> None:
    path = tmp_path / "a.yaml"
    claim(sweep_of(path, **before), folder)
    assert words in str(difference(sweep_of(path, **now), folder, "renew"))


@pytest.mark.parametrize(
    "again", [{"lr": {"train": {"stages": {"0": {"lr": 2e-4}}}}}, {"lr": {"train.stages": {"0.lr": 2e-4}}}]
)
def test_a_trial_that_is_written_otherwise_is_the_same(tmp_path: Path, folder: Path, again: dict[str, Any]) -> None:
    """A file that extends another has the dotted form, whatever was written."""
    claim(sweep_of(tmp_path / "first.yaml", **LR), folder)
    assert difference(sweep_of(tmp_path / "first.yaml", trials=again), folder, "renew") is None


def test_what_decides_neither_trials_nor_comparisons_may_change(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "a.yaml"
    claim(sweep_of(path, **LR), folder)
    changed = sweep_of(path, **LR, tables=["leave_one_out"], run={"cpus_per_trial": 2}, tracking={"experiment": "x"})
    assert difference(changed, folder, "renew") is None


def test_a_record_of_a_version_that_did_not_keep_the_baseline_differs_by_nothing(tmp_path: Path, folder: Path) -> None:
    claim(sweep_of(tmp_path / "a.yaml", **LR), folder)
    record = json.loads((folder / SWEEP_FILE_FILENAME).read_text())
    del record["content"]["baseline"], record["content"]["primary"]
    (folder / SWEEP_FILE_FILENAME).write_text(json.dumps(record))
    named = sweep_of(tmp_path / "a.yaml", **LR, baseline="lr", primary="novel_psnr")
    assert difference(named, folder, "renew") is None
    copy = sweep_of(tmp_path / "copy.yaml", **LR)
    assert claim(copy, folder) is None


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"file": 1}'])
def test_a_home_of_a_version_before_or_a_damaged_file_is_no_reason_to_refuse(
    tmp_path: Path, folder: Path, content: str | None
) -> None:
    folder.mkdir(parents=True)
    if content is not None:
        (folder / SWEEP_FILE_FILENAME).write_text(content)
    sweep = sweep_of(tmp_path / "a.yaml", **LR)
    assert difference(sweep, folder, "renew") is None
    assert claim(sweep, folder) is None
    assert json.loads((folder / SWEEP_FILE_FILENAME).read_text())["content"]["trials"] == LR["trials"]


def test_the_comparison_needs_no_torch() -> None:
    code = "import sys, sweep.run.frozen_file; assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"file": 5, "planned": "x", "content": {}}',
        '{"file": null, "planned": "x", "content": []}',
        '{"content": {}}',
    ],
)
def test_a_damaged_record_is_named_once_and_taken_for_none(tmp_path: Path, folder: Path, caplog, content: str) -> None:
    folder.mkdir(parents=True)
    (folder / SWEEP_FILE_FILENAME).write_text(content)
    sweep = sweep_of(tmp_path / "first.yaml", **LR)
    assert difference(sweep, folder, "renew") is None
    assert f"{SWEEP_FILE_FILENAME} cannot be used" in caplog.text
    assert "the next run writes it anew" in caplog.text
    assert claim(sweep, folder) is None
    assert difference(sweep, folder, "renew") is None


def test_sections_that_were_edited_by_hand_are_no_mappings(tmp_path: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    content = {"trials": ["a"], "base": 7, "seeds": None}
    (folder / SWEEP_FILE_FILENAME).write_text(json.dumps({"file": None, "planned": "x", "content": content}))
    shown = str(difference(sweep_of(tmp_path / "first.yaml", **LR), folder, "renew"))
    assert "'lr' is new" in shown
