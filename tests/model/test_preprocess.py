import numpy as np
import pytest
import torch
from PIL import Image

from model.preprocess import CLIP, next_multiple, prepare, resize


@pytest.fixture
def picture():
    # PIL cuts off after each direction, so there is room for overshoots.
    return torch.randint(80, 176, (1, 3, 20, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("side", [9, 33])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizes_like_pil(picture, side, interpolation):
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    image = Image.fromarray(picture[0].permute(1, 2, 0).numpy())
    expected = torch.from_numpy(np.array(image.resize((side, side), filters[interpolation]))).permute(2, 0, 1)
    resized = prepare(picture / 255, (side, side), None, None, interpolation=interpolation)
    # PIL rounds to bytes, once for each direction.
    torch.testing.assert_close(255 * resized[0], expected.float(), rtol=0, atol=1.5)


def test_published_resize_takes_the_four_nearest_pixels():
    ramp = torch.arange(4.0).expand(1, 3, 4, 4) / 4
    small = prepare(ramp, (2, 2), None, None, interpolation="bilinear", antialias=False)
    torch.testing.assert_close(small[0, 0, 0], torch.tensor([0.5, 2.5]) / 4)


def test_normalises_by_channel(picture):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in CLIP)
    torch.testing.assert_close(prepare(picture / 255, None, *CLIP), (picture / 255 - mean) / std)


def test_bicubic_overshoot_is_cut_off():
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    resized = prepare(edge, (32, 32), None, None)
    assert resized.min() == 0
    assert resized.max() == 1


def test_the_same_size_is_the_same_tensor(picture):
    assert resize(picture, (20, 20), interpolation="bicubic") is picture
    assert resize(picture, None, interpolation="bicubic") is picture


@pytest.mark.parametrize(("length", "expected"), [(1, 14), (14, 14), (15, 28), (128, 140)])
def test_next_multiple(length, expected):
    assert next_multiple(length, 14) == expected
