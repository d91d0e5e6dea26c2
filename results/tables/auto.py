"""One row per trial, in the plan's order; the trivial rows stand below a rule and are not ranked."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd

from results.load import METRICS, VIEW_KINDS
from results.table import Cell, Column, Direction, Row, Section, Source, Table, ranked

_METRICS: dict[str, tuple[str, Direction, int]] = {
    "psnr": ("PSNR", "up", 2),
    "ssim": ("SSIM", "up", 3),
    "lpips": ("LPIPS", "down", 3),
}
_GROUPS = {"conditioned": "Conditioned views", "novel": "Novel views"}

COLUMNS = tuple(
    Column(f"{kind}_{metric}", label, _GROUPS[kind], direction, precision)
    for kind in VIEW_KINDS
    for metric in METRICS
    for label, direction, precision in [_METRICS[metric]]
)

#: what each trivial predictor does; its trial's name may say more after a space
_TRIVIAL = {
    "blank": "blank (the background colour everywhere)",
    "copy_input": "copy_input (the input view for every target)",
}


def build(results: pd.DataFrame, trials: pd.DataFrame) -> Table:
    """Means over objects per seed, then over seeds.  A NaN among the values makes the mean NaN."""
    means = _means(results)
    rows: dict[bool, list[Row]] = {False: [], True: []}
    for (control, name), group in trials.groupby(["control", "trial"], sort=False):
        rows[bool(control)].append(_row(str(name), group, means))
    sections = [Section(tuple(rows[False])), Section(tuple(rows[True]), ranked=False)]
    return ranked(
        Table(
            name="auto",
            caption="Reconstruction quality per trial: mean over views, then over objects.",
            columns=COLUMNS,
            sections=tuple(section for section in sections if section.rows),
            notes=_trivial_notes([row.label for row in rows[True]]),
        )
    )


def _means(results: pd.DataFrame) -> dict[tuple[str, str], float]:
    """`(key, column) -> mean over objects`."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for key, kind, metric, value in zip(
        results["key"], results["view_kind"], results["metric"], results["value"], strict=True
    ):
        values[key, f"{kind}_{metric}"].append(float(value))
    return {name: sum(scores) / len(scores) for name, scores in values.items()}


def _row(name: str, group: pd.DataFrame, means: dict[tuple[str, str], float]) -> Row:
    sources = tuple(
        Source(key, int(seed), state, run_id if isinstance(run_id, str) else None)
        for key, seed, state, run_id in sorted(
            zip(group["key"], group["seed"], group["state"], group["run_id"], strict=True),
            key=lambda source: int(source[1]),
        )
    )
    finished = [source.key for source in sources if source.state == "finished"]
    cells = tuple(
        Cell(tuple(means[key, column.name] for key in finished if (key, column.name) in means)) for column in COLUMNS
    )
    return Row(name, cells, sources, _state(sources), _notes(name, group, sources))


def _state(sources: tuple[Source, ...]) -> str:
    """ "failed", or per state and seed where they differ: "failed (seed 1), pending (seeds 2, 3)"."""
    seeds: dict[str, list[int]] = defaultdict(list)
    for source in sources:
        seeds[source.state].append(source.seed)
    if len(seeds) == 1:
        return sources[0].state
    return ", ".join(
        f"{state} (seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))})"
        for state, numbers in seeds.items()
        if state != "finished"
    )


def _notes(name: str, group: pd.DataFrame, sources: tuple[Source, ...]) -> tuple[str, ...]:
    notes = []
    finished = sum(source.state == "finished" for source in sources)
    if 0 < finished < len(sources):
        notes.append(f"{finished} of {len(sources)} seeds: {_state(sources)}.")
    others = dict.fromkeys(other for names in group["names"] for other in names if other != name)
    if others:
        notes.append(f"The same configuration as {', '.join(others)}.")
    return tuple(notes)


def _trivial_notes(labels: list[str]) -> tuple[str, ...]:
    known = dict.fromkeys(label.split()[0] for label in labels if label.split()[0] in _TRIVIAL)
    if not known:
        return ()
    return (f"Below the rule, without training: {' and '.join(_TRIVIAL[name] for name in known)}.",)
