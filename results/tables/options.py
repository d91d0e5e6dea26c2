"""Options shared by all kinds of table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from results.tables.metric_columns import MetricColumn, distinct, named, quantity

# Lists of YAML are stored as tuples.
as_tuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)


def _check_stem(name: str) -> str:
    """Checks a table's name, which names its files and its label in LaTeX."""
    if not (name.replace("_", "").replace("-", "").isalnum() and name.isascii()):
        raise ValueError("must be letters, digits, '-' and '_'")
    return name


class Strict(BaseModel):
    """A part of a table file: immutable, strictly typed; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ColumnOptions(Strict):
    """A column with options beyond its name."""

    view_kind: Literal["conditioned", "novel"] = "novel"
    metric: Annotated[str, Field(min_length=1)]
    label: str | None = None
    group: str | None = None
    direction: Literal["up", "down"] | None = None
    precision: Annotated[int, Field(ge=0, le=9)] | None = None
    #: the mean over the objects of this category alone; null: over all
    category: Annotated[str, Field(min_length=1)] | None = None
    #: the smallest difference that matters; decides between "no difference shown" and "underpowered"
    relevant: Annotated[float, Field(gt=0)] | None = None


def as_metric_column(column: Any) -> Any:
    """Parses a name such as "novel_psnr", or a mapping with the keys of `ColumnOptions`."""
    if isinstance(column, str):
        return named(column)
    if isinstance(column, Mapping):
        options = ColumnOptions.model_validate(column)
        return quantity(options.view_kind, options.metric, **options.model_dump(exclude={"view_kind", "metric"}))
    return column


Stem = Annotated[str, AfterValidator(_check_stem)]
Column = Annotated[MetricColumn, BeforeValidator(as_metric_column)]
Columns = Annotated[tuple[Column, ...], as_tuple, AfterValidator(distinct)]


class Options(Strict):
    """Common to all kinds."""

    name: Stem
    caption: str

    @property
    def selectors(self) -> Sequence[Mapping[str, Any]]:
        """Its conditions on trials (`results.tables.select.selected`)."""
        return ()

    @property
    def axes(self) -> Sequence[str]:
        """Settings that it names as axes: dotted keys, or short names."""
        return ()
