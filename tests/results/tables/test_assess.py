"""Marks and verdicts are given only where the differences are significant."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from results.load import TrialRecord
from results.records.plan import PrimaryMetric
from results.statistics import estimate, minimal_detectable
from results.table import Cell, Row, Section, Source, Table
from results.tables.assess import assessed
from results.tables.auto import Options, build
from results.tables.metric_columns import named, quantity
from results.tables.scores import Scores


def novel_psnr(table: Table, row: int) -> Cell:
    return table.rows[row].cells[[column.name for column in table.columns].index("novel_psnr")]


def test_best_and_second_are_marked_where_tests_distinguish_them(make) -> None:
    found = make.evidence(
        *(item for name, mean in (("a", 20.0), ("b", 22.0), ("c", 21.0)) for item in make.trained(name, mean))
    )
    table = build(found, Options())
    assert [novel_psnr(table, row).rank for row in range(3)] == [None, "best", "second"]


def test_the_better_number_alone_earns_nothing(make) -> None:
    rng = np.random.default_rng(1)
    noisy = [make.record(name, seed, {"novel_psnr": rng.normal(20, 3, 8)}) for name in ("a", "b") for seed in range(3)]
    table = build(make.evidence(*noisy), Options())
    assert novel_psnr(table, 0).mean != pytest.approx(novel_psnr(table, 1).mean, abs=0.01)
    assert [novel_psnr(table, row).rank for row in range(2)] == [None, None]


@pytest.mark.parametrize(("other", "best"), [(18.0, None), (30.0, "best")])
def test_two_rows_that_do_not_differ_are_neither_best_nor_second(make, other: float, best: str | None) -> None:
    """The third is far worse or far better than both; there is no second without a best."""
    found = make.evidence(*make.trained("a", 22.0), *make.trained("b", 22.01), *make.trained("c", other))
    assert [novel_psnr(build(found, Options()), row).rank for row in range(3)] == [None, None, best]


def test_where_lower_is_better_the_lowest_is_best(make) -> None:
    found = make.evidence(
        *make.trained("baseline", 0.5, column="novel_lpips"), *make.trained("b", 0.2, column="novel_lpips")
    )
    table = build(found, Options())
    baseline, better = (row.cells[-1] for row in table.rows)
    assert (baseline.rank, better.rank) == ("second", "best")
    assert better.comparison.verdict == "better"
    assert better.comparison.difference == pytest.approx(-0.3)


def test_verdicts(make) -> None:
    rng = np.random.default_rng(2)
    noisy = [make.record("noisy", seed, {"novel_psnr": rng.normal(20, 3, 20)}) for seed in range(3)]
    found = make.evidence(
        *make.trained("baseline", 20.0),
        *make.trained("better", 21.0),
        *make.trained("worse", 19.0),
        *make.trained("same", 20.01),
        *noisy,
        *make.trained("single", 25.0, seeds=1),
    )
    table = build(found, Options())
    verdicts = [novel_psnr(table, row).comparison.verdict for row in range(1, 6)]
    assert verdicts == ["better", "worse", "no difference shown", "underpowered", "one seed"]
    better, same, single = (novel_psnr(table, row).comparison for row in (1, 3, 5))
    assert better.is_significant
    assert better.low < 1.0 < better.high
    assert better.test == "paired, seeds and objects random, 20 objects, 3 seeds"
    assert same.minimal_detectable < 0.2
    assert same.low < 0.01 < same.high
    assert single.test == "paired t, 20 objects, one seed"
    assert single.p_adjusted >= single.p
    assert single.minimal_detectable is None, "with one seed no difference can be shown"


def test_what_cannot_be_tested_is_no_part_of_the_family(make) -> None:
    """Three tests: two with the baseline, and the second row's with it; the best has one seed, so its mark has none."""
    baseline, other = make.trained("baseline", 20.0), make.trained("other", 20.5)
    table = build(make.evidence(*baseline, *other, *make.trained("single", 25.0, seeds=1)), Options())
    differences = [own.per_object.value - beside.per_object.value for own, beside in zip(other, baseline, strict=True)]
    expected = float(minimal_detectable(estimate(differences), 0.05 / 3))
    assert novel_psnr(table, 1).comparison.minimal_detectable == pytest.approx(expected)


def test_without_a_relevant_difference_none_can_be_excluded(make) -> None:
    """A metric of other code has none."""
    found = make.evidence(
        *make.trained("baseline", 20.0, column="novel_x"), *make.trained("same", 20.0, column="novel_x")
    )
    verdicts = [
        build(found, Options(columns=(quantity("novel", "x", direction="up", relevant=relevant),)))
        .rows[1].cells[0].comparison.verdict
        for relevant in (None, 0.2)
    ]  # fmt: skip
    assert verdicts == ["underpowered", "no difference shown"]


@pytest.mark.parametrize(("objects", "shared"), [(25, "20 objects"), (1, "one object")])
def test_only_objects_and_seeds_that_both_have_are_compared(make, objects: int, shared: str) -> None:
    baseline = make.trained("baseline", 20.0, seeds=3)
    other = make.trained("other", 21.0, seeds=2, objects=objects)
    table = build(make.evidence(*baseline, *other), Options())
    assert novel_psnr(table, 1).comparison.test == f"paired, seeds and objects random, {shared}, 2 seeds"


def test_objects_of_other_data_are_distinct_despite_equal_names(make) -> None:
    tag = "splatsweep.data_fingerprint"
    rows = {"c": (18.0, "b"), "baseline": (20.0, "a"), "b": (25.0, "b")}
    found = make.evidence(
        *(item for name, (mean, data) in rows.items() for item in make.trained(name, mean, tags={tag: data * 64}))
    )
    table = build(found, Options())
    assert novel_psnr(table, 2).comparison is None
    assert [novel_psnr(table, row).rank for row in range(3)] == [None] * 3, "the best is not shown to beat the baseline"
    assert all(novel_psnr(table, row).interval for row in range(3)), "of its own data"
    assert "data bbbbbbb instead of aaaaaaa" in table.rows[2].notes[0]


@pytest.mark.parametrize("setting", ["data.resolution", "model.input_views", "eval.lpips"])
def test_scores_that_were_measured_otherwise_are_not_compared(make, setting: str) -> None:
    def trained(name: str, mean: float, value: Any) -> list[TrialRecord]:
        section, key = setting.split(".")
        config = {section: {key: value}}
        return [
            make.record(name, seed, {"novel_psnr": mean + row, "novel_lpips": mean - row}, config=config)
            for seed, row in enumerate(np.random.default_rng(1).normal(0, 0.1, (3, 20)))
        ]

    columns = tuple(named(name) for name in ("novel_psnr", "novel_lpips"))
    found = make.evidence(*trained("baseline", 20.0, "one"), *trained("other", 25.0, "two"))
    table = build(found, Options(columns=columns))
    psnr, lpips = (cell.comparison for cell in table.rows[1].cells)
    assert lpips is None
    assert (psnr is not None) == (setting == "eval.lpips")
    assert "not compared." in table.rows[1].notes[0]
    same = build(make.evidence(*trained("baseline", 20.0, "one"), *trained("b", 25.0, "one")), Options(columns=columns))
    assert all(cell.comparison for cell in same.rows[1].cells)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("value", "other"), [(math.inf, 19.0), (math.inf, math.inf), (math.nan, 19.0)])
def test_what_is_not_a_number_is_not_compared(make, value: float, other: float) -> None:
    odd = [make.record("odd", seed, {"novel_psnr": [value, 20.0]}) for seed in range(2)]
    plain = [make.record("baseline", seed, {"novel_psnr": [other, 20.0 + seed]}) for seed in range(2)]
    table = build(make.evidence(*plain, *odd), Options())
    assert novel_psnr(table, 1).comparison is None
    assert [novel_psnr(table, row).rank for row in range(2)] == [None, None]


def test_single_numbers_are_not_compared(make) -> None:
    rows = [make.trained(name, mean, seeds=1, objects=1) for name, mean in (("baseline", 20.0), ("b", 21.0))]
    cell = novel_psnr(build(make.evidence(*rows[0], *rows[1]), Options()), 1)
    assert (cell.comparison, cell.interval) == (None, None)


def test_a_row_of_nan_does_not_keep_others_from_their_marks(make) -> None:
    broken = [make.record("broken", seed, {"novel_psnr": np.full(20, math.nan)}) for seed in range(3)]
    table = build(make.evidence(*make.trained("a", 20.0), *make.trained("b", 22.0), *broken), Options())
    assert [novel_psnr(table, row).rank for row in range(3)] == ["second", "best", None]


def test_trivial_rows_neither_compete_nor_are_compared(make) -> None:
    found = make.evidence(
        *make.trained("baseline", 20.0), *make.trained("b", 21.0), *make.trained("blank", 30.0, control=True)
    )
    table = build(found, Options())
    assert novel_psnr(table, 1).rank == "best"
    assert (novel_psnr(table, 2).rank, novel_psnr(table, 2).comparison) == (None, None)


def noisy_rows(make) -> list[TrialRecord]:
    """Six rows of three seeds; the last is a little better than the first, the baseline, in both metrics."""
    rng, gains = np.random.default_rng(3), [0.0] * 5 + [0.9]
    return [
        make.record(
            name,
            seed,
            {column: 20 + gain + rng.normal(0, 0.15) + rng.normal(0, 0.1, 20) for column in COLUMNS},
        )
        for name, gain in zip(["baseline", "b", "c", "d", "e", "better"], gains, strict=True)
        for seed in range(3)
    ]


COLUMNS = ("conditioned_psnr", "novel_psnr", "conditioned_ssim", "novel_ssim")


def test_a_primary_metric_is_corrected_apart_from_all_others(make) -> None:
    rows = noisy_rows(make)
    together = build(make.evidence(*rows), Options())
    apart = build(make.evidence(*rows, primary=PrimaryMetric("novel_psnr", 18, 0)), Options())
    joint, own = (novel_psnr(table, 5).comparison for table in (together, apart))
    assert own.p == joint.p
    assert own.p_adjusted == pytest.approx(5 * own.p)  # the least of five tests
    assert joint.p_adjusted > own.p_adjusted
    assert (joint.verdict, own.verdict) == ("underpowered", "better")
    assert own.minimal_detectable < joint.minimal_detectable
    for row in range(1, 6):  # the other family has lost tests
        pairs = [
            (a.comparison, b.comparison) for a, b in zip(apart.rows[row].cells, together.rows[row].cells, strict=True)
        ]
        adjusted = [(after.p_adjusted, before.p_adjusted) for after, before in pairs if after]
        assert len(adjusted) == len(COLUMNS)
        assert all(after <= before for after, before in adjusted)
    assert "Primary metric: novel_psnr, named before any trial was trained." in apart.notes
    assert any("Holm's correction over the tests of novel_psnr, and over all others" in line for line in apart.legend)
    assert "Primary" not in " ".join(together.legend)


def test_without_a_baseline_there_is_no_primary_metric(make) -> None:
    rows = [*make.trained("a", 20.0), *make.trained("b", 21.0)]
    table = build(make.evidence(*rows, primary=PrimaryMetric("novel_psnr", 6, 0)), Options())
    assert "Primary" not in " ".join(table.notes)
    assert table.families == "the table"


def test_a_primary_metric_that_was_named_late_is_said_to_be(make) -> None:
    found = make.evidence(*noisy_rows(make), primary=PrimaryMetric("novel_psnr", 18, 3))
    (note,) = [note for note in build(found, Options()).notes if note.startswith("Primary")]
    assert note == (
        "Primary metric: novel_psnr, named after 3 of 18 trials were trained. "
        "Error rates hold for a choice made before."
    )


def test_a_primary_metric_that_a_table_lacks_changes_nothing(make) -> None:
    rows = noisy_rows(make)
    of_ssim = Options(columns=(quantity("novel", "ssim"),))
    with_primary = build(make.evidence(*rows, primary=PrimaryMetric("novel_psnr", 18, 0)), of_ssim)
    assert with_primary == build(make.evidence(*rows), of_ssim)


QUANTITIES = (quantity("novel", "psnr"), quantity("conditioned", "psnr"))


def undecided(
    seeds: int, spreads: tuple[float, float, float], rng: np.random.Generator, rows: int = 4, objects: int = 30
) -> tuple[Table, Row, Scores]:
    """Rows that differ only by chance; the first is the baseline."""
    of_seeds, of_rows_at_objects, of_rest = spreads
    count = len(QUANTITIES)
    values = (
        rng.normal(0, 2, (count, objects))
        + rng.normal(0, of_seeds, (rows, seeds, count, 1))
        + rng.normal(0, of_rows_at_objects, (rows, 1, count, objects))
        + rng.normal(0, of_rest, (rows, seeds, count, objects))
    )
    values = values.reshape(rows * seeds, len(QUANTITIES), objects)
    keys = {f"{row}/{seed}": row * seeds + seed for row in range(rows) for seed in range(seeds)}
    columns = {item.name: i for i, item in enumerate(QUANTITIES)}
    scores = Scores(values, np.ones(values.shape, bool), keys, columns, np.zeros(values.shape[:2], np.int64))
    table_rows = []
    for row in range(rows):
        sources = tuple(Source(f"{row}/{seed}", seed, "finished") for seed in range(seeds))
        cells = tuple(Cell(scores.means([source.key for source in sources], item)) for item in QUANTITIES)
        table_rows.append(Row(str(row), cells, sources))
    columns = tuple(item.column for item in QUANTITIES)
    return Table("test", "", columns, (Section(tuple(table_rows)),)), table_rows[0], scores


@pytest.mark.parametrize("spreads", [(0.5, 0.1, 0.2), (0.2, 0.5, 0.5)], ids=["unlike seeds", "unlike objects"])
@pytest.mark.parametrize("seeds", [2, 3])
def test_the_marks_of_a_table_are_wrong_in_fewer_than_one_of_twenty(
    seeds: int, spreads: tuple[float, float, float]
) -> None:
    """A star, bold or underline anywhere in a table of rows that do not differ is an error.

    With a primary metric this holds for its stars, and for all else.
    """
    rng = np.random.default_rng(seeds)
    tables, anywhere, in_primary, elsewhere = 500, 0, 0, 0
    for _ in range(tables):
        table, baseline, scores = undecided(seeds, spreads, rng)
        stars, ranks = marks(assessed(table, baseline, QUANTITIES, scores))
        anywhere += any(stars) or ranks
        (primary, other), ranks = marks(assessed(table, baseline, QUANTITIES, scores, primary=QUANTITIES[0].name))
        in_primary += primary
        elsewhere += other or ranks
    assert max(anywhere, in_primary, elsewhere) / tables < 0.055


def marks(table: Table) -> tuple[list[bool], bool]:
    """Whether each column has a star, and whether any cell has a rank."""
    columns = list(zip(*(row.cells for row in table.rows), strict=True))
    stars = [any(cell.comparison and cell.comparison.is_significant for cell in column) for column in columns]
    return stars, any(cell.rank for column in columns for cell in column)
