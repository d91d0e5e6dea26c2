"""`splatsweep archive` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from results.records.frozen_plans import freeze
from results.records.plan import Plan
from sweep.cli import app


@pytest.mark.parametrize(("tracking", "is_elsewhere"), [("", False), ("tracking: {uri: 'http://127.0.0.1:9'}\n", True)])
def test_the_archive_of_a_sweep_with_another_store_can_be_read_without_it(
    tmp_path: Path, tracking: str, is_elsewhere: bool
) -> None:
    file, home, out = tmp_path / "sweep.yaml", tmp_path / "home", tmp_path / "out"
    file.write_text(f"name: s\n{tracking}")
    freeze(Plan("s", "2026-03-01T12:00:00+00:00", (), ()), home)
    said = CliRunner().invoke(app, ["archive", str(file), "--home", str(home), "--out", str(out)]).output
    assert ("--set tracking.uri=null" in said) == is_elsewhere
    arguments = ["report", str(file), "--home", str(out)]
    assert CliRunner().invoke(app, [*arguments, "--set", "tracking.uri=null"]).exit_code == 0
