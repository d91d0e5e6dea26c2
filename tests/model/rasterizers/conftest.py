"""Random scenes of every kind that a rasteriser must handle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from model.rasterizers import cpu, reference
from model.rasterizers.reference import TRANSMITTANCE_MIN, alpha_maps, project, select
from model.types import Cameras, Gaussians

GAUSSIAN_TENSORS = ("means", "scales", "rotations", "opacities", "sh")
NEAR = 0.2
ROUNDING = 3e-5  # relative; float32 may decide otherwise about an alpha or transmittance this close to its threshold


@dataclass(frozen=True)
class Scene:
    """Arguments of `render` in float32, and weights (B, V, 3, H, W) whose product with its images gives a scalar."""

    gaussians: Gaussians
    cameras: Cameras
    background: Tensor
    weights: Tensor


def _uniform(low: float, high: float, *shape: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _needles(g: Gaussians, random: torch.Generator) -> Gaussians:
    thin = torch.tensor([1.0, 1e-3, 1e-4]) * _uniform(0.2, 1.0, *g.scales.shape[:2], 1, generator=random)
    return Gaussians(g.means, thin, g.rotations, g.opacities, g.sh)


def _near_plane(g: Gaussians, random: torch.Generator) -> Gaussians:
    """Depths in front of and behind the near plane of a camera 2 away that looks along z, and some exactly on it."""
    z = _uniform(NEAR - 0.3, NEAR + 0.3, *g.means.shape[:2], generator=random)
    z[:, ::4] = NEAR
    means = torch.stack([g.means[..., 0] * 0.2, g.means[..., 1] * 0.2, z - 2], dim=-1)
    return Gaussians(means, g.scales, g.rotations, g.opacities, g.sh)


KINDS: dict[str, Callable[[Gaussians, torch.Generator], Gaussians]] = {
    "ordinary": lambda g, _: g,
    "tiny": lambda g, _: Gaussians(g.means, g.scales * 1e-4, g.rotations, g.opacities, g.sh),
    "points": lambda g, _: Gaussians(g.means, g.scales * 0, g.rotations, g.opacities, g.sh),
    "huge": lambda g, _: Gaussians(g.means, g.scales * 50, g.rotations, g.opacities * 0.3, g.sh),
    "needles": _needles,
    "opaque": lambda g, _: Gaussians(g.means, g.scales, g.rotations, torch.ones_like(g.opacities), g.sh),
    "transparent": lambda g, _: Gaussians(g.means, g.scales, g.rotations, g.opacities * 0.003, g.sh),
    "coincident": lambda g, _: Gaussians(
        g.means[:, :1].expand_as(g.means).contiguous(), g.scales, g.rotations, g.opacities, g.sh
    ),
    "off screen": lambda g, _: Gaussians(g.means * 8, g.scales, g.rotations, g.opacities, g.sh),
    "behind": lambda g, _: Gaussians(g.means * 5, g.scales, g.rotations, g.opacities, g.sh),
    "near plane": _near_plane,
    "unnormalised": lambda g, _: Gaussians(g.means, g.scales, g.rotations * 1.3, g.opacities, g.sh),
}


def _camera(yaw: float, pitch: float) -> Tensor:
    """World to camera (4, 4) of a camera 2 away from the origin and looking at it."""
    c, s, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    about_y = torch.tensor([[c, 0, -s], [0, 1, 0], [s, 0, c]], dtype=torch.float64)
    about_x = torch.tensor([[1, 0, 0], [0, cp, -sp], [0, sp, cp]], dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = about_x @ about_y
    matrix[2, 3] = 2.0
    return matrix.float()


def _make_scene(
    seed: int = 0,
    kind: str = "ordinary",
    degree: int = 1,
    count: int = 60,
    batch: tuple[int, int] = (1, 1),
    size: tuple[int, int] = (20, 24),
    yaw: float = 30.0,
) -> Scene:
    """Gaussians in a cube around the origin; `batch` is (B, V), `size` (H, W), `yaw` in degrees for the last view."""
    random = torch.Generator().manual_seed(seed)
    (scenes, views), (height, width) = batch, size
    leading = (scenes, count)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    gaussians = Gaussians(
        means=_uniform(-0.7, 0.7, *leading, 3, generator=random),
        scales=0.05 * (0.5 * normal(*leading, 3)).exp(),
        rotations=torch.nn.functional.normalize(normal(*leading, 4), dim=-1),
        opacities=torch.sigmoid(2 * normal(*leading, 1)),
        sh=0.5 * normal(*leading, (degree + 1) ** 2, 3),
    )
    angles = [math.radians(yaw) * (view + 1) / views for view in range(views)]
    if kind == "near plane":
        angles = [0.0] * views
    matrices = torch.stack([_camera(angle, 0.2 * (angle != 0)) for angle in angles])
    cameras = Cameras(
        world_to_camera=matrices.expand(scenes, views, 4, 4).contiguous(),
        focal=_uniform(0.9, 1.6, scenes, views, 2, generator=random) * width,
        principal=_uniform(0.3, 0.7, scenes, views, 2, generator=random) * torch.tensor([width, height]),
        height=height,
        width=width,
        near=NEAR,
    )
    return Scene(
        gaussians=KINDS[kind](gaussians, random),
        cameras=cameras,
        background=_uniform(0.0, 1.0, scenes, 3, generator=random),
        weights=normal(scenes, views, 3, height, width),
    )


@pytest.fixture(scope="session")
def make_scene() -> Callable[..., Scene]:
    return _make_scene


@pytest.fixture(scope="session")
def scene_kinds() -> tuple[str, ...]:
    return tuple(KINDS)


def _evaluate(
    render: Callable[..., tuple[Tensor, Tensor | None]],
    scene: Scene,
    antialiasing: bool = False,
    return_depth: bool = False,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> dict[str, Tensor]:
    """A backend's images and inverse depths, and the gradients of their weighted sum, by name, on the host."""
    inputs = {name: getattr(scene.gaussians, name) for name in GAUSSIAN_TENSORS} | {"background": scene.background}
    leaves = {name: tensor.detach().to(device, dtype, copy=True).requires_grad_() for name, tensor in inputs.items()}
    gaussians = Gaussians(**{name: leaves[name] for name in GAUSSIAN_TENSORS})
    images, depths = render(gaussians, scene.cameras.to(device), leaves["background"], antialiasing, return_depth)
    assert images.dtype == dtype
    drawn = {"images": images} if depths is None else {"images": images, "inverse depths": depths}
    weights = {"images": scene.weights.to(images), "inverse depths": scene.weights[:, :, :1].to(images)}
    loss = torch.stack([(picture * weights[name]).sum() for name, picture in drawn.items()]).sum()
    gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    return {name: tensor.detach().cpu() for name, tensor in (drawn | gradients).items()}


@pytest.fixture(scope="session")
def evaluate() -> Callable[..., dict[str, Tensor]]:
    return _evaluate


def _agrees_with_reference(
    render: Callable[..., tuple[Tensor, Tensor | None]],
    scene: Scene,
    antialiasing: bool = False,
    return_depth: bool = False,
    device: str = "cpu",
    image_error: float = 1e-5,
    relative_error: float = 1e-4,
) -> None:
    """Asserts that a backend in float32 has the images and gradients of `reference` in float64."""
    drawn = _evaluate(render, scene, antialiasing, return_depth, torch.float32, device)
    expected = _evaluate(reference.render, scene, antialiasing, return_depth, torch.float64)
    assert drawn.keys() == expected.keys()
    assert (drawn["images"] - expected["images"]).abs().max() < image_error
    for name, tensor in expected.items():
        assert drawn[name].shape == tensor.shape, name
        difference = (drawn[name] - tensor).norm()
        assert difference <= relative_error * tensor.norm() + 1e-9, f"{name}: {difference:.2e} of {tensor.norm():.2e}"


@pytest.fixture(scope="session")
def agrees_with_reference() -> Callable[..., None]:
    return _agrees_with_reference


def _undecided_pixels(scene, antialiasing):
    """Pixels (B, V, 1, H, W) where float32 cannot decide a threshold (1/255 of alpha, 1e-4 of transmittance).

    Both outcomes are correct there, and differ by up to 1/255.  They are found by slightly raising and lowering all
    opacities.
    """
    gaussians, cameras = scene.gaussians.to(torch.float64), scene.cameras.to(torch.float64)
    masks = []
    for b, v in torch.cartesian_prod(*(torch.arange(n) for n in cameras.focal.shape[:2])).tolist():
        splats = project(select(gaussians, b), select(cameras, b, v), antialiasing)
        decisions = []
        for factor in (1 - ROUNDING, 1 + ROUNDING):
            alphas = alpha_maps(replace(splats, opacities=splats.opacities * factor), cameras.height, cameras.width)
            going = torch.cumprod(1 - alphas, dim=0) >= TRANSMITTANCE_MIN
            decisions.append(torch.stack([alphas > 0, going]))
        masks.append((decisions[0] != decisions[1]).any(dim=0).any(dim=0))
    return torch.stack(masks).reshape(*cameras.focal.shape[:2], 1, cameras.height, cameras.width)


def _assert_agrees(scene, antialiasing=False, return_depth=False, render=cpu.render, device="cpu"):
    """Asserts images within 1e-5 (inverse depths relative to the largest possible), gradients within 1e-4 of the norm.

    A gradient may also differ by 1e-8 of the weights' sum, a sixth of the float32 rounding error of its terms, because
    it can be small by cancellation.
    """
    undecided = _undecided_pixels(scene, antialiasing)
    assert undecided.sum() <= 1 + 0.02 * undecided.numel(), "a scene this close to its thresholds shows nothing"
    scene = replace(scene, weights=scene.weights * ~undecided)
    outcome = _evaluate(render, scene, antialiasing, return_depth, device=device)
    expected = _evaluate(reference.render, scene, antialiasing, return_depth, torch.float64)

    assert ((outcome.pop("images") - expected.pop("images")).abs() * ~undecided).max() < 1e-5
    if return_depth:
        error = (outcome.pop("inverse depths") - expected.pop("inverse depths")).abs() * ~undecided
        assert error.max() * scene.cameras.near < 1e-5
    for name, gradient in expected.items():
        difference = (outcome[name] - gradient).norm()
        bound = 1e-4 * gradient.norm() + 1e-8 * scene.weights.abs().sum()
        assert difference <= bound, f"{name}: {difference:.2e} of {gradient.norm():.2e}"


@pytest.fixture(scope="session")
def assert_agrees() -> Callable[..., None]:
    return _assert_agrees


def _take(scene: Scene, scenes: slice, views: slice) -> Scene:
    """The part of a scene in two slices of the batch."""
    return replace(
        scene,
        gaussians=select(scene.gaussians, scenes),
        cameras=select(scene.cameras, scenes, views),
        background=scene.background[scenes],
        weights=scene.weights[scenes, views],
    )


@pytest.fixture(scope="session")
def take() -> Callable[..., Scene]:
    return _take


@pytest.fixture
def thread_count() -> Iterator[Callable[[int], None]]:
    """A function that sets torch's number of threads for the duration of a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
