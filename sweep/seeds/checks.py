"""Checks of a rule that adds seeds: a baseline, comparable rows, and the metric that decides."""

from __future__ import annotations

from collections.abc import Iterator

from jobs.config import TrialConfig
from results.metrics import determines_object_scores, split_column
from sweep.file.checks import metric_findings
from sweep.file.diagnostics import Finding
from sweep.file.schema import Sweep
from sweep.plan.grid import expand
from sweep.seeds.rows import baseline_of


def seed_findings(sweep: Sweep) -> Iterator[Finding]:
    """Mistakes in the rule of a sweep with valid configurations."""
    rule = sweep.seed_rule
    if rule is None:
        return
    if sweep.search is not None:
        yield Finding(("seeds",), "a search needs a list of seeds: its trials are not compared with a baseline")
        return
    named = expand(sweep)
    try:
        baseline = baseline_of(sweep, named)
    except ValueError as error:
        yield Finding(("seeds",), str(error))
        return
    rows = dict(named)
    reference = rows[baseline]
    compared = {name: config for name, config in rows.items() if config.iterations and name != baseline}
    if not reference.iterations or not compared:
        yield Finding(("seeds",), f"there is nothing to decide: {baseline!r} is not trained, or no other row is")
    if found := list(metric_findings(rule.metric, compared | {baseline: reference}, ("seeds", "metric"))):
        yield from found
        return
    for name, config in compared.items():
        objects = [(c.data.name, c.data.options, c.eval.split, c.eval.objects) for c in (config, reference)]
        if objects[0] != objects[1]:
            message = f"row {name!r} is evaluated on other objects than the baseline {baseline!r}: give a list of seeds"
            yield Finding(("seeds",), message)
        elif differing := _measured_otherwise(config, reference, split_column(rule.metric)[1]):
            message = f"row {name!r} is evaluated otherwise than the baseline {baseline!r} ({differing})"
            yield Finding(("seeds",), f"{message}: give a list of seeds")


def _measured_otherwise(config: TrialConfig, reference: TrialConfig, metric: str) -> str:
    """The settings of the evaluation that make scores of two rows incomparable, in words; "" without any."""
    own, other = config.settings(), reference.settings()
    keys = [key for key in own if determines_object_scores(key, metric) and own[key] != other.get(key)]
    return ", ".join(f"{key} {own[key]} instead of {other.get(key)}" for key in keys)
