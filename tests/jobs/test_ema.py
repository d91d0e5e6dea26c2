import pytest
import torch
from torch import nn

from jobs.config import EmaConfig
from jobs.ema import MovingAverage, ema_decay


def test_decay_is_the_published_schedule():
    config = EmaConfig()
    assert ema_decay(101, config) == 0
    assert ema_decay(25_001, config) == pytest.approx(0.9988, abs=5e-5)
    assert ema_decay(5_001, config) == pytest.approx(0.9965, abs=5e-5)
    assert ema_decay(10_000_000, config) == 0.9999


def test_average_follows_at_every_tenth_step_and_copies_until_it_starts():
    live = nn.Linear(1, 1, bias=False)
    average = MovingAverage(live, EmaConfig())
    expected = 0.0
    for step in range(1, 200):
        nn.init.constant_(live.weight, float(step))
        average.update(step)
        if step % 10 == 1:
            decay = max(0.0, 1 - (1 + max(step - 101, 0)) ** (-2 / 3))
            expected = decay * expected + (1 - decay) * step
        assert average.network.weight.item() == pytest.approx(expected, rel=1e-6)
    assert not average.network.weight.requires_grad


def test_a_stage_that_follows_starts_from_the_average():
    live = nn.Linear(2, 2)
    average = MovingAverage(live, EmaConfig())
    nn.init.zeros_(live.weight)
    assert average.network.weight.abs().sum() > 0
    average.copy_to_live()
    assert torch.equal(live.weight, average.network.weight)


def test_without_configuration_the_network_is_its_own_average():
    live = nn.Linear(2, 2)
    average = MovingAverage(live, None)
    average.update(1)
    assert average.network is live


def test_statistics_of_batches_are_the_networks_own():
    live = nn.BatchNorm1d(2)
    average = MovingAverage(live, EmaConfig(every=1))
    live(torch.randn(8, 2) + 3)
    average.update(1)
    assert torch.equal(average.network.running_mean, live.running_mean)
    assert average.network.num_batches_tracked == 1
