from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from model.geometry import invert_rigid
from model.methods.splatter_image.backbones.unet import UNet
from model.methods.splatter_image.camera_embedding import POSE_CHANNELS
from model.methods.splatter_image.heads import GaussianHead, gaussian_groups
from model.methods.splatter_image.predictor import Frustums, GaussianPredictor, place
from model.precision import tf32
from model.types import Cameras, Context, Views

HEAD = {
    "depth_scale": 1.0,
    "depth_bias": 0.0,
    "offset_scale": 0.1,
    "offset_bias": 0.0,
    "opacity_scale": 1.0,
    "opacity_bias": -2.0,
    "scale_scale": 0.003,
    "scale_bias": 0.02,
}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def views(world_to_camera: torch.Tensor, size: int, focal: float, near: float, far: float) -> Views:
    batch, count = world_to_camera.shape[:2]
    dtype = world_to_camera.dtype
    cameras = Cameras(
        world_to_camera,
        focal=torch.full((batch, count, 2), focal, dtype=dtype),
        principal=torch.full((batch, count, 2), size / 2, dtype=dtype),
        height=size,
        width=size,
    )
    return Views(
        images=torch.rand(batch, count, 3, size, size, dtype=dtype),
        cameras=cameras,
        near=torch.full((batch,), near, dtype=dtype),
        far=torch.full((batch,), far, dtype=dtype),
        background=torch.ones(batch, 3, dtype=dtype),
        frames=torch.zeros(batch, count, dtype=torch.int64),
    )


def random_poses(batch: int, count: int) -> torch.Tensor:
    pose = torch.eye(4).double().repeat(batch, count, 1, 1)
    pose[..., :3, :3] = torch.linalg.qr(torch.randn(batch, count, 3, 3, dtype=torch.float64)).Q
    pose[..., :3, :3] *= torch.det(pose[..., :3, :3]).sign()[..., None, None]
    pose[..., :3, 3] = torch.randn(batch, count, 3).double()
    return pose


def raw_maps(batch: int, count: int, size: int) -> dict[str, torch.Tensor]:
    return {
        group.name: torch.randn(batch, count, group.channels, size, size).double() for group in gaussian_groups(HEAD, 1)
    }


def test_without_offset_every_gaussian_lies_behind_its_own_pixel():
    size, focal = 6, 7.0
    source = views(random_poses(2, 2), size, focal, near=1.0, far=3.0)
    raw = raw_maps(2, 2, size)
    raw["offset"].zero_()
    means = place(raw, Frustums.of(source)).means.unflatten(1, (2, size * size))
    pose = source.cameras.world_to_camera
    in_camera = means @ pose[..., :3, :3].transpose(-1, -2) + pose[..., None, :3, 3]
    depth = in_camera[..., 2]
    assert depth.min() > 1.0
    assert depth.max() < 3.0
    pixels = focal * in_camera[..., :2] / depth[..., None] + size / 2
    columns = torch.arange(size).double() + 0.5
    torch.testing.assert_close(pixels[..., 0], columns.repeat(size).expand(2, 2, -1))
    torch.testing.assert_close(pixels[..., 1], columns.repeat_interleave(size).expand(2, 2, -1))


def test_moving_the_world_moves_the_gaussians_with_it():
    raw = raw_maps(1, 1, 4)
    pose, motion = random_poses(1, 1), random_poses(1, 1)
    here = place(raw, Frustums.of(views(pose, 4, 5.0, 1.0, 2.0)))
    there = place(raw, Frustums.of(views(pose @ invert_rigid(motion), 4, 5.0, 1.0, 2.0)))
    moved = here.means @ motion[0, 0, :3, :3].T + motion[0, 0, :3, 3]
    torch.testing.assert_close(there.means, moved)
    torch.testing.assert_close(there.scales, here.scales)
    torch.testing.assert_close(there.rotations.norm(dim=-1), torch.ones(1, 16).double())


def test_head_starts_as_configured():
    head = GaussianHead(gaussian_groups(HEAD, 1))
    raw = head(torch.zeros(1, head.channels, 2, 2))
    assert {name: part.shape[1] for name, part in raw.items()} == {
        "depth": 1,
        "offset": 3,
        "opacity": 1,
        "scale": 3,
        "rotation": 4,
        "sh_dc": 3,
        "sh_rest": 9,
    }
    assert raw["opacity"].eq(-2).all()
    torch.testing.assert_close(raw["scale"].exp(), torch.full((1, 3, 2, 2), 0.02))
    spread = dict(zip(head.sizes, head.out.weight.split(list(head.sizes.values())), strict=True))
    assert spread["sh_rest"].abs().max() == 0
    # The bound of a group has its own width as fan-out.
    bound = 5.0 * (6 / (head.channels + 3)) ** 0.5
    assert 0.9 * bound < spread["sh_dc"].abs().max() <= bound


def test_degree_zero_has_no_further_harmonics():
    head = GaussianHead(gaussian_groups(HEAD, 0))
    assert "sh_rest" not in head.sizes
    assert head.channels == 15


def test_the_distance_of_the_origin_is_added_to_the_depth():
    source = views(random_poses(2, 2), 4, 5.0, near=-2.0, far=2.0)
    raw = raw_maps(2, 2, 4)
    raw["offset"].zero_()
    distance = torch.tensor([[3.0, 4.0], [5.0, 6.0]]).double()
    means = place(raw, Frustums.of(replace(source, origin_distance=distance))).means.unflatten(1, (2, 16))
    pose = source.cameras.world_to_camera
    depth = (means @ pose[..., :3, :3].transpose(-1, -2) + pose[..., None, :3, 3])[..., 2]
    expected = torch.sigmoid(raw["depth"]).flatten(2) * 4 - 2 + distance[..., None]
    torch.testing.assert_close(depth, expected)


def predictor(camera_channels: int = 0) -> GaussianPredictor:
    torch.manual_seed(0)
    unet = UNet(resolution=8, base_dim=8, num_blocks=1, channel_mult=(1, 2), camera_channels=camera_channels)
    made = GaussianPredictor(unet, GaussianHead(gaussian_groups(HEAD, 1))).eval().double()
    for parameter in made.parameters():  # the initial ones hide much behind tiny gains
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def test_gaussians_of_all_views_stand_one_view_after_the_other():
    source = views(random_poses(2, 2), 8, 9.0, 1.0, 2.0)
    both = predictor().gaussians(source, Context())
    assert both.means.shape == (2, 2 * 64, 3)
    swapped = replace(
        source,
        images=source.images.flip(1),
        cameras=replace(source.cameras, world_to_camera=source.cameras.world_to_camera.flip(1)),
    )
    torch.testing.assert_close(
        predictor().gaussians(swapped, Context()).means.unflatten(1, (2, 64)).flip(1).flatten(1, 2), both.means
    )


def test_a_network_with_a_camera_vector_hears_where_the_cameras_are():
    source = views(random_poses(1, 2), 8, 9.0, 1.0, 2.0)
    moved = replace(source, cameras=replace(source.cameras, world_to_camera=random_poses(1, 2)))
    for channels, hears in ((0, False), (POSE_CHANNELS, True)):
        network = predictor(channels)
        here, there = network.gaussians(source, Context()), network.gaussians(moved, Context())
        assert torch.equal(here.opacities, there.opacities) != hears


def test_positions_keep_their_digits_in_bfloat16(monkeypatch):
    source = views(random_poses(2, 1), 8, 9.0, 1.0, 2.0).to(torch.float32)
    raw = {name: part.float() for name, part in raw_maps(2, 1, 8).items()}
    network = predictor().float()
    with torch.autocast("cpu", torch.bfloat16):
        assert network.gaussians(source, Context()).means.dtype == torch.float32
        monkeypatch.setattr(network, "raw_maps", lambda *_: raw)
        found = network.gaussians(source, Context())
    assert torch.equal(found.means, place(raw, Frustums.of(source)).means)


def test_the_second_gaussian_of_a_pixel_lies_a_positive_step_behind_the_first():
    source = views(random_poses(2, 1), 4, 5.0, near=1.0, far=3.0)
    raw, behind = raw_maps(2, 1, 4), raw_maps(2, 1, 4)
    raw["offset"].zero_()
    behind["offset"].zero_()
    del behind["depth"]
    step = torch.randn(2, 1, 1, 4, 4).double()
    both = place(raw | {"second_step": step} | {f"second_{n}": part for n, part in behind.items()}, Frustums.of(source))
    alone = place(raw, Frustums.of(source))
    assert both.means.shape == (2, 32, 3)
    for name in ("means", "scales", "rotations", "opacities", "sh"):
        assert torch.equal(getattr(both, name)[:, :16], getattr(alone, name)), "the first ones are as ever"
    pose = source.cameras.world_to_camera[:, 0]
    depth = (both.means @ pose[:, :3, :3].transpose(1, 2) + pose[:, None, :3, 3])[..., 2]
    expected = torch.log1p(step.exp()).flatten(1) * 2  # softplus, in parts of far - near
    torch.testing.assert_close(depth[:, 16:] - depth[:, :16], expected)


def test_a_head_of_two_gaussians_starts_the_second_close_behind():
    one, two = (GaussianHead(gaussian_groups(HEAD, 1, count)) for count in (1, 2))
    assert two.channels == 2 * one.channels
    raw = two(torch.zeros(1, two.channels, 2, 2))
    torch.testing.assert_close(torch.nn.functional.softplus(raw["second_step"]), torch.full((1, 1, 2, 2), 0.1))
    assert raw["second_opacity"].eq(-2).all()


def test_gaussians_are_placed_in_full_precision(monkeypatch):
    """The backbone has the precision that training chose."""
    happened: list[str] = []

    @contextmanager
    def watched(_: torch.device) -> Iterator[None]:
        happened.append("enter")
        yield
        happened.append("leave")

    monkeypatch.setattr("model.methods.splatter_image.predictor.full_precision", watched)
    made = predictor()
    made.backbone.register_forward_hook(lambda *_: happened.append("backbone"))
    made.geometry = lambda raw, frustums: happened.append("place") or place(raw, frustums)
    made.gaussians(views(torch.eye(4).double().expand(1, 1, 4, 4), 8, 8.0, near=1.0, far=3.0), Context())
    assert happened == ["enter", "leave", "backbone", "enter", "place", "leave"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_with_tf32_gaussians_are_placed_as_on_a_cpu():
    source = views(random_poses(2, 2), 8, 8.0, near=1.0, far=3.0).to(torch.float32)
    raw = {name: part.float() for name, part in raw_maps(2, 2, 8).items()}
    expected = place(raw, Frustums.of(source))
    made = predictor().float().cuda()
    made.raw_maps = lambda *_: {name: part.cuda() for name, part in raw.items()}
    with tf32(True):
        actual = made.gaussians(source.to("cuda"), Context())
    for name in ("means", "rotations", "sh"):
        torch.testing.assert_close(getattr(actual, name).cpu(), getattr(expected, name), rtol=1e-5, atol=1e-5)
