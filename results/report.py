"""Build a sweep's report: tables in every format, figures, and one page that holds it all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name

from results.errors import ResultsError
from results.figures import curves as curves_figure
from results.figures import grid
from results.figures.style import inline_svg, save
from results.gallery import Gallery, galleries
from results.load import Evidence, SweepLike, read_evidence
from results.render import RENDERERS
from results.render import html as page
from results.table import Table
from results.tables import TABLES


def build_report(sweep: SweepLike, home: Path, out: Path | None = None, tables: Sequence[str] = ("auto",)) -> Path:
    """Write the report of `sweep` to `out`, by default `home/reports/<sweep name>/`; returns its index.html.

    Each file is replaced as a whole, so a reader never sees half of one; equal results give equal bytes.
    A sweep that is half done, or failed, gets a report that says so.  Raises `ResultsError` for a sweep that
    was never planned, a store that cannot be read, or an unknown table.
    """
    home = Path(home)
    out = Path(out) if out is not None else home / "reports" / sweep.name
    unknown = [name for name in tables if name not in TABLES]
    if unknown:
        raise ResultsError(f"unknown table {unknown[0]!r}; allowed: {', '.join(sorted(TABLES))}")
    evidence = read_evidence(sweep, home)
    built = _tables(evidence, tables)
    pictures = galleries(evidence.samples)
    files = {**_table_files(built), **_picture_files(pictures)}
    figure = curves_figure.draw(evidence.curves([panel.metric for panel in curves_figure.PANELS]))
    if figure is not None:
        files |= {f"curves.{kind}": save(figure, kind) for kind in ("pdf", "png")}
    svg = None if figure is None else inline_svg(figure)
    files["index.html"] = page.render(evidence, built, svg, pictures).encode()
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        _replace(out / name, content)
    return out / "index.html"


def _tables(evidence: Evidence, names: Sequence[str]) -> list[Table]:
    results, trials = evidence.results(), evidence.trials()
    return [resolve_name(TABLES[name])(results, trials) for name in names]


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
