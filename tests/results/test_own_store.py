"""The own store of a home that was moved: addresses of its artifacts follow it, and no others change."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from results.own_store import adopt_store, has_store

FORMER = "file:///former/artifacts"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with artifacts of the runs `here` and `custom`, and a store with the tables that are read."""
    home = tmp_path / "a home"
    for run in ("here", "custom"):
        (home / "artifacts" / run).mkdir(parents=True)
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        connection.executescript(
            """
            CREATE TABLE experiments (experiment_id, artifact_location);
            CREATE TABLE experiment_tags (experiment_id, key, value);
            CREATE TABLE runs (run_uuid, experiment_id, artifact_uri);
            CREATE TABLE tags (run_uuid, key, value);
            """
        )
    return home


def fill(home: Path, experiments: dict[str, str], runs: dict[str, tuple[str, str]]) -> None:
    """experiments: name -> address; runs: name -> experiment and address; those of ours have our tags."""
    with closing(sqlite3.connect(home / "mlflow.db")) as connection, connection:
        connection.executemany("INSERT INTO experiments VALUES (?, ?)", experiments.items())
        connection.executemany("INSERT INTO runs VALUES (?, ?, ?)", [(run, *rest) for run, rest in runs.items()])
        for ours in ("tagged", "on a server", "elsewhere"):
            connection.execute("INSERT INTO experiment_tags VALUES (?, 'splatsweep.experiment', 'a')", (ours,))
        connection.execute("INSERT INTO experiment_tags VALUES ('anothers', 'mlflow.experimentKind', 'a')")
        connection.execute("INSERT INTO tags VALUES ('here', 'splatsweep.key', '0123')")
        connection.execute("INSERT INTO tags VALUES ('anothers', 'mlflow.user', 'me')")


def addresses(database: Path) -> dict[str, str]:
    with closing(sqlite3.connect(database)) as connection:
        found = [*connection.execute("SELECT * FROM experiments")]
        return dict([*found, *connection.execute("SELECT run_uuid, artifact_uri FROM runs")])


def test_addresses_of_a_former_place_are_those_of_the_home(home: Path) -> None:
    here = (home / "artifacts").as_uri()
    assert "%20" in here
    fill(
        home,
        {
            "tagged": FORMER,
            "of a trial": FORMER,
            "anothers": FORMER,
            "on a server": "mlflow-artifacts:/1",
            "elsewhere": "file:///mnt/large",
        },
        {
            "here": ("of a trial", f"{FORMER}/here/artifacts"),
            "custom": ("tagged", "file:///mnt/large/custom"),
            "not here": ("tagged", f"{FORMER}/not here/artifacts"),
            "anothers": ("anothers", f"{FORMER}/anothers/artifacts"),
        },
    )
    before = addresses(home / "mlflow.db")
    adopt_store(home)
    changed = {"tagged": here, "of a trial": here, "here": f"{here}/here/artifacts"}
    assert addresses(home / "mlflow.db") == before | changed


@pytest.mark.parametrize("what", ["experiment", "run"])
def test_a_copy_of_the_store_is_adopted_in_the_place_of_the_store(home: Path, tmp_path: Path, what: str) -> None:
    here = (home / "artifacts").as_uri()
    known = {"tagged": here if what == "run" else FORMER}
    fill(home, known, {"here": ("tagged", f"{here if what == 'experiment' else FORMER}/here/artifacts")})
    before = addresses(home / "mlflow.db")
    (tmp_path / "copy.db").write_bytes((home / "mlflow.db").read_bytes())
    adopt_store(home, tmp_path / "copy.db")
    assert addresses(tmp_path / "copy.db") == {"tagged": here, "here": f"{here}/here/artifacts"}
    assert addresses(home / "mlflow.db") == before


def test_a_store_in_its_place_is_not_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may lie on storage that is mounted read-only."""
    here = (home / "artifacts").as_uri()
    fill(home, {"tagged": here, "anothers": FORMER}, {"here": ("tagged", f"{here}/here/artifacts")})
    monkeypatch.setattr("results.own_store.sqlite3.connect", lambda *_, **__: pytest.fail("opened to write"))
    monkeypatch.setattr("results.own_store.reading", lambda path, _: closing(Reader(f"file:{path}?mode=ro", uri=True)))
    adopt_store(home)


class Reader(sqlite3.Connection):
    """A connection that the replacement of `connect` does not concern."""


def test_a_home_without_a_store_stays_without(tmp_path: Path) -> None:
    adopt_store(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not has_store(tmp_path)
    (tmp_path / "mlflow.db").touch()
    adopt_store(tmp_path)
    assert not has_store(tmp_path), "an empty file is none"
    (tmp_path / "mlflow.db").write_bytes(b"x")
    assert has_store(tmp_path)
