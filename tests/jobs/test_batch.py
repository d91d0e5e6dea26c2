"""A step's batch: sources and targets by method, pixels as functions of seed and iteration, objects' boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from jobs.batch import draw_batch, foreground_boxes
from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from model.methods.base import Targets
from model.methods.splatter_image import SplatterImage

PIXELS = 300


@pytest.fixture
def store(home, tiny):
    data = tiny()["data"]
    return open_dataset(data["name"], data["options"], home)


@pytest.fixture
def draw(store, tiny, monkeypatch):
    """A function: (iteration, targets of the method, seed) -> the batch."""

    def make(iteration: int, targets: Targets, seed: int = 3, **model):
        monkeypatch.setattr(SplatterImage, "targets", classmethod(lambda *_: targets))
        train = {"batch_size": 2, "views_per_object": 3, "stages": [{"iterations": 9, "lr": 1, "losses": {"l2": 1}}]}
        config = TrialConfig.model_validate(tiny(train=train, seed=seed) | {"model": model})
        return draw_batch(store, store.split("train"), config, iteration)

    return make


def test_whole_views_have_their_sources_among_them(draw):
    batch = draw(4, Targets(), input_views=2)
    assert batch.pixels is None
    assert batch.seen.images.shape == (2, 3, 3, 16, 16)
    assert torch.equal(batch.source.images, batch.seen.images[:, :2])
    assert batch.target.images is batch.seen.images


def test_training_reads_no_depth(draw, store):
    assert store.depth is not None
    assert draw(0, Targets()).views.depth is None


def test_pixels_are_drawn_from_all_views_of_an_object(draw):
    batches = [draw(iteration, Targets(pixels=PIXELS), input_views=2) for iteration in range(40)]
    assert batches[0].source.images.shape[1] == 2
    assert batches[0].seen.images.shape[1] == 3
    found = [batch.seen.frames[:, :, None] == batch.source.frames[:, None] for batch in batches]
    share = torch.stack(found).any(-1).float().mean().item()
    assert share == pytest.approx(2 / 5, abs=0.1), "2 sources of 5 frames, and each as likely as any"
    # All cameras are seen from the first source.
    torch.testing.assert_close(batches[0].source.cameras.world_to_camera[:, 0], torch.eye(4).expand(2, 4, 4))


def test_pixels_are_everywhere_alike_and_the_targets_are_theirs(draw):
    batch = draw(0, Targets(pixels=40 * PIXELS))
    pixels = batch.pixels
    for place, count in ((pixels.view, 3), (pixels.row, 16), (pixels.column, 16)):
        drawn = np.bincount(place[0].numpy(), minlength=count)
        assert len(drawn) == count
        assert abs(drawn - drawn.mean()).max() < 5 * drawn.mean() ** 0.5
    view, row, column = (int(part[1, 7]) for part in (pixels.view, pixels.row, pixels.column))
    assert torch.equal(batch.target.images[1, 7], batch.seen.images[1, view, :, row, column])


def test_pixels_are_a_function_of_seed_and_iteration(draw):
    targets = Targets(pixels=PIXELS)
    once, again = draw(5, targets).pixels, draw(5, targets).pixels
    assert torch.equal(once.view, again.view)
    assert torch.equal(once.row, again.row)
    for other in (draw(6, targets).pixels, draw(5, targets, seed=4).pixels):
        assert not torch.equal(once.row, other.row)


def test_at_first_pixels_lie_in_the_box_of_the_object(draw, store):
    targets = Targets(pixels=PIXELS, in_box_until=3)
    batch = draw(2, targets)
    coverage = store.masks(batch.seen.frames.numpy(), 16)
    boxes = foreground_boxes(batch.seen, coverage)
    box = boxes[torch.arange(2)[:, None], batch.pixels.view]
    for axis, place in enumerate((batch.pixels.row, batch.pixels.column)):
        assert (place >= box[:, :, axis, 0]).all()
        assert (place <= box[:, :, axis, 1]).all()
        assert (place == box[:, :, axis, 1]).any(), "its last line belongs to it"
    assert (boxes[..., 1] - boxes[..., 0]).max() < 15
    assert draw(3, targets).pixels.row.min() == 0


def test_boxes_are_found_by_masks_or_colours(draw):
    views = draw(0, Targets()).seen
    images = views.background[:, None, :, None, None].expand(2, 3, 3, 16, 16).clone()
    images[0, 1, 2, 4:7, 9] = 0.5  # one channel differs
    boxes = foreground_boxes(replace(views, images=images))
    assert boxes[0, 1].tolist() == [[4, 6], [9, 9]]
    assert boxes[1, 2].tolist() == [[0, 15], [0, 15]], "nothing is there, so anything may be looked at"
    coverage = torch.zeros(2, 3, 1, 16, 16)
    coverage[1, 0, 0, 3, 2:12] = 0.2
    assert foreground_boxes(views, coverage)[1, 0].tolist() == [[3, 3], [2, 11]]
