"""One row per configuration, in the plan's order; trivial baselines stand below a rule and are not ranked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from results.load import Evidence, TrialRecord
from results.table import Table
from results.tables.baseline import find_baseline
from results.tables.fill import Block, Entry, fill, with_texts
from results.tables.metric_columns import measured
from results.tables.options import Columns, Stem
from results.tables.options import Options as CommonOptions
from results.tables.select import configurations

#: description of each trivial baseline; its trial's name may continue after a space
_TRIVIAL = {
    "blank": "blank (the background colour everywhere)",
    "copy_input": "copy_input (the input view for every target)",
}


class Options(CommonOptions):
    """Options of this kind of table."""

    name: Stem = "auto"
    caption: str = "Reconstruction quality per trial: mean over views, then over objects."
    #: empty means the metrics that the trials are judged by, on both kinds of views
    columns: Columns = ()
    #: name of the trial that all others are compared with; null means the sweep file's, or one of the usual names
    baseline: str | None = None


def build(evidence: Evidence, options: Options) -> Table:
    """Means over objects per seed, then over seeds.  A NaN among the values makes the mean NaN."""
    trained = entries(record for record in evidence.records if not record.planned.control)
    controls = entries(record for record in evidence.records if record.planned.control)
    baseline, comparison = find_baseline(trained, evidence, options.baseline)
    notes = (*_trivial_notes([entry.label for entry in controls]), *comparison)
    frame = Table(options.name, options.caption, (), (), notes=notes)
    quantities = options.columns or measured(record.planned.plain_config for record in evidence.records)
    table = fill(frame, [Block(trained), Block(controls, ranked=False)], quantities, evidence, baseline)
    return with_texts(table, _axes(trained))


def entries(records: Iterable[TrialRecord]) -> tuple[Entry, ...]:
    """A row for each configuration, with the name of its trials."""
    return tuple(Entry(group[0].planned.name, group) for group in configurations(records))


def _axes(rows: Sequence[Entry]) -> dict[str, dict[str, str]]:
    """Axis -> row -> value, from the names of a grid's points, such as `model=midas_small fusion=input`."""
    axes: dict[str, dict[str, str]] = {}
    for entry in rows:
        settings = [setting.partition("=") for setting in entry.label.split(" ")]
        if all(name and sign for name, sign, _ in settings):
            for name, _, value in settings:
                axes.setdefault(name, {})[entry.label] = value
    return {axis: values for axis, values in axes.items() if len(set(values.values())) > 1}


def _trivial_notes(labels: Sequence[str]) -> tuple[str, ...]:
    known = dict.fromkeys(label.split()[0] for label in labels if label.split()[0] in _TRIVIAL)
    if not known:
        return ()
    return (f"Below the rule, without training: {' and '.join(_TRIVIAL[name] for name in known)}.",)
