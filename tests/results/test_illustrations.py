"""Captions of figures: they say what is left out, where anything is."""

from __future__ import annotations

from dataclasses import replace

from results.illustrations import illustrate
from results.load import read_evidence
from results.render.layout import compared_rows
from results.tables import build_tables


def test_captions_say_what_is_left_out(study, sweep) -> None:
    evidence = read_evidence(sweep, study.home)
    (table,) = build_tables(["auto"], evidence)
    few = {figure.stem: figure.caption for figure in illustrate(evidence, [table])}
    assert "drawn" not in few["forest"] + few["objects"]
    first, *others = table.sections
    (compared,) = compared_rows(table)
    many = replace(table, sections=(replace(first, rows=(*first.rows, *[compared.row] * 39)), *others))
    captions = {figure.stem: figure.caption for figure in illustrate(evidence, [many])}
    assert captions["forest"] == few["forest"] + " The 30 of 40 rows with the smallest p-values are drawn."
    assert captions["objects"] == few["objects"] + " The first 12 of 40 rows are drawn."
