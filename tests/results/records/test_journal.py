import hashlib
import json
import os
import subprocess
import sys

import pytest

from results.records.disk import DiskFullError
from results.records.journal import FILENAME, Journal, read_events
from results.records.trial_folder import read_result, trial_status


def test_events_come_back_in_order(tmp_path):
    with Journal(tmp_path) as journal:
        journal.start(0)
        journal.metrics(5, {"train/loss": 0.25})
    start, metrics = read_events(tmp_path)
    assert (start["event"], start["step"], start["pid"]) == ("start", 0, os.getpid())
    assert (metrics["event"], metrics["step"], metrics["values"]) == ("metrics", 5, {"train/loss": 0.25})


def test_a_line_cut_short_by_a_crash_is_ignored_and_then_cut_off(tmp_path):
    with Journal(tmp_path) as journal:
        journal.metrics(1, {"a": 1.0})
    with (tmp_path / FILENAME).open("a") as stream:
        stream.write('{"event": "metrics", "st')
    assert [event["step"] for event in read_events(tmp_path)] == [1]
    with Journal(tmp_path) as journal:
        journal.metrics(2, {"a": 2.0})
    assert [event["step"] for event in read_events(tmp_path)] == [1, 2]
    for line in (tmp_path / FILENAME).read_text().splitlines():
        json.loads(line)


def test_status_follows_what_happens(tmp_path):
    assert trial_status(tmp_path) == "pending"
    with Journal(tmp_path) as journal:
        journal.start(0)
        assert trial_status(tmp_path) == "running"
        journal.failed("ValueError: no")
    assert trial_status(tmp_path) == "failed"
    with Journal(tmp_path) as journal:
        journal.start(3)
        assert trial_status(tmp_path) == "running"
        journal.stopped()
    assert trial_status(tmp_path) == "interrupted"


def test_a_trial_whose_owner_died_is_interrupted(tmp_path):
    code = "import sys, os, signal; from pathlib import Path; from results.records.journal import Journal\n"
    code += "Journal(Path(sys.argv[1])).start(0); os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert trial_status(tmp_path) == "interrupted"


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_result_counts_only_with_the_measurements_it_was_made_from(tmp_path, damage):
    measurements = tmp_path / "per_object.parquet"
    measurements.write_bytes(b"numbers")
    sha256 = hashlib.sha256(b"numbers").hexdigest()
    (tmp_path / "result.json").write_text(json.dumps({"per_object_sha256": sha256}))
    assert read_result(tmp_path) is not None
    assert trial_status(tmp_path) == "finished"
    if damage == "changed":
        measurements.write_bytes(b"other numbers")
    else:
        measurements.unlink()
    assert read_result(tmp_path) is None
    assert trial_status(tmp_path) == "pending"


def fill(journal: Journal) -> None:
    for step in range(100_000):
        journal.metrics(step, {"loss": 1 / 3})


def test_a_full_disk_leaves_whole_lines_and_takes_more_once_there_is_room(small_disk):
    folder, ballast = small_disk / "trial", small_disk / "ballast"
    with Journal(folder) as journal:
        journal.start(0)
        ballast.write_bytes(bytes(small_disk.stat().st_blksize * 200))
        with pytest.raises(DiskFullError, match="no space left to write"):
            fill(journal)
        _, *metrics = read_events(folder)
        assert [event["step"] for event in metrics] == list(range(len(metrics)))
        ballast.unlink()
        journal.metrics(len(metrics), {"loss": 0.0})
    assert len(list(read_events(folder))) == 2 + len(metrics)
    assert (folder / FILENAME).read_bytes().count(b"\n") == 2 + len(metrics)
