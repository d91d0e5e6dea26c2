import torch

from model.fusion.positional import position_code

CPU = torch.device("cpu")


def test_every_place_has_a_code_of_its_own():
    code = position_code(16, 16, 12, CPU, torch.float64).flatten(1)
    distances = torch.cdist(code.T, code.T) + 10 * torch.eye(16 * 12)
    assert distances.min() > 0.3


def test_grids_of_different_sizes_agree_on_where_things_are():
    fine, coarse = position_code(8, 24, 15, CPU, torch.float64), position_code(8, 8, 5, CPU, torch.float64)
    torch.testing.assert_close(fine[:, 1::3, 1::3], coarse)


def test_is_half_down_and_half_across():
    code = position_code(8, 6, 5, CPU, torch.float32)
    assert code.shape == (8, 6, 5)
    assert torch.equal(code[:4], code[:4, :, :1].expand(-1, -1, 5))
    assert torch.equal(code[4:], code[4:, :1].expand(-1, 6, -1))


def test_can_be_trained_with_after_an_evaluation_made_it():
    position_code.cache_clear()
    with torch.inference_mode():
        position_code(4, 3, 3, CPU, torch.float32)
    scale = torch.ones((), requires_grad=True)
    (scale * position_code(4, 3, 3, CPU, torch.float32)).sum().backward()
    assert scale.grad.isfinite()
