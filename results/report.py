"""Build a sweep's report: tables in every format, figures, and one page that holds it all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name

from results.figures import grid
from results.figures.style import save
from results.gallery import (
    Gallery,
    Turntable,
    galleries,
    read_turntable,
    representative,
)
from results.illustrations import Illustration, illustrate
from results.load import Evidence, SweepLike, read_evidence
from results.pause_gc import garbage_collection_paused
from results.records.home import report_folder
from results.records.plan import RecordedTrial
from results.records.trial_folder import TURNTABLE_FILENAME
from results.render import RENDERERS
from results.render import html as page
from results.store import Run
from results.table import Table
from results.tables import build_tables

#: trained trials whose pictures are shown; the first of the plan
MOST_PICTURED = 12


@garbage_collection_paused()
def build_report(sweep: SweepLike, home: Path, out: Path | None = None, tables: Sequence[str] = ("auto",)) -> Path:
    """Write the report of `sweep` to `out`, by default `home/reports/<sweep name>/`; returns its index.html.

    Each file is replaced as a whole, so a reader never sees half of one; equal results give equal bytes.
    A sweep that is half done, or failed, gets a report that says so.  Raises `ResultsError` for a sweep that
    was never planned, a store that cannot be read, or an unknown table.
    """
    home = Path(home)
    out = Path(out) if out is not None else report_folder(home, sweep.name)
    evidence = read_evidence(sweep, home)
    built = build_tables(tables, evidence)
    figures = illustrate(evidence, built)
    shown = _pictured(evidence)
    pictures, turntables = _pictures(evidence, shown), _turntables(evidence, shown)
    files = {**_table_files(built), **_figure_files(figures), **_picture_files(pictures)}
    files |= {f"turntable_{turntable.key}.gif": turntable.animation for turntable in turntables}
    files["index.html"] = page.render(evidence, built, figures, pictures, turntables).encode()
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        _replace(out / name, content)
    return out / "index.html"


def _pictured(evidence: Evidence) -> list[tuple[RecordedTrial, Run]]:
    """The trials whose pictures are shown: of each name the first finished seed."""
    first: dict[str, tuple[RecordedTrial, Run]] = {}
    for record in evidence.records:
        if record.run and record.state == "finished":
            first.setdefault(record.planned.name, (record.planned, record.run))
    trained = [trial for trial in first.values() if not trial[0].control]
    return trained[:MOST_PICTURED] + [trial for trial in first.values() if trial[0].control]


def _pictures(evidence: Evidence, shown: Sequence[tuple[RecordedTrial, Run]]) -> list[Gallery]:
    """Of the recorded objects, the best, the median and the worst."""
    return [representative(gallery) for gallery in galleries(evidence.samples_of(shown))]


def _turntables(evidence: Evidence, shown: Sequence[tuple[RecordedTrial, Run]]) -> list[Turntable]:
    """One a variant; trials without a network, and those of older versions, have none."""
    found = evidence.store.read([run for _, run in shown], TURNTABLE_FILENAME, read_turntable)
    return [
        Turntable(planned.name, planned.key, *turntable)
        for (planned, _), turntable in zip(shown, found, strict=True)
        if not isinstance(turntable, Exception)
    ]


def _figure_files(figures: Sequence[Illustration]) -> dict[str, bytes]:
    return {f"{figure.stem}.{kind}": save(figure.figure, kind) for figure in figures for kind in ("pdf", "png")}


def _table_files(tables: Sequence[Table]) -> dict[str, bytes]:
    """The first table is `table.*`, the others carry their names."""
    stems = ["table" if index == 0 else f"table_{table.name}" for index, table in enumerate(tables)]
    return {
        f"{stem}{suffix}": resolve_name(renderer)(table).encode()
        for stem, table in zip(stems, tables, strict=True)
        for suffix, renderer in RENDERERS.items()
    }


def _picture_files(pictures: Sequence[Gallery]) -> dict[str, bytes]:
    """One grid is `samples.png`; trials that rendered other views get `samples_2.png` and so on."""
    stems = ["samples", *(f"samples_{number}" for number in range(2, len(pictures) + 1))]
    return {f"{stem}.png": grid.png(grid.draw(gallery)) for stem, gallery in zip(stems, pictures, strict=False)}


def _replace(path: Path, content: bytes) -> None:
    """Write to a temporary sibling, then rename over `path`."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        # mkstemp is private to its owner; a report is read by others and by web servers.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
