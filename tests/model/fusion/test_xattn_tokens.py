import pytest
import torch

from model.fusion.xattn_tokens import TokenCrossAttention
from model.types import Context


@pytest.fixture
def block():
    torch.manual_seed(0)
    module = TokenCrossAttention("semantic", "tokens", 10).block_module(16)
    torch.nn.init.normal_(module.out.weight)
    return module


def test_queries_learn_where_one_vector_leaves_them_nothing_to_choose(block):
    block(torch.randn(2, 16, 6, 6), Context(semantic=torch.randn(2, 1, 9, 10))).square().sum().backward()
    for layer in (block.query_norm, block.query):
        assert layer.weight.grad.abs().max() > 1e-3
    assert block.key_value.weight.grad.abs().amax(dim=(1, 2, 3)).min() > 0


def test_sees_where_a_patch_is(block):
    h, tokens = torch.randn(1, 16, 6, 6), torch.randn(1, 1, 9, 10)
    moved = tokens[:, :, torch.randperm(9, generator=torch.Generator().manual_seed(0))]
    difference = block(h, Context(semantic=moved)) - block(h, Context(semantic=tokens))
    assert difference.abs().max() > 0.1


def test_tokens_beside_the_patches_are_refused(block):
    with pytest.raises(ValueError, match="10 tokens are no square"):
        block(torch.randn(1, 16, 6, 6), Context(semantic=torch.randn(1, 1, 10, 10)))
