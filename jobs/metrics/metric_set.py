"""Computes the metrics of a trial's evaluation together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from jobs.metrics import find_metric
from jobs.metrics.base import EvaluatedViews, Metric
from jobs.precision import products
from model.weights import WeightStore
from results.metrics import CLAMPED, METRICS

#: Maximum number of views of a batch, which bounds the memory of their features.
MAX_VIEWS = 16


class Score(NamedTuple):
    """A metric's mean over the views of one kind that an object has."""

    view_kind: str
    metric: str
    value: float


class MetricSet(nn.Module):
    """Several metrics; `lpips` is the variant of LPIPS, "vgg" or "alex"."""

    def __init__(self, names: Sequence[str], lpips: str, store: WeightStore) -> None:
        super().__init__()
        self.members = nn.ModuleDict({name: find_metric(name)(store, lpips) for name in names})

    @property
    def of_truth(self) -> frozenset[str]:
        """Ground truth that the members need besides colours."""
        return frozenset(need for name in self.members for need in METRICS[name].of_truth)

    @property
    def of_geometry(self) -> bool:
        """Whether a member needs the rendering's opacity or inverse depth."""
        return any(METRICS[name].of_rendering for name in self.members)

    @torch.inference_mode()
    @products("float32")
    def forward(self, render: EvaluatedViews, target: EvaluatedViews, kinds: Mapping[str, Tensor]) -> list[Score]:
        """Scores of one object, whose N views each belong to one of the `kinds`, (N,) bool.

        A metric of colours has a second score, `NAME_clamped`, of renders clamped to [0, 1].  A kind without a view
        for which a metric is defined has no score.
        """
        scores = []
        for name, metric in self._metrics().items():
            defined = metric.defined(target)
            chosen = {kind: views & defined for kind, views in kinds.items() if (views & defined).any()}
            compute = _of_sets if metric.per == "set" else _of_views
            for variant, values in compute(metric, render, target, chosen).items():
                scores += [Score(kind, f"{name}{variant}", value) for kind, value in values.items()]
        return scores

    def _metrics(self) -> Mapping[str, Metric]:
        return self.members  # type: ignore[return-value]


#: Suffix of the metric's name -> kind of views -> value.
_Values = dict[str, dict[str, float]]


def _of_views(metric: Metric, render: EvaluatedViews, target: EvaluatedViews, chosen: Mapping[str, Tensor]) -> _Values:
    groups = torch.arange(len(target.images), device=target.images.device).split(MAX_VIEWS)
    parts = [_of_group(metric, render.where(group), target.where(group)) for group in groups]
    per_view = {variant: torch.cat([part[variant] for part in parts]) for variant in parts[0]}
    return {
        variant: {kind: values[views].mean().item() for kind, views in chosen.items()}
        for variant, values in per_view.items()
    }


def _of_group(metric: Metric, render: EvaluatedViews, target: EvaluatedViews) -> dict[str, Tensor]:
    """Values (N,) by suffix of the metric's name."""
    reference = metric.reference(target)
    per_view = {"": metric(render, target, reference).double()}
    if metric.of_colours:
        per_view[CLAMPED] = per_view[""].clone()
        clamped = render.clamped()
        outside = (clamped.images != render.images).flatten(1).any(1)
        if outside.any():  # other views do not change by clamping, and LPIPS is slow
            again = metric(clamped.where(outside), target.where(outside), _where(reference, outside))
            per_view[CLAMPED][outside] = again.double()
    return per_view


def _of_sets(metric: Metric, render: EvaluatedViews, target: EvaluatedViews, chosen: Mapping[str, Tensor]) -> _Values:
    reference = metric.reference(target)
    variants = {"": render} | ({CLAMPED: render.clamped()} if metric.of_colours else {})
    return {
        variant: {
            kind: metric(seen.where(views), target.where(views), _where(reference, views)).double().item()
            for kind, views in chosen.items()
        }
        for variant, seen in variants.items()
    }


def _where(reference: Any, views: Tensor) -> Any:
    """The part of a metric's reference that belongs to the views where this (N,) is true."""
    if isinstance(reference, Tensor):
        return reference[views]
    return None if reference is None else [part[views] for part in reference]
