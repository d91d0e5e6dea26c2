"""Metric columns: a metric on one kind of views, its format, and which direction is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from results.costs import COSTS, KIND
from results.metrics import METRICS, PUBLISHED, VIEW_KINDS, Direction, facts_of, split_column
from results.table import Column


@dataclass(frozen=True)
class MetricColumn:
    """A metric on one kind of views, averaged over a trial's objects or those of one category, or a trial's cost."""

    view_kind: str
    metric: str
    column: Column
    #: the smallest difference that matters in practice; None where it is unknown
    relevant: float | None

    @property
    def name(self) -> str:
        """Name of the column, e.g. "novel_psnr", or "novel_psnr[car]" for one category."""
        return self.column.name

    @property
    def category(self) -> str | None:
        """The category of its objects; None: all objects."""
        return self.column.category


_GROUPS = {"conditioned": "Conditioned views", "novel": "Novel views"}


def quantity(
    view_kind: str,
    metric: str,
    *,
    label: str | None = None,
    group: str | None = None,
    direction: Direction | None = None,
    precision: int | None = None,
    relevant: float | None = None,
    category: str | None = None,
) -> MetricColumn:
    """A column with the given or the default format.  An unknown metric is ranked only if `direction` is given."""
    usual = facts_of(metric)
    precision = precision if precision is not None else usual.precision if usual else 3
    usual_label = usual.label if usual else metric
    of_category = "" if category is None else f"[{category}]"
    column = Column(
        f"{view_kind}_{metric}{of_category}",
        label if label is not None else usual_label if category is None else f"{usual_label} ({category})",
        _GROUPS[view_kind] if group is None else group,
        direction or (usual.direction if usual else None),
        precision,
        category,
    )
    return MetricColumn(view_kind, metric, column, usual.relevant if relevant is None and usual else relevant)


def named(name: str) -> MetricColumn:
    """The quantity called `name`: a kind of views and a known metric, or a cost.  Raises `ValueError` for others."""
    cost = name.removeprefix(f"{KIND}_")
    if cost != name:
        if cost not in COSTS:
            raise ValueError(f"{name!r} is not a cost; allowed: {', '.join(f'{KIND}_{known}' for known in COSTS)}")
        facts = COSTS[cost]
        return MetricColumn(KIND, cost, Column(name, facts.label, "Cost", None, facts.precision), None)
    view_kind, metric = split_column(name)
    if facts_of(metric) is None:
        near = get_close_matches(metric, METRICS, n=1)
        hint = f"; did you mean {view_kind}_{near[0]}?" if near else ""
        other = f"{{view_kind: {view_kind}, metric: {metric}}}"
        allowed = f"{', '.join(METRICS)}, or one of other code as {other}"
        raise ValueError(f"unknown metric {metric!r}; allowed: {allowed}{hint}")
    return quantity(view_kind, metric)


def distinct(columns: Sequence[MetricColumn]) -> tuple[MetricColumn, ...]:
    """The same columns.  Raises `ValueError` for two of one name, whose tests would count twice."""
    names = [column.name for column in columns]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the column {name!r} is listed {names.count(name)} times; a table has it once")
    return tuple(columns)


def of_metrics(metrics: Iterable[str]) -> tuple[MetricColumn, ...]:
    """These metrics on both kinds of views, in the registry's order."""
    chosen = set(metrics)
    return tuple(quantity(kind, metric) for kind in VIEW_KINDS for metric in METRICS if metric in chosen)


def measured(configs: Iterable[Mapping[str, Any]]) -> tuple[MetricColumn, ...]:
    """The metrics of the evaluation of trials with these configurations, on both kinds of views."""
    return of_metrics(metric for config in configs for metric in config.get("eval", {}).get("metrics", PUBLISHED))


#: the published metrics on both kinds of views
STANDARD = of_metrics(PUBLISHED)
