"""Contract of every metric: finite, better for smaller errors, with its facts and declared needs."""

import pytest
import torch

from jobs.config import TrialConfig
from jobs.metrics import METRICS, find_metric
from jobs.metrics.base import EvaluatedViews, Metric
from jobs.metrics.metric_set import MetricSet
from model.weights import WEIGHTS
from results import metrics as facts

SIDE = 32


@pytest.fixture(params=METRICS)
def name(request) -> str:
    return request.param


@pytest.fixture
def metric(name, weights) -> Metric:
    return find_metric(name)(weights, "vgg")


def views(error: float = 0.0) -> EvaluatedViews:
    """Three views of a square that differ from the truth by `error`."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, SIDE, SIDE, generator=generator) + error * torch.randn(
        3, 3, SIDE, SIDE, generator=generator
    )
    covered = torch.zeros(3, 1, SIDE, SIDE, dtype=torch.bool)
    shift = round(20 * error)
    covered[:, :, 8 + shift : 24 + shift, 8:24] = True
    depth = torch.where(covered | (torch.arange(SIDE) > 4), 2.0 + 3 * error, 0.0)
    return EvaluatedViews(images, covered, depth)


def test_has_a_number_for_each_view_and_the_nearer_the_better(metric, name):
    truth = views()
    reference = metric.reference(truth)
    near, far = (metric(views(error), truth, reference) for error in (0.05, 0.4))
    assert near.shape == far.shape == ((3,) if metric.per == "view" else ())
    assert near.isfinite().all()
    better = near > far if facts.METRICS[name].direction == "up" else near < far
    assert better.all()


def test_what_it_needs_is_what_its_facts_name(metric, name):
    known = facts.METRICS[name]
    truth, render = views(), views(0.1)
    truth = EvaluatedViews(
        truth.images,
        truth.covered if "mask" in known.of_truth else None,
        truth.depth if "depth" in known.of_truth else None,
    )
    render = EvaluatedViews(
        render.images,
        render.covered if "opacity" in known.of_rendering else None,
        render.depth if "inverse_depth" in known.of_rendering else None,
    )
    assert metric.defined(truth).all()
    assert metric(render, truth, metric.reference(truth)).isfinite().all()


def test_the_truth_is_best(metric, name):
    truth = views()
    value = metric(truth, truth, metric.reference(truth))
    perfect = {"psnr": torch.inf, "psnr_masked": torch.inf}.get(
        name, 1.0 if facts.METRICS[name].direction == "up" else 0.0
    )
    torch.testing.assert_close(value.float(), torch.full_like(value, perfect, dtype=torch.float32), atol=1e-5, rtol=0)


def test_equal_views_have_equal_numbers_in_any_batch(metric):
    render, truth = views(0.1), views()
    together = metric(render, truth, metric.reference(truth))
    for view in range(3) if metric.per == "view" else ():
        ours, theirs = render.where(torch.tensor([view])), truth.where(torch.tensor([view]))
        torch.testing.assert_close(metric(ours, theirs, metric.reference(theirs))[0], together[view])


def test_trains_nothing_and_names_weights_that_the_table_knows(metric):
    assert not any(parameter.requires_grad for parameter in metric.parameters())
    assert set(type(metric).weights("vgg")) <= set(WEIGHTS)


def test_of_colours_is_true_where_colours_matter(metric):
    truth, render = views(), views(0.1)
    darker = EvaluatedViews(render.images * 0.9, render.covered, render.depth)
    reference = metric.reference(truth)
    same = torch.equal(metric(render, truth, reference), metric(darker, truth, reference))
    assert same is not metric.of_colours


def test_what_is_computed_and_how_it_reads_have_the_same_names():
    assert list(METRICS) == list(facts.METRICS)


def test_it_can_be_chosen_and_scored(name, weights):
    config = TrialConfig.model_validate({"eval": {"metrics": [name]}})
    assert config.metrics == (name,)
    scores = MetricSet(config.metrics, "vgg", weights)(views(0.1), views(), {"novel": torch.ones(3, dtype=torch.bool)})
    clamped = [name + facts.CLAMPED] if find_metric(name).of_colours else []
    assert [score.metric for score in scores] == [name, *clamped]
