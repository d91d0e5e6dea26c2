"""The files of a report: tables in every format, figures, pictures, and the page that holds them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name

from results.figures import grid
from results.figures.style import save
from results.gallery import Gallery, TrialSamples, Turntable, galleries, median, read_turntable, representative
from results.illustrations import Illustration, illustrate
from results.load import Evidence
from results.records.plan import RecordedTrial
from results.records.tags import artifact_hash
from results.records.trial_folder import SAMPLES_FILENAME, TURNTABLE_FILENAME
from results.render import PAGE_FILENAME, RENDERERS
from results.render import html as page
from results.runs import Run
from results.table import Table

#: trained trials whose pictures are shown; the first of the plan
MOST_PICTURED = 12


@dataclass(frozen=True)
class ReportFiles:
    """The content of each file of a report but its manifest."""

    files: Mapping[str, bytes]
    #: whether every picture that the runs recorded could be read
    has_all_pictures: bool

    @classmethod
    def of(
        cls, evidence: Evidence, tables: Sequence[Table], notes: str | None, labels: Mapping[str, str]
    ) -> ReportFiles:
        """The report of a sweep; `notes` and `labels` are those of its file."""
        figures = illustrate(evidence, tables)
        shown = _pictured(evidence)
        samples, turntables = evidence.samples_of(shown), _turntables(evidence, shown)
        pictures = _pictures(samples)
        files = {**_table_files(tables), **_figure_files(figures), **_picture_files(pictures)}
        files |= {f"turntable_{turntable.key}.gif": turntable.animation for turntable in turntables}
        files[PAGE_FILENAME] = page.render(evidence, tables, figures, pictures, turntables, notes, labels).encode()
        recorded = {SAMPLES_FILENAME: len(samples), TURNTABLE_FILENAME: len(turntables)}
        has_all = all(
            sum(artifact_hash(run.tags, name) is not None for _, run in shown) <= found
            for name, found in recorded.items()
        )
        return cls(files, has_all)


def _pictured(evidence: Evidence) -> list[tuple[RecordedTrial, Run]]:
    """The trials whose pictures are shown: of each name the first finished seed."""
    first: dict[str, tuple[RecordedTrial, Run]] = {}
    for record in evidence.records:
        if record.run and record.state == "finished":
            first.setdefault(record.planned.name, (record.planned, record.run))
    trained = [trial for trial in first.values() if not trial[0].control]
    return trained[:MOST_PICTURED] + [trial for trial in first.values() if trial[0].control]


def _pictures(samples: Sequence[TrialSamples]) -> list[Gallery]:
    """Galleries of the best, the median and the worst of the recorded objects."""
    return [representative(gallery) for gallery in galleries(samples)]


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
    """One grid is `samples.png`; trials that rendered other views get `samples_2.png` and so on.

    `samples_median.png` has the median object alone, for a paper or a README.
    """
    stems = ["samples", *(f"samples_{number}" for number in range(2, len(pictures) + 1))]
    grids: dict[str, Gallery | None] = {}
    for stem, gallery in zip(stems, pictures, strict=False):
        grids |= {f"{stem}.png": gallery, f"{stem}_median.png": median(gallery)}
    return {name: grid.png(grid.draw(gallery)) for name, gallery in grids.items() if gallery is not None}
