"""JSON: strict, and every number with its origin."""

from __future__ import annotations

import json

from results.render.json import render
from results.table import Cell, Column, Row, Section, Table


def test_it_is_strict_and_leads_to_the_runs(table: Table, hostile: str) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    content = json.loads(render(table), parse_constant=refuse)
    base, named, published, gone, partly, copied = content["rows"]
    assert base["cells"]["novel_psnr"] == {
        "text": "20.20",
        "mean": table.rows[0].cells[1].mean,
        "std": table.rows[0].cells[1].std,
        "n": 2,
        "values": [20.1, 20.3],
        "rank": "best",
        "interval": [19.5, 20.9],
        "reference": 21.0,
        "comparison": None,
    }
    found = named["cells"]["conditioned_psnr"]["comparison"]
    assert (found["baseline"], found["verdict"], found["effect_size"]) == ("base", "better", "inf")
    assert base["sources"] == [{"key": "0011223344556677", "seed": 0, "state": "finished", "run_id": "f" * 32}]
    assert (named["label"], named["group"], named["section"]) == (hostile, "Input & _x_", "Trained #1")
    assert published["cells"]["novel_psnr"]["reference"] == 21.76
    assert gone["cells"]["novel_psnr"]["mean"] is None
    assert partly["cells"]["novel_psnr"]["mean"] == "nan"
    assert copied["cells"]["conditioned_psnr"]["mean"] == "inf"
    assert [row["ranked"] for row in content["rows"]] == [True] * 5 + [False]
    assert (content["notes"], content["remarks"]) == (table.legend, ["A finding."])
    assert base["notes"] == ["a note"]


def test_settings_are_texts_and_rows_have_their_names() -> None:
    rows = Row("a", (Cell(text="film"), Cell((1.0,))), name="model=a"), Row("b", (Cell(text="x"), Cell()))
    content = json.loads(render(Table("t", "", (Column("fusion", "fusion"), Column("psnr", "PSNR")), (Section(rows),))))
    assert [(row["label"], row["name"], row["cells"]["fusion"]) for row in content["rows"]] == [
        ("a", "model=a", {"text": "film"}),
        ("b", "b", {"text": "x"}),
    ]
