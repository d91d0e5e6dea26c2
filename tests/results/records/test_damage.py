from pathlib import Path

import pytest

from results.records.damage import DamagedFileError, member, pass_over, read_object


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b"{", "not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        (b"[1]", "a JSON object is expected, not a list"),
        (b"null", "a JSON object is expected, not null"),
        (b"7", "a JSON object is expected, not a number"),
        (b"\xff\xfe\xfa", "not text in UTF-8"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_file_that_is_no_object_is_named_with_the_reason(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError) as caught:
        read_object(path)
    assert str(caught.value).startswith(f"{path} cannot be used: {problem}")


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match="Is a directory"):
        read_object(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "nothing")


def test_a_member_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert member({"a": 1}, "a", int, path) == 1
    for content, problem in (
        ({}, "it lacks 'a'"),
        ({"a": "1"}, "'a' is a text"),
        ({"a": True}, "'a' is a truth value"),
    ):
        with pytest.raises(DamagedFileError, match=problem):
            member(content, "a", int, path)


def test_skipped_files_are_reported_once(tmp_path: Path, caplog) -> None:
    for _ in range(3):
        pass_over(DamagedFileError(tmp_path / "x", "it is empty"), "nothing follows")
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'x'} cannot be used: it is empty: nothing follows"
    ]
