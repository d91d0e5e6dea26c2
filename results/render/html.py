"""A self-contained HTML page: it loads no script, font or picture.

Its only script sorts tables, marks what is cut at a side, and compares two pictures; the content security policy names
the script's hash, so a browser runs no other.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from results.address import is_database, run_page
from results.figures.grid import data_uri, enlargement, error_map, error_scales, has_blank
from results.figures.style import inline_svg
from results.gallery import Gallery, Turntable
from results.illustrations import Illustration
from results.load import Evidence, TrialRecord
from results.provenance import ABSENT, configurations, split_common, tags
from results.records.flat import as_written
from results.render import layout
from results.table import Cell, Row, Table, rounded

if TYPE_CHECKING:
    from datetime import datetime

    from jinja2 import Template
    from markupsafe import Markup


_FOLDER = Path(__file__).parent
#: functions of `results.render.layout` that the templates call
_LAYOUT = (
    "below", "blocks", "column_title", "compared_rows", "effect_size", "is_text", "leading_text", "probability",
    "signed", "signed_difference",
)  # fmt: skip


@dataclass(frozen=True)
class Matrix:
    """Settings of several trials: those they share, and one column for each that differs."""

    common: dict[str, str]
    columns: list[str]
    rows: list[tuple[str, list[str]]]


def render(
    evidence: Evidence,
    tables: Sequence[Table],
    figures: Sequence[Illustration],
    galleries: Sequence[Gallery],
    turntables: Sequence[Turntable] = (),
    notes: str | None = None,
    labels: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The page.  Every piece of text is escaped.

    notes, labels: description and labels of the sweep, from the sweep file.
    """
    return _template("page.html.j2").render(
        **_script(),
        evidence=evidence,
        notes=notes,
        labels=labels,
        records=evidence.records,
        run_page=partial(run_page, evidence.store.uri),
        is_served_here=is_database(evidence.store.uri),
        unfinished=[record for record in evidence.records if record.state not in ("finished", "pruned")],
        pruned=sum(record.state == "pruned" for record in evidence.records),
        ended=_last_end(evidence.records),
        tables=tables,
        figures=figures,
        galleries=galleries,
        turntables=turntables,
        without_pictures=_without_pictures(evidence, galleries),
        several_seeds=len({record.planned.seed for record in evidence.records if not record.planned.control}) > 1,
        configuration=_matrix([(record.planned.name, config) for record, config in configurations(evidence)]),
        record=_matrix([(record.planned.name, values) for record, values in tags(evidence)]),
    )


def render_table(table: Table) -> str:
    """A page of one table alone, such as a comparison of two sweeps."""
    return _template("comparison.html.j2").render(**_script(), table=table)


def _script() -> dict[str, str]:
    """The script of a page, and its hash for the content security policy."""
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"script": script, "script_hash": f"sha256-{digest}"}


@cache
def _template(name: str) -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        data_uri=data_uri, enlargement=enlargement, error_map=error_map, error_scales=error_scales, has_blank=has_blank
    )
    environment.globals.update({name: getattr(layout, name) for name in _LAYOUT})
    environment.filters.update(
        number=_number,
        sign=_sign,
        moment=_moment,
        spread=_spread,
        base64=lambda content: base64.b64encode(content).decode(),
        breakable=_breakable,
        svg=_svg,
        has_references=_has_references,
    )
    return environment.get_template(name)


def _number(value: float, precision: int) -> str:
    return _sign(rounded(value, precision))


def _sign(text: str) -> str:
    """Printed number -> with a minus sign for the hyphen, and a symbol for infinity."""
    return text.replace("-", "−").replace("inf", "∞")


def _has_references(row: Row) -> bool:
    return any(cell.reference is not None for cell in row.cells)


def _svg(figure: Illustration) -> Markup:
    """A figure as markup; its text was escaped by matplotlib."""
    from markupsafe import Markup

    return Markup(inline_svg(figure.figure, figure.stem))


def _breakable(name: str) -> Markup:
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
        (name, tuple(as_written(values.get(column, ABSENT)) for column in columns)) for name, values in records
    )
    return Matrix(
        {name: as_written(value) for name, value in common.items()},
        columns,
        [(name, list(values)) for name, values in lines] if columns else [],
    )
