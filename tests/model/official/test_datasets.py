import math

import pytest
import torch

from model.methods.splatter_image.heads import GaussianHead, gaussian_groups
from model.official.datasets import PUBLISHED, published_dataset


def test_focal_lengths_follow_from_the_field_of_view():
    assert PUBLISHED["cars"].focal(128) == pytest.approx(131.25, abs=1e-9)
    assert PUBLISHED["cars"].focal(32) == pytest.approx(131.25 / 4, abs=1e-9)
    assert math.degrees(2 * math.atan(32 / PUBLISHED["nmr"].focal(64))) == pytest.approx(30, abs=1e-5)


@pytest.mark.parametrize("name", ["hydrants", "teddybears"])
def test_where_views_have_their_own_focal_lengths_there_is_no_common_one(name):
    assert PUBLISHED[name].per_view
    with pytest.raises(ValueError, match="give `focal`"):
        PUBLISHED[name].focal(128)


def test_heads_start_as_published():
    head = GaussianHead(gaussian_groups(PUBLISHED["cars"].head.model_dump(), 1))
    raw = head(torch.zeros(1, head.channels, 1, 1))
    assert raw["opacity"].item() == -3
    assert raw["scale"].exp().flatten().tolist() == pytest.approx([0.02] * 3)
    spread = dict(zip(head.sizes, head.out.weight.split(list(head.sizes.values())), strict=True))
    for name, gain, width in (("offset", 1e-6, 3), ("opacity", 0.001, 1), ("scale", 0.001, 3), ("depth", 1.0, 1)):
        bound = gain * math.sqrt(6 / (24 + width))
        assert 0.5 * bound < spread[name].abs().max() <= bound, name


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="did you mean 'hydrants'"):
        published_dataset("hydrant")
