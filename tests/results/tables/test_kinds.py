"""The registry of tables, and the options that all of them accept."""

from __future__ import annotations

from pathlib import Path

import pytest

from results.errors import ResultsError
from results.load import read_evidence
from results.table import Table
from results.tables import KINDS, TABLES, build_tables


@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_built_from_a_real_store(name: str, study, sweep) -> None:
    tables = build_tables([name], read_evidence(sweep, study.home))
    assert tables
    for table in tables:
        assert isinstance(table, Table)
        assert table.caption
        assert all(len(row.cells) == len(table.columns) for row in table.rows)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("state", ["failed", "pending", None])
def test_every_table_can_be_built_of_a_sweep_without_results(name: str, state: str | None, make) -> None:
    records = [make.record("baseline", seed, state=state) for seed in range(2)] if state else []
    for table in build_tables([name], make.evidence(*records)):
        assert all(row.is_empty for row in table.rows)
        assert table.rows or table.notes or name == "auto"


def test_all_tables_fit_into_one_report(study, sweep) -> None:
    tables = build_tables(list(TABLES), read_evidence(sweep, study.home))
    assert len({table.name for table in tables}) == len(tables)


def test_every_kind_may_stand_in_a_file_and_refuses_what_it_does_not_know(make, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for kind in KINDS:
        path.write_text(f"tables: [{{kind: {kind}, name: ../mine, caption: Mine, nonsense: 1}}]")
        with pytest.raises(ResultsError, match=r"tables\.0\.nonsense: .*\(received 1\)") as error:
            build_tables([str(path)], make.evidence())
        assert "name: must be letters, digits, '-' and '_' (received '../mine')" in str(error.value)


def test_tables_are_the_same_every_time(study, sweep) -> None:
    first, second = (build_tables(["auto", "paper"], read_evidence(sweep, study.home)) for _ in range(2))
    assert first == second
