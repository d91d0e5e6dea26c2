"""JSON: strict, and every number with its origin."""

from __future__ import annotations

import json

from results.render.json import render
from results.table import Table


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
