from pathlib import Path

import pytest

from sweep.file.diagnostics import SweepError
from sweep.file.yaml_reader import MAX_BYTES, parse, read_document


def _mistakes(text: str) -> list[tuple[int | None, int | None, str]]:
    try:
        found = parse(text, "s.yaml").mistakes
    except SweepError as error:
        found = error.mistakes
    return [(m.line, m.column, m.message) for m in found]


def test_values_are_plain_and_follow_yaml_1_2() -> None:
    document = parse("a: [1e-5, 5.0e-5, 1, 1., 0x10, true, no, ~, 2024-01-01, 'x']\nb: {c: -2}", "s.yaml")
    assert document.value == {
        "a": [1e-5, 5e-5, 1, 1.0, 16, True, "no", None, "2024-01-01", "x"],
        "b": {"c": -2},
    }
    assert [type(value) for value in document.value["a"][:4]] == [float, float, int, float]


def test_every_key_and_value_has_its_place() -> None:
    document = parse("a:\n  b.c: [10, {d: 20}]\n", "s.yaml")
    key, value = document.place(("a", "b.c"), "key"), document.place(("a", "b.c"))
    assert (key.line, key.column, value.line, value.column) == (2, 3, 2, 8)
    inner = document.place(("a", "b.c", 1, "d"))
    assert (inner.line, inner.column) == (2, 17)


def test_what_was_not_written_is_placed_at_what_is_around_it() -> None:
    document = parse("a:\n  b: {c: 1}\n", "s.yaml")
    assert document.place(("a", "b", "absent", 3)) == document.place(("a", "b"))
    assert document.place(("absent",)) == document.place(())


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("a: [1\nb: 2\n", 2, 2, "not valid YAML: while parsing a flow sequence"),
        ("a: 'x\n", 2, 1, "not valid YAML"),
        ("a: *nowhere\n", 1, 4, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, 1, "expected a single document"),
        ("a: 1\nb: 2\na: 3\n", 3, 1, "given twice"),
        ("a:\n  <<: {b: 1}\n", 2, 3, "merge keys"),
        ("? [a]\n: 1\n", 1, 3, "plain text"),
        ("a: !!python/object:os.system x\n", 1, 4, "no meaning here"),
        ("a: !!int x\n", 1, 4, "not a valid int"),
        ("a: &x [*x]\n", 1, 4, "nested deeper"),
        ("[" * 3000, 1, 1, "nested deeper"),
        ("a: \x01\n", 1, 4, "not valid YAML: unacceptable character #x0001"),
        ("a: 1\nü: [\x07]\n", 2, 5, "not valid YAML: unacceptable character #x0007"),
    ],
)
def test_what_cannot_be_read_is_placed(text: str, line: int, column: int, part: str) -> None:
    [(found_line, found_column, message)] = _mistakes(text)
    assert part in message
    assert (found_line, found_column) == (line, column)


def test_aliases_cannot_grow_without_end() -> None:
    levels = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    [(_, _, message)] = _mistakes("\n".join(levels))
    assert "more than" in message


def test_an_alias_stands_for_its_value() -> None:
    assert parse("a: &x {b: 1}\nc: *x\n", "s.yaml").value == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("content", "part"),
    [(None, "no such file"), (b"\xff\xfe", "not UTF-8"), (b"#" * (MAX_BYTES + 1), "larger than")],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None, part: str) -> None:
    path = tmp_path / "s.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SweepError) as caught:
        read_document(path)
    assert part in str(caught.value)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_in_another_encoding_is_placed(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(mark + "a: 1\nü: ".encode() + "ü\n".encode("latin-1"))
    with pytest.raises(SweepError) as caught:
        read_document(path)
    assert str(caught.value) == f"{path}:2:4: not UTF-8 text: the byte 0xfc"


def test_a_folder_is_not_a_sweep_file(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="cannot be read"):
        read_document(tmp_path)


def test_another_version_of_yaml_is_refused_by_name() -> None:
    with pytest.raises(SweepError) as caught:
        parse("# a sweep\n%YAML 1.1\n---\nname: a\n", "s.yaml")
    assert str(caught.value).startswith("s.yaml:2:1: sweep files are YAML 1.2")
    assert parse("%YAML 1.2\n---\nname: 010\n", "s.yaml").value == {"name": 10}
