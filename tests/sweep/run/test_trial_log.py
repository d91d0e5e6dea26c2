"""Journals and logs as lines, once and while they grow."""

from __future__ import annotations

from pathlib import Path

import pytest

from results.records.journal import Journal
from results.records.trial_folder import JOURNAL_FILENAME, LOG_FILENAME
from sweep.run.trial_log import TrialLog


def test_both_files_are_read_and_then_what_is_new(tmp_path: Path) -> None:
    log = TrialLog(tmp_path)
    assert log.read() == []
    with Journal(tmp_path) as journal:
        journal.start(3)
        journal.metrics(50, {"train/loss": 0.05123, "val/psnr": 21.5})
        first = log.read()
        assert "starts at iteration 3" in first[0]
        assert first[1].endswith("iteration 50: train/loss 0.05123, val/psnr 21.5")
        journal.failed("NonFiniteError: [/lpips] is nan")
    (tmp_path / LOG_FILENAME).write_text("9999-01-01 00:00:00,000 ERROR jobs: Traceback\n  deeper\nnot a whole li")
    assert [line.partition(" ")[2][9:] or line for line in log.read()[:1]] == [
        "failed: NonFiniteError: [/lpips] is nan"
    ]
    with (tmp_path / LOG_FILENAME).open("a") as stream:
        stream.write("ne\n")
    assert log.read() == ["not a whole line"]


def test_lines_are_in_the_order_of_their_times_and_damaged_ones_are_shown(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILENAME).write_text('{"event": "stopped", "time": 4000000000.0}\n{damaged\n')
    (tmp_path / LOG_FILENAME).write_text("2001-01-01 00:00:00,000 WARNING jobs: early\n  and its second line\n")
    lines = TrialLog(tmp_path).read()
    assert lines[:3] == ["{damaged", "2001-01-01 00:00:00,000 WARNING jobs: early", "  and its second line"]
    assert lines[3].endswith("stopped")


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "metrics", "time": 1.0, "step": 3, "values": null}',
        '{"event": "metrics", "time": 1e300, "step": 3, "values": {}}',
        '{"event": "metrics", "time": "x", "step": 3, "values": {}}',
        "[" * 100_000,
        "null",
    ],
)
def test_a_damaged_line_is_shown_unchanged(tmp_path: Path, line: str) -> None:
    (tmp_path / JOURNAL_FILENAME).write_text(f"{line}\n")
    assert TrialLog(tmp_path).read() == [line]
