"""One HTML page with everything in it: no script, no font, no picture is loaded from anywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.figures.grid import data_uri, enlargement
from results.gallery import Gallery
from results.load import Evidence, TrialRecord
from results.provenance import ABSENT, configurations, split_common, tags
from results.table import ARROWS, Cell, Table, rounded

if TYPE_CHECKING:
    from datetime import datetime

    from jinja2 import Template


@dataclass(frozen=True)
class Matrix:
    """Settings of several trials: those they share, and one column for each that differs."""

    common: dict[str, str]
    columns: list[str]
    rows: list[tuple[str, list[str]]]


def render(evidence: Evidence, tables: Sequence[Table], curves_svg: str | None, galleries: Sequence[Gallery]) -> str:
    """The page.  `curves_svg` is trusted markup; every other piece of text is escaped."""
    return _template().render(
        evidence=evidence,
        records=evidence.records,
        unfinished=[record for record in evidence.records if record.state != "finished"],
        trained=[record for record in evidence.records if not record.planned.control],
        ended=_last_end(evidence.records),
        tables=tables,
        curves_svg=curves_svg,
        galleries=galleries,
        without_pictures=_without_pictures(evidence, galleries),
        several_seeds=len({record.planned.seed for record in evidence.records if not record.planned.control}) > 1,
        configuration=_matrix([(record.planned.name, config) for record, config in configurations(evidence)]),
        record=_matrix([(record.planned.name, values) for record, values in tags(evidence)]),
    )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(arrows=ARROWS, data_uri=data_uri, enlargement=enlargement)
    environment.filters.update(number=_number, moment=_moment, spread=_spread, breakable=_breakable)
    return environment.get_template("page.html.j2")


def _number(value: float, precision: int) -> str:
    return rounded(value, precision).replace("-", "−").replace("inf", "∞")


def _breakable(name: str) -> str:
    """A name, escaped, that may be broken after an underscore, an equals sign or a dot."""
    from markupsafe import Markup, escape

    return Markup(re.sub("([_=.])", r"\1<wbr>", str(escape(name))))


def _spread(cell: Cell, precision: int) -> str:
    return "" if cell.std is None else f"± {rounded(cell.std, precision)}"


def _moment(value: datetime | str | None) -> str:
    """ "2026-03-01 12:00 UTC", also from ISO 8601; other text stays as it is."""
    from datetime import UTC, datetime

    if value is None:
        return ABSENT
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return str(value)
    value = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    return value.strftime("%Y-%m-%d %H:%M UTC")


def _last_end(records: Sequence[TrialRecord]) -> datetime | None:
    ends = [record.run.ended for record in records if record.run and record.run.ended]
    return max(ends, default=None)


def _without_pictures(evidence: Evidence, galleries: Sequence[Gallery]) -> list[str]:
    shown = {trial for gallery in galleries for trial in gallery.renders}
    names = (record.planned.name for record in evidence.records if record.state == "finished")
    return [name for name in dict.fromkeys(names) if name not in shown]


def _matrix(records: Sequence[tuple[str, dict[str, Any]]]) -> Matrix:
    """Equal lines of one trial (its seeds) are shown once."""
    common, columns = split_common(values for _, values in records)
    lines = dict.fromkeys(
        (name, tuple(_text(values.get(column, ABSENT)) for column in columns)) for name, values in records
    )
    return Matrix(
        {name: _text(value) for name, value in common.items()},
        columns,
        [(name, list(values)) for name, values in lines] if columns else [],
    )


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ABSENT if value is None else str(value)
