"""Checks of a search's settings; `sweep.file.checks` compares its space with the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from model.methods import METHODS
from results.metrics import PUBLISHED, split_column
from sweep.file.diagnostics import Finding
from sweep.file.overrides import flatten
from sweep.file.schema import CONTROLS, Search, Sweep
from sweep.plan.conditions import condition_findings
from sweep.search.space import count_points, examples, is_continuous


def search_findings(search: Search, seeds: Sequence[int], evaluation: object) -> Iterator[Finding]:
    """Mistakes in a search; `evaluation` is the section `eval` of `base`, possibly invalid."""
    section = evaluation if isinstance(evaluation, Mapping) else {}
    yield from _method_findings(search)
    yield from _sampler_findings(search)
    metric, measured = split_column(search.metric)[1], section.get("metrics") or PUBLISHED
    if isinstance(measured, list | tuple) and metric not in measured and "eval.metrics" not in search.space.axes:
        message = f"is not among base.eval.metrics: {', '.join(map(str, measured))}"
        yield Finding(("search", "metric"), message, search.metric)
    if search.pruner != "none":
        yield from _pruner_findings(search, seeds, section.get("every"))


def space_findings(search: Search) -> Iterator[Finding]:
    """Mistakes in the conditions of a search's space."""
    axes = {key: axis.choices for key, axis in search.space.axes.items()}
    yield from condition_findings(axes, search.space.when, ("search", "space", "when"), "this space")


def proposal_findings(sweep: Sweep) -> Iterator[Finding]:
    """A mistake where a search would propose trials that train nothing; all configurations are valid."""
    untrained = next((config for config in examples(sweep) if not config.iterations), None)
    if untrained is not None:
        why = "train.stages is empty" if untrained.is_trained else f"model.name is {untrained.model.name}"
        yield Finding(("search",), f"proposes trials that train nothing: {why}")


def _method_findings(search: Search) -> Iterator[Finding]:
    trained = tuple(name for name in METHODS if name not in CONTROLS)
    for key, axis in search.space.axes.items():
        for index, choice in enumerate(axis.choices or ()):
            for setting in flatten(choice, ("search", "space", key, index), key):
                if setting.keys == ("model", "name") and setting.value in CONTROLS:
                    yield Finding(setting.origin, "a search needs methods that are trained", setting.value, trained)


def _sampler_findings(search: Search) -> Iterator[Finding]:
    path = ("search", "sampler")
    space = search.space
    numbers = [key for key, axis in space.axes.items() if axis.choices is None and key not in space.when]
    if search.sampler == "cmaes" and len(numbers) < 2:
        message = "adapts a covariance, so it needs two or more axes of numbers without conditions in the space"
        yield Finding(path, message, search.sampler)
    if search.sampler != "grid":
        return
    endless = [key for key, axis in space.axes.items() if is_continuous(axis)]
    if endless:
        message = f"needs axes with finitely many values: give a step, int or a list for {', '.join(endless)}"
        yield Finding(path, message, search.sampler)
    count = count_points(search)
    if count is not None and search.trials > count:
        yield Finding(("search", "trials"), f"the grid has {count} points only", search.trials)


def _pruner_findings(search: Search, seeds: Sequence[int], every: object) -> Iterator[Finding]:
    path = ("search", "pruner")
    if every is None and "eval.every" not in search.space.axes:
        message = "compares trials by evaluations during training, and there are none: set base.eval.every"
        yield Finding(path, message, search.pruner)
    if not search.metric.startswith("novel_"):
        message = "compares trials during training, where only novel views count: choose their metric, or pruner none"
        yield Finding(path, message, search.pruner)
    if len(seeds) > 1:
        message = "compares single trials, and here a configuration is the mean of several seeds: give one seed"
        yield Finding(path, message, search.pruner)
