"""Files that are written as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from results.records.atomic import write_atomically
from results.records.disk import DiskFullError


def test_a_full_disk_leaves_the_old_content_alone(small_disk: Path) -> None:
    path = small_disk / "plan.json"
    write_atomically(path, b"old")
    with pytest.raises(DiskFullError, match="no space left to write"):
        write_atomically(path, bytes(2_000_000))
    assert path.read_bytes() == b"old"
    assert list(small_disk.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "plan.json", []
    monkeypatch.setattr(os, "fsync", lambda stream: synced.append((os.fstat(stream).st_size, path.exists())))
    write_atomically(path, b"content")
    assert synced == [(7, False)]
    assert path.read_bytes() == b"content"
