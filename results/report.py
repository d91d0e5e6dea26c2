"""Build a sweep's report: tables in every format, figures, and one page that holds it all."""

from __future__ import annotations

import errno
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from results.errors import ResultsError
from results.load import Recorded, SweepLike, read_recorded
from results.pause_gc import garbage_collection_paused
from results.records.home import report_folder
from results.render import MANIFEST_FILENAME, PAGE_FILENAME
from results.table import Table
from results.tables import COSTS, SEEDS, build_tables
from results.unchanged import inputs, is_current, listed_files, manifest


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
    on_tables: Callable[[Sequence[Table]], None] | None = None,
) -> Path:
    """Write the report of `sweep` to `out`, by default `home/reports/<sweep name>/`; returns its index.html.

    `plan` is the beginning of the name of an earlier plan (`results.records.frozen_plans`); by default the report is of
    the last.  `notes` and `labels` are the sweep file's description and labels; `on_tables` is called with the tables
    once they are built.

    The folder is written completely beside `out` and then replaces it, so no file of an earlier report remains, and a
    reader never sees a partial report.  Equal results give equal bytes, so a report that is current is left as it is.
    The report of an unfinished or failed sweep states this.  Raises `ResultsError` for an unplanned sweep, a store
    that cannot be read, an unknown table, or an `out` that holds anything but a report.  The folder in the home is
    replaced with everything in it, unless it is a link.
    """
    home = Path(home)
    own = report_folder(home, sweep.name)
    out = Path(out).absolute() if out is not None else own
    if out != own or out.is_symlink():
        _refuse_irreplaceable(out)
    recorded = read_recorded(sweep, home, plan)
    if recorded.plan.seeds is not None and SEEDS not in tables:
        tables = (*tables, SEEDS)
    made_from = inputs(recorded, tables, notes, labels)
    if not is_current(out, made_from):
        evidence = recorded.evidence()
        built = build_tables(tables, evidence)
        if on_tables is not None:
            on_tables(built)
        if _has_trained(recorded) and all(table.name != COSTS for table in built):
            built += build_tables([COSTS], evidence)
        # Matplotlib takes longer to import than a current report takes to recognise.
        from results.report_files import ReportFiles

        drawn = ReportFiles.of(evidence, built, notes, labels)
        summary = manifest(sweep.name, drawn.files, made_from if drawn.has_all_pictures else None)
        try:
            _swap_in(out, {**drawn.files, MANIFEST_FILENAME: summary})
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY):  # the last: a mount point
                raise
            raise ResultsError(
                f"the report cannot be written to {out} ({error.strerror}); write it elsewhere with --out DIR"
            ) from error
    elif on_tables is not None:
        on_tables(build_tables(tables, recorded.evidence()))
    return out / PAGE_FILENAME


def _has_trained(recorded: Recorded) -> bool:
    controls = {trial.key for trial in recorded.plan.controls}
    return any(run.key not in controls for run in recorded.finished)


def _refuse_irreplaceable(out: Path) -> None:
    """Raise `ResultsError` for a folder that a report may not replace: with foreign files, or the current directory."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ResultsError(f"{out} is a file; a report is a folder: choose another with --out")
    if Path.cwd().is_relative_to(out.resolve()):  # the shell would stay in the former folder, which is removed
        raise ResultsError(
            f"a report replaces its folder, and {out} holds the current directory; call it from elsewhere, or choose "
            "a folder below with --out"
        )
    foreign = sorted({path.name for path in out.iterdir()} - listed_files(out))
    if foreign:
        shown = ", ".join(foreign[:5]) + (", ..." if len(foreign) > 5 else "")
        raise ResultsError(
            f"{out} holds files that no report wrote ({shown}), and a report replaces its folder; "
            "choose a new or empty folder with --out"
        )


def _swap_in(out: Path, files: Mapping[str, bytes]) -> None:
    """Replace `out`, or the folder that it links to, by exactly these files; until then, it is unchanged."""
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = out.parent / f".{out.name}.{uuid.uuid4().hex}"
    fresh.mkdir()
    former = fresh.with_name(f"{fresh.name}.former")
    try:
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        while not _exchanged(out, fresh, former):
            shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


def _exchanged(out: Path, fresh: Path, former: Path) -> bool:
    """Rename `out` to `former`, and `fresh` to `out`; False where another process has put its report there."""
    with suppress(FileNotFoundError):
        out.rename(former)
    try:
        fresh.rename(out)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        if former.exists():
            former.rename(out)
        raise
    return True
