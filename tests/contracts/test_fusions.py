"""Contract of every fusion with every source that it accepts: shapes, precisions, layouts, independent views."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model.context import SOURCES
from model.fusion import FUSION
from model.fusion.base import Fusion, context_type_for
from model.registry import resolve
from model.types import Context

WAYS = {name: resolve(FUSION, name, "fusion") for name in FUSION}
PAIRS = [
    (name, source) for name, way in WAYS.items() for source in SOURCES if context_type_for(way, source) is not None
]
CHANNELS, SIZE = 16, 8
VALUES = {"vector": (12,), "tokens": (9, 12), "map": (1, 16, 16)}


@pytest.fixture(params=PAIRS, ids="-".join)
def fusion(request) -> Fusion:
    name, source = request.param
    context_type = context_type_for(WAYS[name], source)
    return WAYS[name](source, context_type, width=1 if context_type == "map" else 12)


@pytest.fixture
def modules(fusion) -> list[nn.Module]:
    """The modules that the fusion adds to a network, with weights large enough to have an effect."""
    torch.manual_seed(0)
    made = [fusion.input_module(), fusion.block_module(CHANNELS), fusion.bottleneck_module(CHANNELS)]
    made = [module for module in made if module is not None]
    for parameter in (p for module in made for p in module.parameters() if p.dim() > 1):
        nn.init.xavier_uniform_(parameter)
    return made


@pytest.fixture
def features() -> Tensor:
    """Feature maps of 2 objects with 2 views each, folded into the batch."""
    return torch.randn(4, CHANNELS, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def context(fusion) -> Context:
    values = torch.rand(2, 2, *VALUES[fusion.context_type], generator=torch.Generator().manual_seed(2))
    return Context(**{fusion.source: values})


def spatial(fusion: Fusion, features: Tensor) -> Tensor:
    """Features, enlarged to the maps' size where the fusion acts on the image itself."""
    return torch.nn.functional.interpolate(features, scale_factor=2) if fusion.input_channels else features


def test_enters_somewhere_and_keeps_the_size(fusion, modules, features, context):
    assert modules
    x = spatial(fusion, features)
    for module in modules:
        assert module(x, context).shape == (4, CHANNELS + fusion.input_channels, *x.shape[2:])


def test_says_something_of_its_own_view_only(fusion, modules, features, context):
    x = spatial(fusion, features)
    values = context.get(fusion.source).clone()
    values[1, 0] = values[1, 0].flip(-1) ** 2
    for module in modules:
        changed = (module(x, Context(**{fusion.source: values})) - module(x, context)).flatten(1).abs().amax(1)
        assert changed[2] > 1e-3
        assert changed[[0, 1, 3]].max() == 0


def test_double_precision_and_memory_layout_change_only_rounding(fusion, modules, features, context):
    x = spatial(fusion, features)
    for module in modules:
        single = module(x, context)
        layout = module.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), context)
        double = module.double()(x.double(), context.to(torch.float64))
        assert double.dtype == torch.float64
        torch.testing.assert_close(layout, single, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_finite_differences(fusion, modules, features, context):
    x = spatial(fusion, features)[:2, :, :4, :4].double().requires_grad_()
    values = context.get(fusion.source)[:1].double()
    values = values[..., :4, :4] if fusion.input_channels else values
    for module in modules:
        module.double()
        assert torch.autograd.gradcheck(
            lambda h, m=module: m(h, Context(**{fusion.source: values})), (x,), fast_mode=True
        )


def test_a_missing_source_is_named(fusion, modules, features):
    for module in modules:
        with pytest.raises(ValueError, match=fusion.source):
            module(features, Context())


def test_acts_at_the_place_it_names_and_nowhere_else(fusion):
    modules = {
        "input": fusion.input_module(),
        "block": fusion.block_module(CHANNELS),
        "bottleneck": fusion.bottleneck_module(CHANNELS),
    }
    assert {place for place, module in modules.items() if module is not None} == {fusion.place}
