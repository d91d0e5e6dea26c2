import numpy as np
import pytest
import torch

from jobs.data import gpu_cache
from jobs.data.prepare import open_dataset
from jobs.data.resample import area_mean
from tests.conftest import TINY_DATA

#: Replaces a GPU where there is none: its tensors have shapes, but no values.
META = torch.device("meta")
DEVICES = [pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


@pytest.fixture
def store(prepared_home):
    gpu_cache._held.clear()
    return open_dataset(TINY_DATA["name"], TINY_DATA["options"], prepared_home)


def test_a_device_with_room_holds_the_whole_array(store, monkeypatch):
    monkeypatch.setattr("jobs.memory.free_gpu_memory", lambda _: 10 * store.images.nbytes)
    held = gpu_cache._on_device(store.path, "images", META)
    assert held.shape == store.images.shape
    assert gpu_cache._on_device(store.path, "images", META) is held
    frames = np.array([[3, 0], [1, 1]])
    assert gpu_cache.take(store.path, "images", store.images, frames, META).shape == (2, 2, *store.images.shape[1:])


def test_a_device_without_room_holds_nothing(store, monkeypatch):
    monkeypatch.setattr("jobs.memory.free_gpu_memory", lambda _: store.images.nbytes)
    assert gpu_cache._on_device(store.path, "images", META) is None


def test_a_trial_of_another_dataset_finds_the_memory_free(store, monkeypatch, tmp_path):
    """Whether it fits, and its measured peak, must not depend on the trials that its process ran before."""
    watched = []
    monkeypatch.setattr(gpu_cache, "watch_gpu_memory", lambda: watched.append(dict(gpu_cache._held)))
    for name, room in (("images", 10 * store.images.nbytes), ("depth", 0)):
        monkeypatch.setattr("jobs.memory.free_gpu_memory", lambda _, room=room: room)
        gpu_cache._on_device(store.path, name, META)
    gpu_cache.keep_only(store.path)
    assert [name for _, name, _ in gpu_cache._held] == ["images"], "what did not fit may fit now"
    assert not watched
    gpu_cache.keep_only(tmp_path)
    assert watched == [{}], "after the arrays are gone"


@pytest.mark.gpu
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("room", [0, 2**40])
@pytest.mark.parametrize("side", [16, 12])
def test_views_are_the_same_on_every_device(store, device, room, side, monkeypatch):
    monkeypatch.setattr("jobs.memory.free_gpu_memory", lambda _: room)
    frames = np.array([[3, 0, 1], [7, 6, 5]])
    here, there = store.views(frames, side), store.views(frames, side, device)
    assert there.images.device.type == device
    # A GPU divides by a constant as it multiplies by its inverse, and sums in another order.
    torch.testing.assert_close(there.images.cpu(), here.images, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(there.depth.cpu(), here.depth, rtol=1e-6, atol=1e-7)
    assert torch.equal(there.cameras.world_to_camera.cpu(), here.cameras.world_to_camera)


@pytest.mark.parametrize("side", [8, 6])
def test_pictures_are_resampled_on_their_own_device(side):
    """6 does not divide 16, so pixels are weighted by constants, which are made where the pictures are."""
    assert area_mean(torch.zeros(2, 3, 16, 16, dtype=torch.uint8, device=META), side).shape == (2, 3, side, side)
