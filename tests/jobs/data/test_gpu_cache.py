import numpy as np
import pytest
import torch

from jobs.data import gpu_cache
from jobs.data.prepare import open_dataset
from tests.conftest import TINY_DATA

#: Replaces a GPU where there is none: its tensors have shapes, but no values.
META = torch.device("meta")
DEVICES = [pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


@pytest.fixture
def store(prepared_home):
    gpu_cache._on_device.cache_clear()
    return open_dataset(TINY_DATA["name"], TINY_DATA["options"], prepared_home)


def test_a_device_with_room_holds_the_whole_array(store, monkeypatch):
    monkeypatch.setattr(gpu_cache, "_free_memory", lambda _: 10 * store.images.nbytes)
    held = gpu_cache._on_device(store.path, "images", META)
    assert held.shape == store.images.shape
    assert gpu_cache._on_device(store.path, "images", META) is held
    frames = np.array([[3, 0], [1, 1]])
    assert gpu_cache.take(store.path, "images", store.images, frames, META).shape == (2, 2, *store.images.shape[1:])


def test_a_device_without_room_holds_nothing(store, monkeypatch):
    monkeypatch.setattr(gpu_cache, "_free_memory", lambda _: store.images.nbytes)
    assert gpu_cache._on_device(store.path, "images", META) is None


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("room", [0, 2**40])
def test_views_are_the_same_on_every_device(store, device, room, monkeypatch):
    monkeypatch.setattr(gpu_cache, "_free_memory", lambda _: room)
    frames = np.array([[3, 0, 1], [7, 6, 5]])
    here, there = store.views(frames, 16), store.views(frames, 16, device)
    assert there.images.device.type == device
    assert torch.equal(there.images.cpu(), here.images)
    assert torch.equal(there.depth.cpu(), here.depth)
    assert torch.equal(there.cameras.world_to_camera.cpu(), here.cameras.world_to_camera)
