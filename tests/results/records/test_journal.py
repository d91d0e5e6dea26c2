import errno
import json
import math
import os

import pytest

from results.records.disk import DiskFullError
from results.records.journal import FILENAME, Journal, JournalReader, read_events


def test_events_are_read_in_order(tmp_path):
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


def test_a_lack_of_room_that_shows_at_the_end_is_one(tmp_path, monkeypatch):
    """Network storage takes writes that it has no room for, and says so when they are flushed."""

    def refuse(_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    journal = Journal(tmp_path)
    journal.metrics(1, {"a": 1.0})
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskFullError, match=str(tmp_path)):
        journal.close()


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


def test_a_reader_returns_every_event_once(tmp_path):
    reader = JournalReader(tmp_path)
    assert reader.new() == []
    with Journal(tmp_path) as journal:
        journal.start(0)
        journal.metrics(1, {"a": 1.0})
        assert [event["event"] for event in reader.new()] == ["start", "metrics"]
        assert reader.new() == []
        with (tmp_path / FILENAME).open("a") as stream:
            stream.write('{"event": "metrics", "st')
        assert reader.new() == []
    with Journal(tmp_path) as journal:
        journal.metrics(2, {"a": 2.0})
        assert [event["step"] for event in reader.new()] == [2]
    assert reader.generation == 0


@pytest.mark.parametrize(("change", "left"), [("replaced", [1, 2]), ("cut", [1]), ("removed", [])])
def test_a_reader_begins_again_where_the_journal_is_another(tmp_path, change, left):
    reader, path = JournalReader(tmp_path), tmp_path / FILENAME
    with Journal(tmp_path) as journal:
        journal.metrics(1, {"a": 1.0})
        journal.metrics(2, {"a": 1.0})
    assert len(reader.new()) == 2
    assert not reader.has_new()
    content = path.read_bytes()
    if change == "cut":
        path.write_bytes(content.splitlines(keepends=True)[0])
    else:
        path.rename(tmp_path / "old")
    if change == "replaced":
        path.write_bytes(content)
    assert reader.has_new()
    assert [event["step"] for event in reader.new()] == left
    assert reader.generation == 1
    assert not reader.has_new()


def test_what_a_training_has_is_repeated_once_with_its_times(tmp_path):
    with Journal(tmp_path / "training") as training:
        training.start(0)
        for _ in range(2):  # a process that was killed before a checkpoint is repeated by the next
            training.continued("former", 3)
            training.metrics(5, {"train/l2": 0.5})
    with Journal(tmp_path / "trial") as trial:
        for _ in range(2):
            trial.repeat(tmp_path / "training")
    assert read_events(tmp_path / "trial") == read_events(tmp_path / "training")[1:3]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "[]",
        "7",
        '{"event": "metrics"}',
        '{"event": "metrics", "time": 1.0, "step": "two", "values": {}}',
        '{"event": "metrics", "time": 1.0, "step": 2, "values": {"a": "high"}}',
        '{"event": "start", "time": 1.0, "step": 0}',
        '{"event": "failed", "time": 1.0}',
        '{"event": "pruned", "time": 1.0}',
        '{"event": "continued", "time": 1.0, "training": "t1"}',
        "[" * 5000,
    ],
)
def test_a_line_that_is_no_event_is_passed_over_and_named(tmp_path, caplog, line):
    with Journal(tmp_path) as journal:
        journal.metrics(1, {"a": 1.0})
    with (tmp_path / FILENAME).open("a") as stream:
        stream.write(line + "\n")
    with Journal(tmp_path) as journal:
        journal.metrics(3, {"a": math.nan})
    assert [event["step"] for event in read_events(tmp_path)] == [1, 3]
    [warning] = [record.getMessage() for record in caplog.records]
    assert str(tmp_path / FILENAME) in warning
    assert "line 2" in warning
    assert "passed over" in warning
