import pytest
import torch
from torch import nn

from jobs.adam import FlatAdam
from jobs.nonfinite import NonFiniteError, NonFiniteGuard
from model.scenes import GaussianScene
from model.types import Gaussians

NAN = float("nan")


def gaussians(count: int = 3) -> Gaussians:
    return Gaussians(
        means=torch.zeros(1, count, 3),
        scales=torch.ones(1, count, 3),
        rotations=torch.tensor([1.0, 0, 0, 0]).expand(1, count, 4),
        opacities=torch.full((1, count, 1), 0.5),
        sh=torch.zeros(1, count, 1, 3),
    )


@pytest.fixture
def weight() -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.0, 2.0]))


def steps(policy, weight, factors):
    """Runs Adam on `weight` with a loss that is multiplied by each factor in turn."""
    optimizer = FlatAdam(weight, lr=0.1, eps=1e-8)
    guard = NonFiniteGuard(policy, torch.device("cpu"))
    counted = []
    for iteration, factor in enumerate(factors):
        term = weight.square().sum() * factor
        weight.grad = None
        term.backward()
        counts = guard.watch(iteration, {"l2": term}, weight)
        optimizer.step(counts)
        counted.append(bool(counts))
    return guard, counted


def test_skip_leaves_weights_and_adam_as_if_the_step_had_not_been(weight):
    other = nn.Parameter(weight.detach().clone())
    _, counted = steps("skip", weight, [1, NAN, 1, 1])
    steps("skip", other, [1, 1, 1])
    assert counted == [True, False, True, True]
    assert torch.equal(weight, other)


def test_stop_freezes_the_weights_until_the_host_looks(weight):
    other = nn.Parameter(weight.detach().clone())
    guard, counted = steps("stop", weight, [1, NAN, 1, 1])
    steps("stop", other, [1])
    assert counted == [True, False, False, False]
    assert torch.equal(weight, other)
    with pytest.raises(NonFiniteError, match=r"iteration 1: loss 'l2' is nan; Gaussians: means 0..0"):
        guard.raise_if_bad(GaussianScene(gaussians()))


def test_a_gradient_that_is_not_finite_is_distinguished_from_a_loss(weight):
    guard = NonFiniteGuard("stop", torch.device("cpu"))
    term = (weight - weight.detach()).square().sum().sqrt()  # 0, with slope 0 * infinity
    term.backward()
    guard.watch(3, {"edge": term}, weight)
    with pytest.raises(NonFiniteError, match=r"iteration 3: the norm of the gradient of edge is not finite, although"):
        guard.raise_if_bad(GaussianScene(gaussians()))


def test_ignore_lets_everything_through(weight):
    guard, counted = steps("ignore", weight, [1, NAN])
    assert counted == [True, True]
    assert weight.isnan().all()
    guard.raise_if_bad(GaussianScene(gaussians()))


def test_good_steps_raise_nothing(weight):
    guard, counted = steps("stop", weight, [1, 1])
    assert counted == [True, True]
    guard.raise_if_bad(GaussianScene(gaussians()))


def test_a_loss_that_starts_after_the_bad_step_is_not_named(weight):
    guard = NonFiniteGuard("stop", torch.device("cpu"))
    weight.grad = torch.zeros(2)
    guard.watch(0, {"l2": torch.tensor(NAN)}, weight)
    guard.watch(1, {"l2": torch.tensor(NAN), "edge": torch.tensor(NAN)}, weight)
    with pytest.raises(NonFiniteError, match=r"iteration 0: loss 'l2' is nan; Gaussians"):
        guard.raise_if_bad(GaussianScene(gaussians()))


def test_a_scene_that_cannot_be_drawn_ends_training_or_does_not_count():
    scene, device = GaussianScene(gaussians()), torch.device("cpu")
    assert not NonFiniteGuard("skip", device).undrawn(4, "scales are infinite", scene)
    with pytest.raises(NonFiniteError, match=r"iteration 4: scales are infinite; Gaussians: means 0..0"):
        NonFiniteGuard("stop", device).undrawn(4, "scales are infinite", scene)
