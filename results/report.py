"""Build a sweep's report: tables in every format, figures, and one page that holds it all."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType

from results.errors import ResultsError
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
from results.runs import Run
from results.table import Table
from results.tables import build_tables

#: lists the other files of a report, so that a later one replaces them and nothing else
MANIFEST_FILENAME = "report.json"

#: trained trials whose pictures are shown; the first of the plan
MOST_PICTURED = 12


@garbage_collection_paused()
def build_report(
    sweep: SweepLike,
    home: Path,
    out: Path | None = None,
    tables: Sequence[str] = ("auto",),
    plan: str | None = None,
    *,
    notes: str | None = None,
    labels: Mapping[str, str] = MappingProxyType({}),
    on_tables: Callable[[Sequence[Table]], None] = lambda _: None,
) -> Path:
    """Write the report of `sweep` to `out`, by default `home/reports/<sweep name>/`; returns its index.html.

    `plan` is the beginning of the name of an earlier plan (`results.records.plan.earlier_plans`); by default the report
    is of the last.  `notes` and `labels` are the sweep file's description and labels; `on_tables` is called
    with the tables once they are built.

    The folder is written completely beside `out` and then replaces it, so no file of an earlier report remains, and a
    reader never sees a partial report.  Equal results give equal bytes.  The report of an unfinished or failed sweep
    states this.  Raises `ResultsError` for an unplanned sweep, a store that cannot be read, an unknown table,
    or a folder that holds anything but a report.
    """
    home = Path(home)
    own = report_folder(home, sweep.name)
    out = Path(out).absolute() if out is not None else own
    if out != own:
        _refuse_foreign_files(out)
    evidence = read_evidence(sweep, home, plan)
    built = build_tables(tables, evidence)
    on_tables(built)
    figures = illustrate(evidence, built)
    shown = _pictured(evidence)
    pictures, turntables = _pictures(evidence, shown), _turntables(evidence, shown)
    files = {**_table_files(built), **_figure_files(figures), **_picture_files(pictures)}
    files |= {f"turntable_{turntable.key}.gif": turntable.animation for turntable in turntables}
    files["index.html"] = page.render(evidence, built, figures, pictures, turntables, notes, labels).encode()
    files[MANIFEST_FILENAME] = json.dumps({"sweep": sweep.name, "files": sorted(files)}, indent=2).encode()
    _swap_in(out, files)
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
    """Galleries of the best, the median and the worst of the recorded objects."""
    return [representative(gallery) for gallery in galleries(evidence.samples_of(shown))]


def _turntables(evidence: Evidence, shown: Sequence[tuple[RecordedTrial, Run]]) -> list[Turntable]:
    """One turntable per variant; trials without a network, and those of older versions, have none."""
    found = evidence.store.read([run for _, run in shown], TURNTABLE_FILENAME, read_turntable)
    return [
        Turntable(planned.name, planned.key, *turntable)
        for (planned, _), turntable in zip(shown, found, strict=True)
        if not isinstance(turntable, Exception)
    ]


def _figure_files(figures: Sequence[Illustration]) -> dict[str, bytes]:
    return {f"{figure.stem}.{kind}": save(figure.figure, kind) for figure in figures for kind in ("pdf", "png")}


def _table_files(tables: Sequence[Table]) -> dict[str, bytes]:
    """Files named after their table: `auto.tex`, `paper-1.csv`."""
    return {
        f"{table.name}{suffix}": resolve_name(renderer)(table).encode()
        for table in tables
        for suffix, renderer in RENDERERS.items()
    }


def _picture_files(pictures: Sequence[Gallery]) -> dict[str, bytes]:
    """One grid is `samples.png`; trials that rendered other views get `samples_2.png` and so on."""
    stems = ["samples", *(f"samples_{number}" for number in range(2, len(pictures) + 1))]
    return {f"{stem}.png": grid.png(grid.draw(gallery)) for stem, gallery in zip(stems, pictures, strict=False)}


def _refuse_foreign_files(out: Path) -> None:
    """Raise `ResultsError` where a folder holds files of no report, since a report replaces the folder."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ResultsError(f"{out} is a file; a report is a folder: choose another with --out")
    try:
        listed = json.loads((out / MANIFEST_FILENAME).read_text(encoding="utf-8"))["files"]
        known = {MANIFEST_FILENAME, *map(str, listed)}
    except (OSError, ValueError, KeyError, TypeError):
        known = set()
    foreign = sorted({path.name for path in out.iterdir()} - known)
    if foreign:
        shown = ", ".join(foreign[:5]) + (", ..." if len(foreign) > 5 else "")
        raise ResultsError(
            f"{out} holds files that no report wrote ({shown}), and a report replaces its folder; "
            "choose a new or empty folder with --out"
        )


def _swap_in(out: Path, files: Mapping[str, bytes]) -> None:
    """Replace `out` by a folder of exactly these files; until then, the former one is unchanged."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.parent / f".{out.name}.{uuid.uuid4().hex}"
    fresh.mkdir()
    former = fresh.with_name(f"{fresh.name}.former")
    try:
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        if out.exists():
            out.rename(former)
        try:
            fresh.rename(out)
        except OSError:
            if former.exists():
                former.rename(out)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)
