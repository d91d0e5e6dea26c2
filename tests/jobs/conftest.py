from __future__ import annotations

import pytest

from tests.jobs.iterations import counted_iterations


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The trained iterations, in order."""
    return counted_iterations(monkeypatch)
