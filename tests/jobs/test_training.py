import numpy as np
import pytest
import torch
from pydantic import ValidationError

from jobs.config import LossTerm, Stage, TrialConfig
from jobs.step import compared_views
from jobs.training import Averages
from model.types import Rendering


def test_a_weight_starts_late_and_grows_linearly():
    term = LossTerm(weight=0.6, start=10, ramp=2)
    assert [term.weight_at(step) for step in (0, 9)] == [0, 0]
    assert [term.weight_at(step) for step in (10, 11, 12, 500)] == pytest.approx([0.2, 0.4, 0.6, 0.6])
    assert LossTerm(weight=0.1).weight_at(0) == 0.1


def test_a_plain_number_is_a_weight_without_more():
    stage = {"iterations": 1, "lr": 0.1}
    short = Stage.model_validate(stage | {"losses": {"l2": 1, "tv": {"weight": 0.1, "start": 0}}})
    assert short.model_dump(mode="json")["losses"] == {"l2": 1.0, "tv": 0.1}
    full = Stage.model_validate(stage | {"losses": {"l2": 1, "tv": {"weight": 0.1, "start": 5}}})
    assert full.model_dump(mode="json")["losses"]["tv"] == {"weight": 0.1, "start": 5, "ramp": 0, "views": None}
    assert Stage.model_validate(full.model_dump(mode="json")) == full


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ({"l2": True}, "must be a weight, or a mapping with weight, start, ramp and views"),
        ({"l2": {"weight": 1.0, "start": 3}}, "one of the losses must start at 0"),
        ({"l2": {"weight": 1.0, "begin": 3}}, "begin"),
        ({"l2": {"weight": 1.0, "views": 9}}, "train.stages.0.losses.l2.views 9 is more than train.views_per_object 4"),
    ],
)
def test_what_makes_no_sense_as_a_loss_is_refused(losses, message):
    with pytest.raises(ValidationError, match=message):
        TrialConfig.model_validate({"train": {"stages": [{"iterations": 5, "lr": 0.1, "losses": losses}]}})


def test_a_subset_of_views_shows_every_view_equally_often_and_pairs_stay_together():
    batch, views, kept = 3, 4, 2
    images = torch.arange(batch * views).view(batch, views, 1, 1, 1).expand(-1, -1, 3, 2, 2).float()
    term, target = LossTerm(weight=1.0, views=kept), Rendering(images)
    rendering = Rendering(images + 0.5, opacity=-images)
    counts = np.zeros(batch * views)
    for iteration in range(600):
        index = compared_views(term, images, 7, iteration)
        ours, theirs = rendering.take(index), target.take(index)
        assert ours.images.shape == (batch, kept, 3, 2, 2)
        assert torch.equal(ours.images, theirs.images + 0.5)
        assert torch.equal(ours.opacity, -theirs.images)
        seen = theirs.images[:, :, 0, 0, 0].long().numpy()
        assert (seen // views == np.arange(batch)[:, None]).all()
        counts[seen.ravel()] += 1
    # Binomial(600, 1/2): five standard deviations are 61.
    assert (abs(counts - 300) < 61).all()
    again = compared_views(term, images, 7, 5)
    assert torch.equal(again, compared_views(term, images, 7, 5))
    assert not torch.equal(again, compared_views(term, images, 8, 5))


def test_all_views_are_compared_without_a_subset():
    assert compared_views(LossTerm(weight=1.0), torch.rand(2, 3, 3, 4, 4), 0, 0) is None


def test_averages_leave_out_what_does_not_count_and_survive_a_checkpoint():
    averages = Averages()
    yes, no = torch.tensor(True), torch.tensor(False)
    averages.add({"l2": torch.tensor(2.0)}, yes, 0.5)
    averages.add({"l2": torch.tensor(float("nan"))}, no, 0.5)
    averages = Averages(**averages.plain())
    averages.add({"l2": torch.tensor(4.0)}, yes, 0.5)
    assert averages.seconds == 1.5
    assert averages.take() == {"train/l2": 3.0, "train/skipped": pytest.approx(1 / 3)}
    assert averages.steps == 0


def test_a_loss_that_starts_late_is_averaged_over_the_steps_that_have_it():
    averages, yes = Averages(), torch.tensor(True)
    for _ in range(2):
        averages.add({"loss": torch.tensor(1.0), "l2": torch.tensor(1.0)}, yes, 0.1)
    for _ in range(2):
        averages.add({"loss": torch.tensor(3.0), "l2": torch.tensor(1.0), "lpips": torch.tensor(0.4)}, yes, 0.1)
    assert averages.take() == {"train/loss": 2.0, "train/l2": 1.0, "train/lpips": pytest.approx(0.4)}


def test_without_a_step_that_counts_there_is_no_mean():
    averages = Averages()
    averages.add({"loss": torch.tensor(float("nan"))}, torch.tensor(False), 0.1)
    assert averages.take() == {"train/skipped": 1.0}


def test_reading_averages_changes_no_bit():
    values = torch.rand(40, generator=torch.Generator().manual_seed(0)).unbind()
    undisturbed, read = Averages(), Averages()
    for value in values:
        undisturbed.add({"loss": value}, torch.tensor(True), 0.1)
        read.add({"loss": value}, torch.tensor(True), 0.1)
        read = Averages(**read.plain())
    assert read.take() == undisturbed.take()
