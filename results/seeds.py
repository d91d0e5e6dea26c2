"""Rows whose seeds are added until they are decided: scores in the order of seeds -> a ruling for each row.

Rulings are a pure function of the recorded scores, so that a sweep that was killed, or whose trials ended in another
order, gives the same.  `results.sequential` explains the test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from results.metrics import METRICS, Direction, split_column
from results.records.plan import RowState, Ruling
from results.sequential import Design, decide

WORDS: Mapping[RowState, str] = {
    "better": "better than the baseline",
    "worse": "worse than the baseline",
    "futile": "stopped for futility, since further seeds would hardly decide it",
    "undecided": "not decided",
    "open": "not decided yet",
}

#: The score of each seed from seed 0 on; None where it is not measured.
SeedScores = Sequence[float | None]


def rulings(
    design: Design, direction: Direction, baseline: SeedScores, rows: Mapping[str, SeedScores]
) -> tuple[Ruling, ...]:
    """The state of each row, paired with the baseline seed by seed."""
    if not rows:
        return ()
    differences = np.array([_differences(scores, baseline, design.at_most) for scores in rows.values()])
    decisions = decide(differences, design)
    return tuple(
        _ruling(name, own, design, direction, *map(int, decided))
        for name, own, *decided in zip(rows, differences, *decisions, strict=True)
    )


def _differences(scores: SeedScores, baseline: SeedScores, at_most: int) -> list[float]:
    """Row minus baseline for each seed, NaN from the first that one of them lacks on."""
    found: list[float] = []
    for own, other in zip(scores, baseline, strict=False):
        if own is None or other is None or not (math.isfinite(own) and math.isfinite(other)):
            break
        found.append(own - other)
    return [*found[:at_most], *[math.nan] * (at_most - len(found))]


def _ruling(
    name: str,
    differences: np.ndarray,
    design: Design,
    direction: Direction,
    stopped: int,
    is_rejected: int,
    is_futile: int,
    shared_by: int,
) -> Ruling:
    measured = int(np.count_nonzero(~np.isnan(differences)))
    seeds = stopped or measured
    wanted = stopped or max(design.at_least, measured + 1)
    if seeds < design.at_least:
        return Ruling(name, "open", seeds, wanted)
    used = differences[:seeds]
    mean, error = float(used.mean()), float(used.std(ddof=1)) / math.sqrt(seeds)
    boundary = design.boundaries(shared_by)[seeds - design.at_least]
    state: RowState = "open"
    if is_rejected:
        state = "better" if (mean > 0) == (direction == "up") else "worse"
    elif stopped:
        state = "futile" if is_futile else "undecided"
    return Ruling(
        name,
        state,
        seeds,
        wanted,
        difference=mean,
        low=mean - boundary * error,
        high=mean + boundary * error,
        t=mean / error if error else None,
        boundary=boundary,
    )


def direction_of(metric: str) -> Direction:
    """The better direction of a score such as `novel_psnr`."""
    return METRICS[split_column(metric)[1]].direction


def described(ruling: Ruling, metric: str) -> str:
    """A ruling in words: `tv after 4 seeds: better than the baseline (novel_psnr +0.31, |t| 9.20, boundary 6.50)`."""
    numbers = ""
    if ruling.difference is not None and ruling.boundary is not None:
        t = "no spread" if ruling.t is None else f"|t| {abs(ruling.t):.2f}, boundary {ruling.boundary:.2f}"
        numbers = f" ({metric} {ruling.difference:+.4g}, {t})"
    return f"{ruling.row} after {ruling.seeds} seeds: {WORDS[ruling.state]}{numbers}"
