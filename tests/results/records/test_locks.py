"""Locks that are looked at."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from results.records.locks import is_held


def test_a_lock_is_held_from_its_acquisition_to_its_release(tmp_path: Path) -> None:
    path = tmp_path / "driver.lock"
    with FileLock(path):
        assert is_held(path)
        path.chmod(0o444)  # looking opens nothing for writing
        assert is_held(path)
    assert not is_held(path)


def test_looking_makes_no_file(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "no folder" / "driver.lock")
    assert not is_held(tmp_path / "driver.lock")
    assert list(tmp_path.iterdir()) == []
