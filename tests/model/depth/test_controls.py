import pytest
import torch

from model.depth.constant import ConstantDepth, ConstantOptions
from model.depth.oracle import OracleDepth
from model.depth.oracle_noisy import NoisyOracleDepth, NoisyOracleOptions
from model.depth.random import RandomDepth, RandomDepthOptions
from model.options import OptionsError, parse_options


@pytest.fixture
def depth():
    values = 2 + torch.rand(2, 1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    values[..., :5, :] = 0  # no surface
    values[1] *= 7  # another scene's scale
    return values


def noisy(**options):
    return NoisyOracleDepth(None, options=NoisyOracleOptions(**options))


def test_oracle_is_relative_inverse_depth(depth, make_views):
    oracle = OracleDepth(None)(make_views(depth=depth))
    surface = depth > 0
    assert (oracle[~surface] == 0).all()
    assert (oracle[surface] > 0).all()
    assert (oracle[surface] <= 1).all()
    # Up to one scale for each view, and the nearest hundredth of it, which is cut off at 1.
    ratio = (oracle * depth)[surface & (oracle < 1)].view(2, -1)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    cut_off = (oracle == 1).sum(dim=(2, 3, 4)) / surface[0].sum()
    assert ((cut_off > 0.005) & (cut_off < 0.02)).all()


def test_the_oracle_does_not_reveal_the_scale(depth, make_views):
    oracle = OracleDepth(None)
    torch.testing.assert_close(oracle(make_views(depth=depth)), oracle(make_views(depth=100 * depth)))


def test_oracle_of_an_empty_view_is_empty(depth, make_views):
    depth[0] = 0
    maps = OracleDepth(None)(make_views(depth=depth))
    assert (maps[0] == 0).all()
    assert maps.isfinite().all()


def test_oracle_needs_depth(make_views):
    with pytest.raises(ValueError, match="needs a dataset with depth"):
        OracleDepth(None)(make_views())


def test_noise_has_the_configured_strength_and_leaves_the_background(depth, make_views):
    views = make_views(depth=depth)
    truth, surface = OracleDepth(None)(views), depth > 0
    relative = noisy(sigma=0.1)(views)[surface] / truth[surface] - 1
    assert relative.std() == pytest.approx(0.1, rel=0.1)
    assert relative.mean().abs() < 0.02
    assert (noisy(sigma=3.0)(views) >= 0).all()
    assert (noisy(sigma=0.1)(views)[~surface] == 0).all()
    torch.testing.assert_close(noisy(sigma=0.0)(views), truth)


def test_noise_belongs_to_the_frame(depth, make_views):
    both = depth[:1].repeat(2, 1, 1, 1, 1)
    first = noisy()(make_views(depth=both, frames=(4, 9)))
    swapped = noisy()(make_views(depth=both, frames=(9, 4)))
    assert torch.equal(first, swapped.flip(0))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, noisy(seed=1)(make_views(depth=both, frames=(4, 9))))


def test_noise_is_that_of_earlier_trials(depth, make_views):
    views = make_views(depth=depth, frames=(4, 9))
    noise = (noisy(sigma=0.1, seed=3)(views) / OracleDepth(None)(views) - 1)[:, 0, 0, 31, 31] / 0.1
    torch.testing.assert_close(noise, torch.tensor([-0.28517, -0.03430]), rtol=0, atol=1e-4)


def test_levels_are_the_only_values(depth, make_views):
    maps = noisy(sigma=0.0, levels=5)(make_views(depth=depth))
    assert set(maps.unique().tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert len(maps.unique()) > 2


def test_constant_is_constant(make_views):
    maps = ConstantDepth(None, options=ConstantOptions(value=0.25))(make_views(16))
    assert maps.shape == (2, 1, 1, 16, 16)
    assert (maps == 0.25).all()


def test_controls_have_no_resolution():
    with pytest.raises(ValueError, match="resolution 64 for a depth control"):
        OracleDepth(None, resolution=64)


def random_map(views, **options):
    return RandomDepth(None, preprocess="published", options=RandomDepthOptions(**options))(views)


def test_random_is_a_function_of_the_seed_that_looks_at_the_picture(make_views):
    views = make_views(64)
    maps = random_map(views, of="midas_small", seed=1)
    assert maps.shape == (2, 1, 1, 64, 64)
    assert torch.equal(maps, random_map(views, of="midas_small", seed=1))
    assert not torch.allclose(maps, random_map(views, of="midas_small", seed=2))
    # Neither flat nor cut off, whatever the library starts training from.
    assert (maps.std(dim=(2, 3, 4)) > 0.05).all()
    assert (maps > 0).float().mean() > 0.9
    assert not torch.allclose(maps[0], maps[1])


def test_random_leaves_torchs_generator_alone(make_views):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    random_map(make_views(32))
    assert torch.equal(torch.rand(3), expected)


def test_random_has_only_architectures_that_can_be_untrained():
    with pytest.raises(OptionsError, match=r"unknown depth network 'zoedepth'; allowed: .*dpt_large"):
        parse_options(RandomDepthOptions, {"of": "zoedepth"}, choice="random", where="depth.options")
