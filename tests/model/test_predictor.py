import math

import pytest
import torch

from model.geometry import invert_rigid
from model.heads import GaussianHead, gaussian_groups
from model.predictor import GaussianPredictor, place
from model.types import Cameras, Context, Views
from model.unet import TAIL_CHANNELS, UNet

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
    pose[..., :3, :3] = torch.linalg.qr(torch.randn(batch, count, 3, 3).double()).Q
    pose[..., :3, :3] *= torch.det(pose[..., :3, :3]).sign()[..., None, None]
    pose[..., :3, 3] = torch.randn(batch, count, 3).double()
    return pose


def raw_maps(batch: int, count: int, size: int) -> dict[str, torch.Tensor]:
    return {
        group.name: torch.randn(batch, count, group.channels, size, size).double() for group in gaussian_groups(HEAD, 1)
    }


@pytest.fixture
def reference(fixtures, load_published):
    """The reference's cars predictor with our modules, its input views, and its Gaussians in float64."""
    content = torch.load(fixtures / "predictor_cars_1view.pt", weights_only=True)
    config, state = content["config"], content["state_dict"]
    unet = UNet(resolution=32, base_dim=16, num_blocks=1, attention_resolutions=(16,))
    load_published(unet, state, 32, prefix="network_with_offset.encoder.")
    head = GaussianHead(gaussian_groups(HEAD, 1))
    head.out.load_state_dict({name: state[f"network_with_offset.out.{name}"] for name in ("weight", "bias")})
    view_to_world = content["view_to_world"].double().transpose(-1, -2)
    focal = 16 / math.tan(math.radians(config["fov"]) / 2)
    source = views(invert_rigid(view_to_world), 32, focal, config["znear"], config["zfar"])
    object.__setattr__(source, "images", content["x"].double())
    return GaussianPredictor(unet, head).eval().double()(source, Context()), content["out_f64"]


def test_gaussians_are_the_references(reference):
    ours, theirs = reference
    # The reference keeps its ray directions in single precision.
    torch.testing.assert_close(ours.means, theirs["xyz"], atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.rotations, theirs["rotation"], atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.opacities, theirs["opacity"], atol=1e-12, rtol=0)
    torch.testing.assert_close(ours.scales, theirs["scaling"], atol=1e-12, rtol=0)
    sh = torch.cat([theirs["features_dc"], theirs["features_rest"]], dim=2)
    torch.testing.assert_close(ours.sh, sh, atol=1e-7, rtol=0)


def test_without_offset_every_gaussian_lies_behind_its_own_pixel():
    size, focal = 6, 7.0
    source = views(random_poses(2, 2), size, focal, near=1.0, far=3.0)
    raw = raw_maps(2, 2, size)
    raw["offset"].zero_()
    means = place(raw, source).means.unflatten(1, (2, size * size))
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
    here = place(raw, views(pose, 4, 5.0, 1.0, 2.0))
    there = place(raw, views(pose @ invert_rigid(motion), 4, 5.0, 1.0, 2.0))
    moved = here.means @ motion[0, 0, :3, :3].T + motion[0, 0, :3, 3]
    torch.testing.assert_close(there.means, moved)
    torch.testing.assert_close(there.scales, here.scales)
    torch.testing.assert_close(there.rotations.norm(dim=-1), torch.ones(1, 16).double())


def test_head_starts_as_configured():
    head = GaussianHead(gaussian_groups(HEAD, 1))
    raw = head(torch.zeros(1, TAIL_CHANNELS, 2, 2))
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
    bound = 5.0 * (6 / (TAIL_CHANNELS + 3)) ** 0.5
    assert 0.9 * bound < spread["sh_dc"].abs().max() <= bound


def test_degree_zero_has_no_further_harmonics():
    assert "sh_rest" not in GaussianHead(gaussian_groups(HEAD, 0)).sizes
