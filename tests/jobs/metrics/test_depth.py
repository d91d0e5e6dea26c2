import pytest
import torch

from jobs.data.prepare import open_dataset
from jobs.evaluate import object_views
from jobs.gaussian_sources import measured
from jobs.metrics.base import EvaluatedViews
from jobs.metrics.depth import AbsRel, Delta1
from model.types import Rendering

IMAGES = torch.zeros(1, 3, 2, 2)


def seen(depth: list[list[float]]) -> EvaluatedViews:
    return EvaluatedViews(IMAGES, depth=torch.tensor(depth).view(1, 1, 2, 2))


def test_known_errors_count_where_there_is_a_depth(weights):
    ours, theirs = seen([[2.2, 0.25], [5.0, 1.0]]), seen([[2.0, 0.5], [4.0, 0.0]])
    assert AbsRel(weights, "vgg")(ours, theirs, None).item() == pytest.approx((0.1 + 0.5 + 0.25) / 3)
    # 5/4 is not below 1.25.
    assert Delta1(weights, "vgg")(ours, theirs, None).item() == pytest.approx(1 / 3)
    for depth, is_defined in (0.0, False), (0.5, True):
        assert AbsRel(weights, "vgg").defined(seen([[0, depth], [0, 0]])).tolist() == [is_defined]


@pytest.fixture
def views(home, tiny):
    store = open_dataset("chairs", tiny()["data"]["options"], home)
    return store, object_views(store, next(store.split("test").itertuples()), 16)


def test_depth_is_that_of_what_is_drawn_and_the_far_bound_elsewhere(views):
    _, chair = views
    opacity = torch.zeros_like(chair.depth)
    opacity[..., :8, :], opacity[..., 8:12, :] = 0.8, 0.4
    inverse = opacity / 1.7
    found = EvaluatedViews.rendered(Rendering(chair.images, inverse, opacity), chair)
    torch.testing.assert_close(found.depth[:, :, :8], torch.full_like(found.depth[:, :, :8], 1.7))
    far = (chair.far if chair.origin_distance is None else chair.far + chair.origin_distance)[0]
    assert torch.equal(found.depth[:, :, 8:], far.view(-1, 1, 1, 1).expand_as(found.depth)[:, :, 8:])
    assert found.covered.float().mean() == 0.5


def test_a_surface_that_was_measured_has_nearly_its_own_depth_and_silhouette(views, weights):
    """Gaussians on the measured surface, whose depth and silhouette come from the rasteriser."""
    store, _ = views
    subject = measured(store)
    chair = subject.views
    rendering = subject.scene.render(chair.cameras, chair.background)
    whole = subject.scene.with_geometry(rendering, chair.cameras)
    assert torch.equal(whole.images, rendering.images)
    ours = EvaluatedViews.rendered(whole, chair)
    theirs = EvaluatedViews.true(chair, store.masks(chair.frames.numpy(), 16))
    # Thin parts are less than half covered at 16 pixels, and then count as missing.
    assert AbsRel(weights, "vgg")(ours, theirs, None).max() < 0.2
    assert Delta1(weights, "vgg")(ours, theirs, None).min() > 0.7
    both = ours.covered & theirs.covered & (theirs.depth > 0)
    assert ((ours.depth - theirs.depth).abs() / theirs.depth)[both].mean() < 0.08
    assert both.sum() / (ours.covered | theirs.covered).sum() > 0.65
