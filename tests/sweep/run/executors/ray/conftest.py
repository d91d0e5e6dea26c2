from __future__ import annotations

from pathlib import Path

import pytest

from sweep.run.executors.ray import trial_sync
from sweep.run.executors.ray.file_server import TrialFileServer
from sweep.run.executors.ray.scratch import scratch_home


@pytest.fixture
def there(tmp_path) -> Path:
    """The driver's home."""
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPLATSWEEP_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(trial_sync, "_PIECE", 100)  # so that files have several pieces
    monkeypatch.setattr(trial_sync, "INTERVAL_S", 3600)  # so that only the test triggers transfers
    return scratch_home()


@pytest.fixture
def file_server(there) -> TrialFileServer:
    return TrialFileServer(str(there), str(there / "stop"))
