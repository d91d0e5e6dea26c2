"""Costs of each trained row: parameters, training, one prediction, one render, memory."""

from __future__ import annotations

from results.costs import COSTS, KIND
from results.load import Evidence
from results.table import Table
from results.tables.auto import entries, with_axes
from results.tables.fill import Block, Entry, fill
from results.tables.metric_columns import named
from results.tables.options import Columns, Stem
from results.tables.options import Options as CommonOptions
from results.tables.row_notes import devices


class Options(CommonOptions):
    """Options of this kind of table."""

    name: Stem = "costs"
    caption: str = "Cost of each trained row: medians of one prediction and one render after a warm-up."
    #: empty means all costs
    columns: Columns = ()


def build(evidence: Evidence, options: Options) -> Table:
    """Means over seeds; a trial that was not measured has a dash, and a note with the command that measures it."""
    trained = entries(record for record in evidence.records if not record.planned.control)
    frame = Table(options.name, options.caption, (), (), notes=_notes(trained))
    quantities = options.columns or tuple(named(f"{KIND}_{name}") for name in COSTS)
    table = fill(frame, [Block(trained, ranked=False)], quantities, evidence, None)
    return with_axes(table, trained, evidence.plan.axes)


def _notes(trained: tuple[Entry, ...]) -> tuple[str, ...]:
    notes = [] if trained else ["The sweep has no trained rows."]
    found = devices(record for entry in trained for record in entry.records)
    if found:
        notes.append(
            "Times exclude frozen encoders and depth models, whose outputs are cached. Memory is "
            "that of the parameters, and the most that a prediction and a render allocate."
        )
    if len(found) == 1:
        notes.append(f"Measured on {found[0]}.")
    missing = [
        entry.label
        for entry in trained
        if any(record.state == "finished" for record in entry.records) and not devices(entry.records)
    ]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        notes.append(
            f"Not measured: {shown}; `splatsweep evaluate SWEEP --costs` measures finished rows, and evaluates none."
        )
    return tuple(notes)
