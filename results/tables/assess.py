"""Significance of a table's numbers: comparisons with the baseline, and marks for best and second best.

All tests of a table are one family (Holm's correction): every row against the baseline in every column, and, in every
column, the best row against all others and the second against those below it.  The chance that any star, bold or
underline of a table is wrong stays below 5 %.  Where the sweep has a primary metric, its tests against the baseline are
one family and all others a second: the chance that any of the primary metric's stars is wrong stays below 5 %, and so
does that of any other mark.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.statistics import PairedTest, holm, minimal_detectable, paired_test
from results.table import ALPHA, Comparison, Rank, Row, Table, Verdict, ranked
from results.tables.metric_columns import MetricColumn
from results.tables.scores import Scores

POWER = 0.8

#: row number of the baseline, which need not be one of the table's rows
BASELINE = -1
#: two rows, counted from the top of the table, and a column
_Pair = tuple[int, int, int]
#: a row and a column
_Place = tuple[int, int]
#: what a test decides: a pair's difference, or the mark at a place
_Question = _Pair | _Place


@dataclass(frozen=True)
class _Test:
    """Paired test of one row against another in one column, with the numbers of seeds and objects."""

    found: PairedTest
    seeds: int
    objects: int


@dataclass(frozen=True)
class _Answer:
    """p after the correction over a family, and the number of tests in that."""

    p: float
    family: int


def assessed(
    table: Table,
    baseline: Row | None,
    quantities: Sequence[MetricColumn],
    scores: Scores,
    primary: str | None = None,
) -> Table:
    """The table with comparisons and earned ranks in its ranked sections; a column for each quantity.

    `baseline` need not stand in the table.  Columns without a direction are not compared.
    primary: name of the quantity whose comparisons are a family of their own.
    """
    candidates = ranked(table)
    rows = {index: candidates.rows[index] for index in candidates.competitors}
    contests = {
        (row, column): rivals for column in range(len(quantities)) for row, rivals in _contests(rows, column).items()
    }
    pairs = list(_baseline_pairs(rows, baseline, quantities))
    rivalries = [(row, rival, column) for (row, column), rivals in contests.items() for rival in rivals]
    everyone = {**rows, BASELINE: baseline} if baseline else rows
    tests = _tested(dict.fromkeys([*pairs, *rivalries]), everyone, quantities, scores)
    pairs = [pair for pair in pairs if pair in tests]
    deciding: dict[_Question, float] = {}
    others: dict[_Question, float] = {}
    for pair in pairs:
        family = deciding if quantities[pair[2]].name == primary else others
        family[pair] = float(tests[pair].found.p)
    others |= {place: _contest_p(place, rivals, tests, quantities) for place, rivals in contests.items()}
    answers = _corrected(deciding) | _corrected(others)
    comparisons = {
        (row, column): _comparison(
            everyone[other], tests[row, other, column], quantities[column], answers[row, other, column]
        )
        for row, other, column in pairs
    }
    earned = {place for place in contests if answers[place].p < ALPHA}
    ranks = _earned_ranks(rows, contests, earned)
    return candidates.with_cells(
        lambda row, column, cell: replace(
            cell, comparison=comparisons.get((row, column)), rank=ranks.get((row, column))
        )
    )


def paired_comparisons(
    pairs: Sequence[tuple[Row, Row] | None], quantities: Sequence[MetricColumn], scores: Scores, name: str
) -> dict[_Place, Comparison]:
    """Comparisons of each pair's first row with its second, in every column with a direction; one family of tests.

    name: what the second rows are called.  Keys of the result: place of the pair, and column.
    """
    rows = {2 * index + side: row for index, pair in enumerate(pairs) if pair for side, row in enumerate(pair)}
    wanted = [
        (2 * index, 2 * index + 1, column)
        for index, pair in enumerate(pairs)
        for column, quantity in enumerate(quantities)
        if pair and quantity.column.direction
    ]
    tests = _tested(wanted, rows, quantities, scores)
    answers = _corrected({pair: float(test.found.p) for pair, test in tests.items()})
    return {
        (row // 2, column): _comparison(
            replace(rows[other], label=name), test, quantities[column], answers[row, other, column]
        )
        for (row, other, column), test in tests.items()
    }


def _corrected(family: Mapping[Any, float]) -> dict[Any, _Answer]:
    """The p-values of one family after Holm's correction; those that are NaN do not count."""
    adjusted = holm(list(family.values()))
    size = int(np.count_nonzero(~np.isnan(adjusted)))
    return {question: _Answer(float(p), size) for question, p in zip(family, adjusted, strict=True)}


def _baseline_pairs(
    rows: Mapping[int, Row], baseline: Row | None, quantities: Sequence[MetricColumn]
) -> Iterator[_Pair]:
    if baseline is None:
        return
    for index, row in rows.items():
        is_itself = {source.key for source in row.sources} == {source.key for source in baseline.sources}
        for column, quantity in enumerate(quantities):
            if quantity.column.direction and not is_itself:
                yield index, BASELINE, column


def _contests(rows: Mapping[int, Row], column: int) -> dict[int, list[int]]:
    """Rows to test against each other: the best against all others, the second against those below it."""
    # A row whose mean is NaN ranks below the others without a test.
    means = {index: row.cells[column].mean for index, row in rows.items()}
    filled = [index for index, mean in means.items() if mean is not None and not np.isnan(mean)]
    ranks: dict[Rank | None, int] = {rows[index].cells[column].rank: index for index in filled}
    contests = {}
    if "best" in ranks:
        contests[ranks["best"]] = [index for index in filled if index != ranks["best"]]
    if "second" in ranks:
        contests[ranks["second"]] = [i for i in filled if i not in (ranks["best"], ranks["second"])]
    return {row: rivals for row, rivals in contests.items() if rivals}


def _tested(
    pairs: Iterable[_Pair], rows: Mapping[int, Row], quantities: Sequence[MetricColumn], scores: Scores
) -> dict[_Pair, _Test]:
    """All tests that can be computed; those of equal shape are batched."""
    by_shape: dict[tuple[int, ...], list[tuple[_Pair, NDArray[np.float64]]]] = defaultdict(list)
    keys = {index: {source.seed: source.key for source in row.sources} for index, row in rows.items()}
    for row, other, column in pairs:
        shared = [(key, keys[other][seed]) for seed, key in keys[row].items() if seed in keys[other]]
        differences = scores.differences(shared, quantities[column])
        if differences is not None and differences.size > 1 and np.isfinite(differences).all():
            by_shape[differences.shape].append(((row, other, column), differences))
    tests: dict[_Pair, _Test] = {}
    for (seeds, objects), group in by_shape.items():
        found = paired_test(np.stack([differences for _, differences in group]))
        tests |= {pair: _Test(found.at(index), seeds, objects) for index, (pair, _) in enumerate(group)}
    return tests


def _contest_p(
    place: _Place, rivals: Sequence[int], tests: Mapping[_Pair, _Test], quantities: Sequence[MetricColumn]
) -> float:
    """p of "no better than one of its rivals", the largest of all; NaN where one of them cannot be tested."""
    row, column = place
    found = [tests.get((row, rival, column)) for rival in rivals]
    return max((_p_of_better(test, quantities[column]) for test in found), key=lambda p: (np.isnan(p), p))


def _p_of_better(test: _Test | None, quantity: MetricColumn) -> float:
    if test is None or test.seeds == 1:  # with one training each the spread over trainings is unknown
        return np.nan
    gain = test.found.difference if quantity.column.direction == "up" else -test.found.difference
    return float(test.found.p) if gain > 0 else 1.0


def _comparison(baseline: Row, test: _Test, quantity: MetricColumn, answer: _Answer) -> Comparison:
    found = test.found
    detectable = float(minimal_detectable(found.estimate, ALPHA / answer.family, POWER))
    objects = "one object" if test.objects == 1 else f"{test.objects} objects"
    several = f"paired, seeds and objects random, {objects}, {test.seeds} seeds"
    return Comparison(
        baseline=baseline.label,
        difference=float(found.difference),
        low=float(found.low),
        high=float(found.high),
        p=float(found.p),
        p_adjusted=answer.p,
        effect_size=float(found.effect_size),
        test=several if test.seeds > 1 else f"paired t, {objects}, one seed",
        verdict=_verdict(test, quantity, answer.p, detectable),
        minimal_detectable=detectable if test.seeds > 1 else None,
    )


def _verdict(test: _Test, quantity: MetricColumn, p_adjusted: float, detectable: float) -> Verdict:
    """The verdict of a test; none with one seed, as trainings of one configuration may differ as much."""
    if test.seeds == 1:
        return "one seed"
    if p_adjusted < ALPHA:
        is_gain = (test.found.difference > 0) == (quantity.column.direction == "up")
        return "better" if is_gain else "worse"
    is_telling = quantity.relevant is not None and detectable <= quantity.relevant
    return "no difference shown" if is_telling else "underpowered"


def _earned_ranks(
    rows: Mapping[int, Row], contests: Mapping[_Place, Sequence[int]], earned: set[_Place]
) -> dict[_Place, Rank]:
    """Best where it beats all others; second where the best is earned and it beats those below it, if any."""
    ranks: dict[_Place, Rank] = {}
    for column in {column for _, column in contests}:
        marked = {row.cells[column].rank: index for index, row in rows.items() if row.cells[column].rank}
        best, second = marked["best"], marked.get("second")
        if (best, column) not in earned:
            continue
        ranks[best, column] = "best"
        if second is not None and ((second, column) not in contests or (second, column) in earned):
            ranks[second, column] = "second"
    return ranks
