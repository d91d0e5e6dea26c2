"""What can be wrong with how a search goes about it; `sweep.file.checks` compares its space with a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sweep.file.diagnostics import Finding
from sweep.file.schema import Search
from sweep.search.space import count_points, is_continuous


def search_findings(search: Search, seeds: Sequence[int], every: object) -> Iterator[Finding]:
    """Mistakes in a search; `every` is `eval.every` of `base`."""
    yield from _sampler_findings(search)
    if search.pruner != "none":
        yield from _pruner_findings(search, seeds, every)


def _sampler_findings(search: Search) -> Iterator[Finding]:
    path = ("search", "sampler")
    numbers = [axis for axis in search.space.values() if axis.choices is None]
    if search.sampler == "cmaes" and len(numbers) < 2:
        yield Finding(path, "adapts a covariance, so it needs two or more axes of numbers in the space", search.sampler)
    if search.sampler != "grid":
        return
    endless = [key for key, axis in search.space.items() if is_continuous(axis)]
    if endless:
        message = f"needs axes with finitely many values: give a step, int or a list for {', '.join(endless)}"
        yield Finding(path, message, search.sampler)
    count = count_points(search)
    if count is not None and search.trials > count:
        yield Finding(("search", "trials"), f"the grid has {count} points only", search.trials)


def _pruner_findings(search: Search, seeds: Sequence[int], every: object) -> Iterator[Finding]:
    path = ("search", "pruner")
    if every is None and "eval.every" not in search.space:
        message = "judges trials by their evaluations while they train, and there are none: set base.eval.every"
        yield Finding(path, message, search.pruner)
    if not search.metric.startswith("novel_"):
        message = "judges trials while they train, when only novel views are: choose a metric of these, or pruner none"
        yield Finding(path, message, search.pruner)
    if len(seeds) > 1:
        message = "judges single trials, and here a configuration is the mean of several seeds: give one seed"
        yield Finding(path, message, search.pruner)
