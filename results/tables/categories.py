"""One metric by category of the objects: a column for all objects, and one for each category."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import field_validator

from results.costs import KIND
from results.load import Evidence
from results.table import Table
from results.tables import auto
from results.tables.metric_columns import MetricColumn, named, quantity
from results.tables.options import Column as QuantityOption
from results.tables.options import Options as CommonOptions
from results.tables.options import Stem


class Options(CommonOptions):
    """Options of this kind of table."""

    name: Stem = "categories"
    caption: str = "Reconstruction quality by category: mean over views, then over objects."
    value: QuantityOption = named("novel_psnr")
    #: name of the trial that all others are compared with; null means the sweep file's, or one of the usual names
    baseline: str | None = None

    @field_validator("value")
    @classmethod
    def _check_value(cls, value: MetricColumn) -> MetricColumn:
        if value.view_kind == KIND or value.category is not None:
            raise ValueError("must be a metric on one kind of views, such as novel_psnr, over all objects")
        return value


def build(evidence: Evidence, options: Options) -> Table:
    """The rows of `auto`.  All tests of the table, those of categories among them, are one family."""
    columns = (_column(options.value, None, "all"), *(_column(options.value, c, c) for c in evidence.categories))
    same = auto.Options(name=options.name, caption=options.caption, columns=columns, baseline=options.baseline)
    table = auto.build(evidence, same)
    return replace(table, notes=(*table.notes, _note(evidence, options.value)))


def _column(value: MetricColumn, category: str | None, label: str) -> MetricColumn:
    """The quantity over one category's objects, or over all; its usual title is that of the group."""
    shown = value.column
    return quantity(
        value.view_kind,
        value.metric,
        label=label,
        group=f"{shown.group}: {shown.label}" if shown.group else shown.label,
        direction=shown.direction,
        precision=shown.precision,
        relevant=value.relevant,
        category=category,
    )


def _note(evidence: Evidence, value: MetricColumn) -> str:
    """The number of objects of each category that have the quantity in any trial."""
    measured = evidence.scores.measured
    chosen = measured.view_kind.among([value.view_kind]) & measured.metric.among([value.metric])
    pairs = np.unique(np.stack([measured.category.codes[chosen], measured.object.codes[chosen]]), axis=1)
    numbers = {name: int((pairs[0] == code).sum()) for code, name in enumerate(measured.category.names)}
    counted = ", ".join(f"{category} {numbers[category]}" for category in evidence.categories)
    unknown = numbers.get("", 0)
    without = f"{unknown} without one; trials of earlier versions did not record it" if unknown else ""
    return f"Objects by category: {', '.join(filter(None, (counted, without))) or 'none'}."
