from dataclasses import replace

import pytest
import torch

from model.rasterizers import render
from model.scenes import GaussianScene, PictureScene
from model.types import SH_DC, Cameras, Gaussians, Pixels

NAN = float("nan")


def gaussians(count: int = 3) -> Gaussians:
    return Gaussians(
        means=torch.tensor([[[0.0, 0, 3], [0.5, 0, 4], [0, 0.5, 5]]])[:, :count],
        scales=torch.full((1, count, 3), 0.3),
        rotations=torch.tensor([1.0, 0, 0, 0]).expand(1, count, 4),
        opacities=torch.full((1, count, 1), 0.5),
        sh=torch.zeros(1, count, 1, 3),
    )


def cameras(views: int = 2, size: int = 8) -> Cameras:
    poses = torch.eye(4).repeat(1, views, 1, 1)
    poses[0, :, 0, 3] = torch.arange(views) * 0.2
    return Cameras(poses, torch.full((1, views, 2), 9.0), torch.full((1, views, 2), size / 2), size, size)


BACKGROUND = torch.tensor([[0.2, 0.4, 0.6]])
PIXELS = Pixels(torch.tensor([[0, 1, 1]]), torch.tensor([[3, 0, 7]]), torch.tensor([[4, 7, 2]]))


def test_a_scene_of_gaussians_is_what_the_rasteriser_draws():
    scene = GaussianScene(gaussians(), "reference", antialiasing=True)
    expected = render(gaussians(), cameras(), BACKGROUND, "reference", True)
    assert torch.equal(scene.render(cameras(), BACKGROUND).images, expected)


def test_opacity_is_what_white_gaussians_draw_over_black():
    scene = GaussianScene(gaussians(), "reference", antialiasing=True)
    white = replace(gaussians(), sh=torch.full((1, 3, 1, 3), 0.5 / SH_DC))
    black = torch.zeros(3)
    expected, inverse_depth = render(white, cameras(), black, "reference", True, return_depth=True)
    whole = scene.with_geometry(scene.render(cameras(), BACKGROUND), cameras())
    torch.testing.assert_close(whole.opacity, expected[:, :, :1])
    assert torch.equal(whole.inverse_depth, inverse_depth)


def test_pictures_are_drawn_where_the_scenes_own_rasteriser_cannot():
    """A network that trained with a CUDA rasteriser is looked at on a machine without a GPU."""
    shown = GaussianScene(gaussians(), "inria", antialiasing=True).for_pictures()
    expected = render(gaussians(), cameras(), BACKGROUND, "cpu", True)
    assert torch.equal(shown.render(cameras(), BACKGROUND).images, expected)
    assert GaussianScene(gaussians(), "reference").for_pictures().backend == "reference"


@pytest.mark.parametrize("scene", [GaussianScene(gaussians()), PictureScene(torch.rand(1, 3, 8, 8))])
def test_pixels_are_those_of_whole_views(scene):
    whole = scene.render(cameras(), BACKGROUND).images
    chosen = scene.render(cameras(), BACKGROUND, PIXELS).images
    assert chosen.shape == (1, 3, 3)
    for index in range(3):
        view, row, column = (int(part[0, index]) for part in (PIXELS.view, PIXELS.row, PIXELS.column))
        assert torch.equal(chosen[0, index], whole[0, view, :, row, column])


def test_a_picture_is_seen_alike_by_every_camera_of_its_size():
    picture = torch.rand(1, 3, 8, 8)
    images = PictureScene(picture).render(cameras(), BACKGROUND).images
    assert torch.equal(images, torch.stack([picture, picture], dim=1))
    with pytest.raises(ValueError, match=r"a picture of \(8, 8\) pixels for cameras of \(16, 16\)"):
        PictureScene(picture).render(cameras(size=16), BACKGROUND)


def test_an_empty_picture_is_the_background():
    images = PictureScene(None).render(cameras(), BACKGROUND).images
    assert torch.equal(images, BACKGROUND[:, None, :, None, None].expand(1, 2, 3, 8, 8))


@pytest.mark.parametrize("part", ["means", "scales", "rotations", "opacities", "sh"])
def test_gaussians_that_are_not_finite_become_invisible_and_get_no_gradient(part):
    whole = gaussians()
    spoilt = getattr(whole, part).clone()
    spoilt[0, 1].fill_(NAN)
    spoilt.requires_grad_()
    parts = {name: getattr(whole, name) for name in Gaussians.__slots__} | {part: spoilt}
    kept = GaussianScene(Gaussians(**parts)).without_non_finite().gaussians
    assert kept.opacities[0, :, 0].tolist() == [0.5, 0, 0.5]
    total = sum(getattr(kept, name).sum() for name in Gaussians.__slots__)
    assert total.isfinite()
    total.backward()
    assert spoilt.grad[0, 1].abs().sum() == 0
    assert (spoilt.grad[0, ::2] == 1).all()
