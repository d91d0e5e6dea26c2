"""Requests to stop: the files that ask for it, and how often they are looked for."""

from __future__ import annotations

import errno
import os

import pytest

from jobs.stop import stop_signal


def test_each_of_the_files_is_a_request_and_none_is_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.stop._INTERVAL_S", 0.0)
    first, second = tmp_path / "first", tmp_path / "second"
    assert not stop_signal(None)()
    should_stop = stop_signal(str(first), None, second)
    assert not should_stop()
    second.touch()
    assert should_stop()


@pytest.mark.parametrize(("moments", "looks"), [([100.0, 100.5, 100.9], 1), ([100.0, 101.5, 103.0], 3)])
def test_files_are_looked_for_once_a_second(moments, looks, tmp_path, monkeypatch):
    looked, now = [], [0.0]
    monkeypatch.setattr("jobs.stop.time.monotonic", lambda: now[0])
    monkeypatch.setattr(os.path, "exists", lambda path: looked.append(path) or False)
    should_stop = stop_signal(tmp_path / "stop")
    for moment in moments:
        now[0] = moment
        should_stop()
    assert len(looked) == looks


def test_storage_that_fails_for_a_moment_stops_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ESTALE, "Stale file handle")

    should_stop = stop_signal(tmp_path / "stop")
    with monkeypatch.context() as failing:
        failing.setattr(os, "stat", fail)
        assert not should_stop()
