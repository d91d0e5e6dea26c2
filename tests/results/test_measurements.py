"""Per-object scores as columns, and their copies in the home."""

from __future__ import annotations

import math
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save

from results.measurements import COLUMNS, TEXT_COLUMNS, Measurements, Texts, read_measurements

ROWS = [
    ("chair 7", "chair", "test", "novel", "psnr", 20.5),
    ("chair 7", "chair", "test", "conditioned", "psnr", math.inf),
    ("Stühle", "", "val", "novel", "ssim", math.nan),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pd.DataFrame(ROWS, columns=list(COLUMNS)).to_parquet(tmp_path / "scores.parquet")
    return tmp_path / "scores.parquet"


def rows(found: Measurements) -> list[tuple[object, ...]]:
    columns = [getattr(found, name) for name in TEXT_COLUMNS]
    return list(zip(*([c.names[code] for code in c.codes] for c in columns), found.value.tolist(), strict=True))


def test_the_copy_equals_the_file_without_pyarrow(path: Path, tmp_path: Path, monkeypatch) -> None:
    first = read_measurements(path, tmp_path / "cache")
    assert repr(rows(first)) == repr(ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert repr(rows(read_measurements(path, tmp_path / "cache"))) == repr(ROWS)


@pytest.mark.parametrize("damage", ["empty", "other", "cut", "a bit", "older columns"])
def test_a_damaged_copy_is_made_again(path: Path, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    read_measurements(path, cache)
    (copy,) = cache.iterdir()
    sound = copy.read_bytes()
    fewer = save({"value": np.zeros(3)})
    contents = {
        "empty": b"",
        "other": b"PK nonsense",
        "cut": sound[:-1],
        "a bit": sound[:-3] + bytes([sound[-3] ^ 1]) + sound[-2:],
        "older columns": sha256(fewer).digest() + fewer,
    }
    copy.write_bytes(contents[damage])
    assert repr(rows(read_measurements(path, cache))) == repr(ROWS)
    assert copy.read_bytes() == sound


def test_another_file_has_another_copy(path: Path, tmp_path: Path) -> None:
    read_measurements(path, tmp_path / "cache")
    pd.DataFrame(ROWS[:1], columns=list(COLUMNS)).to_parquet(path)
    assert rows(read_measurements(path, tmp_path / "cache")) == ROWS[:1]


def test_a_cache_that_cannot_be_written_is_done_without(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert repr(rows(read_measurements(path, tmp_path / "file"))) == repr(ROWS)


def test_an_empty_text_is_refused_and_the_file_named(path: Path, tmp_path: Path) -> None:
    pd.DataFrame([(None, *ROWS[0][1:])], columns=list(COLUMNS)).to_parquet(path)
    with pytest.raises(ValueError, match=r"scores\.parquet cannot be used: column object has empty entries"):
        read_measurements(path, tmp_path / "cache")


def test_trials_of_earlier_versions_have_no_categories(path: Path, tmp_path: Path) -> None:
    pd.DataFrame(ROWS, columns=list(COLUMNS)).drop(columns="category").to_parquet(path)
    assert repr(rows(read_measurements(path, tmp_path / "cache"))) == repr([(row[0], "", *row[2:]) for row in ROWS])


def test_columns_of_text_are_joined_by_their_names() -> None:
    first, second = Texts.repeated(["a", "b"], [1, 2]), Texts.repeated(["b", "c"], [1, 1])
    joined = Texts.joined([first, second])
    assert [joined.names[code] for code in joined.codes] == ["a", "b", "b", "b", "c"]
    assert joined.among(["b", "z"]).tolist() == [False, True, True, True, False]
    assert first.used() == {"a", "b"}
    assert first.where(np.array([False, True, True])).used() == {"b"}
    again = Texts.repeated(["a", "b", "a"], [1, 1, 2])
    assert (again.names, again.codes.tolist()) == (("a", "b"), [0, 1, 0, 0])
    assert Texts.joined([]).names == ()
