"""The table `seeds`: how each row stopped."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from results.load import Evidence
from results.records.plan import Ruling, SeedState
from results.render.csv import render as csv
from results.render.latex import render as latex
from results.render.markdown import render as markdown
from results.tables.seeds import Options, build

BASELINE = (20.0, 20.3, 19.8, 20.1, 19.9)


def state(*rows: str, former: tuple[str, ...] = ()) -> SeedState:
    return SeedState(3, 5, "novel_psnr", 0.05, "baseline", tuple(Ruling(row, "open", 0, 3) for row in rows), former)


@pytest.fixture
def evidence(make) -> Evidence:
    rows = {
        "baseline": BASELINE,
        "better": (25.01, 25.3, 24.8),
        "worse": (18.0, 18.45, 17.5, 18.05),
        "level": (20.2, 20.0, 20.1, 19.8, 20.2),
    }
    records = [
        make.record(row, seed, {"novel_psnr": [psnr - 1, psnr + 1]})
        for row, values in rows.items()
        for seed, psnr in enumerate(values)
    ]
    records.append(make.record("worse", 4, state="failed"))  # after it was decided
    records.append(make.record("waiting", 0, {"novel_psnr": [20.0]}))
    records.append(make.record("broken", 0, state="failed"))
    records.append(make.record("diverged", 0, {"novel_psnr": [20.0, math.nan]}))
    found = make.evidence(*records)
    compared = ("better", "worse", "level", "waiting", "broken", "diverged")
    return replace(found, plan=replace(found.plan, seeds=state(*compared)))


def test_rows_show_how_they_stopped(evidence) -> None:
    table = build(evidence, Options())
    outcomes = {row.label: (row.cells[0].mean, row.cells[-1].text) for row in table.rows}
    assert outcomes["better"] == (3, "better than the baseline")
    assert outcomes["worse"] == (4, "worse than the baseline")
    assert outcomes["level"][1] in ("not decided", "stopped for futility, since further seeds would hardly decide it")
    assert outcomes["waiting"] == (1, "not decided yet")
    assert outcomes["broken"] == (0, "not decided yet: broken seed 0 failed")
    assert outcomes["diverged"] == (0, "not decided yet: diverged seed 0 has the score nan")
    better = table.rows[0]
    assert better.cells[1].mean == pytest.approx(5.0, abs=0.01)
    assert better.cells[2].mean < better.cells[1].mean < better.cells[3].mean
    assert better.cells[4].mean > better.cells[5].mean
    assert [source.key for source in better.sources] == ["better/0", "better/1", "better/2"]


def test_numbers_are_those_of_the_decision(evidence) -> None:
    level = build(evidence, Options()).rows[2]
    used = int(level.cells[0].mean)
    expected = (
        sum(own - other for own, other in zip((20.2, 20.0, 20.1, 19.8, 20.2)[:used], BASELINE, strict=False)) / used
    )
    assert level.cells[1].mean == pytest.approx(expected)


def test_the_order_of_trials_in_the_plan_is_not_that_of_seeds(evidence) -> None:
    backwards = replace(evidence, records=evidence.records[::-1])
    assert build(backwards, Options()).rows == build(evidence, Options()).rows


def test_a_failure_of_the_baseline_is_named_at_every_open_row(make) -> None:
    rows = [make.record(row, seed, {"novel_psnr": [20.0]}) for row in ("baseline", "a") for seed in range(2)]
    found = make.evidence(*rows[:1], make.record("baseline", 1, state="failed"), *rows[2:])
    (row,) = build(replace(found, plan=replace(found.plan, seeds=state("a"))), Options()).rows
    assert (row.cells[0].mean, row.cells[-1].text) == (1, "not decided yet: baseline seed 1 failed")


def test_it_renders_with_its_guarantees(evidence) -> None:
    table = build(evidence, Options())
    shown = re.sub(" +", " ", markdown(table))
    assert "| Seeds | novel: Δ PSNR | interval: from | interval: to | test: \\|t\\| | test: boundary | Outcome" in shown
    assert "| worse | 4 | −2.050 | −2.851 | −1.249 | 21.92 | 8.56 | worse than the baseline |" in shown
    names = ["tested", "difference", "low", "high", "t", "boundary", "outcome"]
    assert [column.name for column in table.columns] == names
    header = csv(table).splitlines()[0].split(",")
    assert len(set(header)) == len(header)
    assert r"\toprule" in latex(table)
    notes = " ".join(table.notes)
    assert "the family-wise error over all rows and looks is at most 5%" in notes
    assert "another rule" not in notes
    changed = replace(evidence, plan=replace(evidence.plan, seeds=state("better", former=("3 to 4 seeds",))))
    assert "another rule (3 to 4 seeds)" in " ".join(build(changed, Options()).notes)


def test_a_sweep_with_listed_seeds_has_nothing_to_show(make) -> None:
    table = build(make.evidence(make.record("baseline", 0, {"novel_psnr": [20.0]})), Options())
    assert table.rows == ()
    assert "a list of seeds" in table.notes[0]
