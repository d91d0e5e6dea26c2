"""The command prints the findings of `results.explain`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from results.explain import Explanation, Origin
from results.table import Cell, Column, Comparison, Row, Section, Table
from sweep.bench.report_fill import Place, Size, fill
from sweep.cli import app
from sweep.commands.explain import _sentences, _show_origin

SWEEP = """
name: bench
base: {data: {name: chairs}}
trials: {baseline: {}}
seeds: [0]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("explained")
    fill(home, Size(runs=8, objects=5, steps=3), Place.in_home(home))
    (home / "sweep.yaml").write_text(SWEEP)
    return home


def explain(home: Path, *arguments: str) -> str:
    command = ["explain", *arguments, "--sweep", str(home / "sweep.yaml"), "--home", str(home)]
    result = CliRunner().invoke(app, command)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_runs_objects_data_and_comparison_are_printed(home: Path) -> None:
    text = explain(home, "auto", "variant 1", "novel_psnr")
    for expected in (
        "auto / variant 1 / Novel views: PSNR",
        "over 4 seeds",
        "against baseline",
        "seed 3",
        "5: object_0",
        "checksum of the data: 1111",
        "arithmetic: not recorded",
    ):
        assert expected in text
    assert f"{4:016x}" in text
    assert "depth.weight = 1" in text


def test_a_seed_that_lacks_the_value_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    origin = Origin("a0", 0, "finished", "", None, None, (), "", "", "", {}, "", "", {}, {})
    for has_others, text in ((True, "seed 0: finished, without this value\n"), (False, "seed 0: finished\n")):
        _show_origin(origin, has_others=has_others)
        assert text in capsys.readouterr().out


def test_json_holds_the_same(home: Path) -> None:
    (found,) = json.loads(explain(home, "auto", "variant 1", "novel_psnr", "--json"))
    assert found["cell"]["n"] == 4
    assert [origin["value"] for origin in found["origins"]] == found["cell"]["values"]
    assert found["origins"][0]["data_fingerprint"] == "0" * 64
    assert found["origins"][0]["data_checksum"] == "1" * 64


def test_numbers_are_rounded_as_in_tables() -> None:
    found = Comparison("a", -0.002, -0.004, 0.3, 0.9, 1.0, 0.1, "paired", "underpowered")
    cell = Cell((0.2, 0.3), interval=(-0.04, 0.54), comparison=found)
    column = Column("novel_psnr", "PSNR", "Novel views", "up", 1)
    row = Row("r", (cell,))
    sentences = _sentences(Explanation(Table("t", "", (column,), (Section((row,)),)), row, column, cell, ()))
    assert sentences[0] == "95 % interval: 0.0 to 0.5"
    assert sentences[1].startswith("against a: 0.00 (0.00 to 0.30), ")


@pytest.mark.parametrize(("citation", "source"), [("Doe", ", Doe"), ("", "")])
def test_a_published_value_has_its_source_if_it_is_known(citation: str, source: str) -> None:
    cell, column = Cell(reference=0.2), Column("novel_psnr", "PSNR", precision=1)
    row = Row("r", (cell,))
    table = Table("t", "", (column,), (Section((row,)),), citation=citation)
    assert _sentences(Explanation(table, row, column, cell, ())) == [f"published: 0.2{source}"]


def test_a_wrong_name_is_a_message(home: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'variant 1'"):
        explain(home, "auto", "varint 1", "novel_psnr")
