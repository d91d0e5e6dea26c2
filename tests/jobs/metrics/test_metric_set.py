from typing import Any, ClassVar, Literal

import pytest
import torch

import jobs.metrics
from jobs.metrics.base import EvaluatedViews, Metric
from jobs.metrics.metric_set import MAX_VIEWS, MetricSet
from jobs.metrics.psnr import psnr
from results.metrics import PUBLISHED

ALL = {"novel": torch.tensor([True, True])}


def seen(images: torch.Tensor) -> EvaluatedViews:
    return EvaluatedViews(images)


def test_clamped_scores_differ_only_where_a_render_leaves_the_range(weights):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 32, 32, generator=generator)
    render = target * 0.9
    render[1] = target[1] + 0.3
    kinds = {"conditioned": torch.tensor([True, False]), "novel": torch.tensor([False, True])}
    scores = MetricSet(PUBLISHED, "alex", weights)(seen(render), seen(target), kinds)
    values = {(score.view_kind, score.metric): score.value for score in scores}
    assert set(values) == {(kind, f"{name}{end}") for kind in kinds for name in PUBLISHED for end in ("", "_clamped")}
    for name in PUBLISHED:
        assert values["conditioned", name] == values["conditioned", f"{name}_clamped"]
    clamped = psnr(render[1:].clamp(0, 1), target[1:])
    assert values["novel", "psnr_clamped"] == pytest.approx(clamped.item())
    assert values["novel", "psnr_clamped"] > values["novel", "psnr"]


def test_many_views_are_compared_in_groups_and_all_count(monkeypatch):
    sizes = []

    class Squared(Metric):
        """A metric of each view that records how many it receives."""

        def reference(self, target: EvaluatedViews) -> torch.Tensor:
            sizes.append(len(target.images))
            return target.images.mean((1, 2, 3))

        def forward(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> torch.Tensor:
            sizes.append(len(render.images))
            return (render.images.mean((1, 2, 3)) - reference) ** 2

    monkeypatch.setitem(jobs.metrics.METRICS, "squared", "unused:unused")
    monkeypatch.setattr("jobs.metrics.metric_set.find_metric", lambda _: lambda *_: Squared(None, "vgg"))
    number = 2 * MAX_VIEWS + 3
    target = torch.zeros(number, 3, 4, 4)
    render = torch.linspace(0, 2, number).view(-1, 1, 1, 1).expand_as(target)
    kinds = {"conditioned": torch.arange(number) < 1, "novel": torch.arange(number) >= 1}
    scores = MetricSet(["squared"], "vgg", None)(seen(render), seen(target), kinds)
    values = {(score.view_kind, score.metric): score.value for score in scores}
    errors = render[1:, 0, 0, 0].double()
    assert values["novel", "squared"] == pytest.approx((errors**2).mean().item())
    assert values["novel", "squared_clamped"] == pytest.approx((errors.clamp(max=1) ** 2).mean().item())
    assert values["conditioned", "squared"] == 0
    assert max(sizes) == MAX_VIEWS


def test_views_without_a_defined_metric_are_in_no_mean(weights):
    target = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    covered = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    covered[0, 0, :4] = True
    render = target.clone()
    render[0] += 0.1
    measure = MetricSet(["psnr_masked"], "vgg", weights)
    scores = {s.metric: s.value for s in measure(seen(render), EvaluatedViews(target, covered), ALL)}
    assert scores["psnr_masked"] == pytest.approx(20, abs=1e-3), "of the first view alone"
    nowhere = EvaluatedViews(target, torch.zeros_like(covered))
    assert measure(seen(render), nowhere, ALL) == []


def test_a_metric_of_a_set_has_one_number_for_all_views_of_a_kind(weights, monkeypatch):
    class Spread(Metric):
        """A metric of a set of views: the largest minus the smallest error."""

        per: ClassVar[Literal["view", "set"]] = "set"

        def reference(self, target: EvaluatedViews) -> torch.Tensor:
            return target.images.mean((1, 2, 3))

        def forward(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> torch.Tensor:
            errors = render.images.mean((1, 2, 3)) - reference
            return errors.max() - errors.min()

    monkeypatch.setitem(jobs.metrics.METRICS, "spread", "unused:unused")
    monkeypatch.setattr("jobs.metrics.metric_set.find_metric", lambda _: Spread)
    target = torch.full((3, 3, 4, 4), 0.5)
    render = target + torch.tensor([0.1, 0.2, 0.7]).view(3, 1, 1, 1)
    kinds = {"conditioned": torch.tensor([True, True, False]), "novel": torch.tensor([False, False, True])}
    scores = MetricSet(["spread"], "vgg", weights)(seen(render), seen(target), kinds)
    values = {(score.view_kind, score.metric): score.value for score in scores}
    assert values["conditioned", "spread"] == pytest.approx(0.1, abs=1e-6)
    assert values["novel", "spread"] == values["novel", "spread_clamped"] == 0
    assert len(values) == 4


@pytest.mark.parametrize(
    ("per", "make", "found"),
    [
        ("view", lambda error: error.mean(1), r"a tensor of shape \(2, 4, 4\); .* of shape \(2,\)"),
        ("view", lambda error: error.mean(), r"a tensor of shape \(\); .* of shape \(2,\)"),
        ("view", lambda error: error.mean().item(), "float"),
        ("set", lambda error: error.mean((1, 2, 3)), r"a tensor of shape \(2,\); .* of shape \(\)"),
    ],
)
def test_values_of_another_shape_are_refused(weights, per, make, found):
    class Odd(Metric):
        def forward(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> torch.Tensor:
            return make((render.images - target.images).abs())

    Odd.per = per
    images = torch.zeros(2, 3, 4, 4)
    with pytest.raises(TypeError, match=f"Odd returned {found}"):
        Odd(weights, "alex")(seen(images), seen(images), None)
