"""The door to MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from results.errors import ResultsError
from results.store import ResultStore


@pytest.mark.parametrize(
    ("uri", "label"),
    [
        ("postgresql://me:secret@db/mlflow", "postgresql://db/mlflow"),
        ("http://h:5000", "http://h:5000"),
        ("sqlite:////home/a/mlflow.db", "sqlite:////home/a/mlflow.db"),
    ],
)
def test_the_stores_label_has_no_credentials(uri: str, label: str) -> None:
    assert ResultStore(uri).label == label


def test_the_homes_own_store_is_the_default(tmp_path: Path) -> None:
    assert ResultStore.of(tmp_path, None).uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert ResultStore.of(tmp_path, "http://h:5000").uri == "http://h:5000"


def test_an_artifact_is_the_file_itself_or_an_error(study) -> None:
    store = ResultStore.of(study.home, None)
    run = store.runs()["a0"]
    with store.artifact(run, "per_object.parquet") as path:
        assert path.is_relative_to(study.home)
        assert path.is_file()
    with pytest.raises(FileNotFoundError, match=r"no artifact nothing\.txt"), store.artifact(run, "nothing.txt"):
        pass


def test_a_server_that_is_down_is_an_error_that_names_it() -> None:
    with pytest.raises(ResultsError, match=r"http://127\.0\.0\.1:9 cannot be read"):
        ResultStore("http://127.0.0.1:9").runs()
