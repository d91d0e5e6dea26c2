"""Everyone who may write the home may write the files in it."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobs.tracking import Tracker
from model.weights.readers import Published
from model.weights.sources import Delivery
from model.weights.store import WeightStore
from model.weights.table import find_weight
from results.records.atomic import write_atomically
from results.records.home import database_file
from results.records.permissions import inherit_permissions, whose, widen_umask


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("folder_mode", "umask_before", "file_mode"),
    [
        (0o2775, 0o022, 0o664),
        (0o775, 0o077, 0o660),
        (0o755, 0o022, 0o644),
        (0o700, 0o077, 0o600),
        (0o777, 0o022, 0o666),
        (0o1777, 0o022, 0o644),
    ],
)
@pytest.mark.usefixtures("umask")
def test_files_have_the_permissions_of_folder_and_umask(
    tmp_path: Path, folder_mode: int, umask_before: int, file_mode: int
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(folder_mode)
    os.umask(umask_before)
    widen_umask(home)
    write_atomically(home / "plan.json", b"{}")
    (home / "sub").mkdir()
    assert mode(home / "plan.json") == file_mode
    assert mode(home / "sub") & 0o777 == file_mode | (file_mode & 0o444) >> 2


@pytest.mark.usefixtures("umask")
def test_a_home_that_is_yet_to_be_made_follows_the_folder_that_it_is_made_in(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    widen_umask(tmp_path / "new" / "home")
    write_atomically(tmp_path / "file", b"")
    assert mode(tmp_path / "file") == 0o664


@pytest.mark.usefixtures("umask")
def test_the_database_of_a_shared_home_can_be_written_by_the_group(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    os.umask(0o002)
    Tracker(tmp_path, None, "experiment")
    assert mode(database_file(tmp_path)) == 0o664
    database_file(tmp_path).chmod(0o644)  # as a version before left it
    Tracker(tmp_path, None, "experiment")
    assert mode(database_file(tmp_path)) == 0o664
    with closing(sqlite3.connect(database_file(tmp_path))) as connection:
        assert connection.execute("SELECT count(*) FROM experiments WHERE name = 'experiment'").fetchone() == (1,)


@pytest.mark.usefixtures("umask")
def test_weights_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    import torch

    os.umask(0o002)
    store = WeightStore(tmp_path)
    content = Published({"a": torch.zeros(3)}, {}, {})
    store._write(find_weight("alexnet"), Delivery(content, "a test", genuine=False))
    assert {mode(path) for path in tmp_path.iterdir()} == {0o664}


def test_files_that_are_not_for_all_stay_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    inherit_permissions(path)
    assert mode(path) == 0o600


def test_the_owner_of_what_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mlflow.db"
    path.touch()
    assert whose(path) is None
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    said = whose(path)
    assert said is not None
    for words in (str(path), "belongs to", "-rw", "g+rwX"):
        assert words in said


def test_a_folder_that_may_not_be_searched_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, look = tmp_path / "result.json", os.stat

    def refuse(path: Path, **options: bool) -> os.stat_result:
        if Path(path) == hidden:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert f"{tmp_path} belongs to" in str(whose(hidden))
