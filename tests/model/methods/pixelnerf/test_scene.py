from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from model.methods.pixelnerf.encoder import resize
from model.methods.pixelnerf.field import encode
from model.methods.pixelnerf.sampling import Draws, SampleCounts
from model.types import Context, Pixels
from tests.model.methods.pixelnerf.scenery import SIDE, small_options, source_views, trained

PIXELS = Pixels(
    view=torch.tensor([[0, 1, 2], [2, 0, 1]]),
    row=torch.tensor([[3, 8, 15], [7, 0, 9]]),
    column=torch.tensor([[5, 8, 0], [7, 15, 6]]),
)


@pytest.fixture
def views():
    return source_views(views=3)


def scene_of(views, *, training=False, **options):
    network = trained(small_options(input_views=2, **options)).train(training)
    return network, network(views.select(0, 2), Context())


def bilinear(features, x, y):
    """The interpolated value of a map (C, h, w) at a fractional cell, with the border replicated outside."""
    height, width = features.shape[-2:]
    x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    fx, fy = x - left, y - top
    upper = features[:, top, left] * (1 - fx) + features[:, top, left + 1] * fx
    lower = features[:, top + 1, left] * (1 - fx) + features[:, top + 1, left + 1] * fx
    return upper * (1 - fy) + lower * fy


def plainly(network, views, latents, which, b, view, row, column, distances):
    """One ray with the published arithmetic: latents are sampled, then each layer uses them, point by point."""
    offset = {"centre": 0.5, "corner": 0.0}[network.options.pixel_point]
    part = (network.coarse, network.fine)[which]
    target = views.cameras.world_to_camera[b, view]
    focal, principal = views.cameras.focal[b, view], views.cameras.principal[b, view]
    through = torch.stack(
        [(column + offset - principal[0]) / focal[0], (row + offset - principal[1]) / focal[1], torch.ones(())]
    )
    direction = target[:3, :3].T @ (through / through.norm())
    origin = -target[:3, :3].T @ target[:3, 3]
    flip = torch.tensor([1.0, -1.0, -1.0])
    colours, densities = [], []
    for distance in distances:
        point = origin + distance * direction
        states = []
        for source in range(2):
            matrix = views.cameras.world_to_camera[b, source]
            in_camera = matrix[:3, :3] @ point + matrix[:3, 3]
            centre = matrix[:3, :3] @ views.origin[b] + matrix[:3, 3]
            features = encode(flip * (in_camera - centre), flip * (matrix[:3, :3] @ direction))
            place = views.cameras.focal[b, source] * in_camera[:2] / in_camera[2] + views.cameras.principal[b, source]
            x, y = ((place - offset) / 2).tolist()
            latent = bilinear(latents[b, source], x, y)
            state = part.input(features)
            for block, layer in zip(part.blocks[:3], part.injections, strict=True):
                state = block(state + layer(latent))
            states.append(state)
        state = torch.stack(states).mean(0)
        for block in part.blocks[3:]:
            state = block(state)
        raw = part.output(F.relu(state))
        colours.append(torch.sigmoid(raw[:3]))
        densities.append(F.relu(raw[3]))
    return torch.stack(colours), torch.stack(densities)


def seen(colours, densities, distances, far, background):
    ends = [*distances[1:], far]
    transmittance, colour, depth, opacity = 1.0, torch.zeros(3), 0.0, 0.0
    weights = []
    for rgb, density, start, end in zip(colours, densities, distances, ends, strict=True):
        alpha = 1 - math.exp(-(end - start) * density.item())
        weight = alpha * transmittance
        transmittance *= 1 - alpha + 1e-10
        colour, depth, opacity = colour + weight * rgb, depth + weight * start, opacity + weight
        weights.append(weight)
    return colour + (1 - opacity) * background, depth, opacity, weights


@pytest.mark.parametrize(
    ("pixel_point", "bounds", "feature_alignment"),
    [("centre", "camera_z", "strided"), ("corner", "distance", "corners")],
)
@torch.no_grad()
def test_a_ray_is_rendered_as_by_the_plain_arithmetic(views, pixel_point, bounds, feature_alignment):
    """The expected values render ray by ray and point by point, without folding latents into the networks."""
    network, scene = scene_of(views, pixel_point=pixel_point, bounds=bounds, feature_alignment=feature_alignment)
    rendering = scene.render(views.cameras, views.background, PIXELS)
    draws = Draws.make((2, 3), SampleCounts(6, 3, 2), torch.zeros(()), torch.Generator().manual_seed(0))
    pyramid = network.encoder(views.images[:, :2].flatten(0, 1))
    size = tuple(pyramid[0].shape[-2:])
    laid_over = [
        resize(features.permute(0, 2, 3, 1), size, stride, feature_alignment).permute(0, 3, 1, 2)
        for features, stride in zip(pyramid, network.encoder.strides, strict=True)
    ]
    latents = torch.cat(laid_over, 1).unflatten(0, (2, 2))
    for b in range(2):
        for ray in range(3):
            where = [int(index[b, ray]) for index in (PIXELS.view, PIXELS.row, PIXELS.column)]
            offset = 0.5 if pixel_point == "centre" else 0.0
            slopes = [(where[2] + offset - SIDE / 2) / (1.2 * SIDE), (where[1] + offset - SIDE / 2) / (1.2 * SIDE)]
            stretch = math.sqrt(1 + slopes[0] ** 2 + slopes[1] ** 2) if bounds == "camera_z" else 1.0
            near, far = 1.0 * stretch, 3.0 * stretch
            length = (far - near) / 6
            distances = [near + (k + u) * length for k, u in enumerate(draws.coarse[b, ray].tolist())]
            given = (views, latents, 0, b, *where)
            coarse, depth, _, weights = seen(*plainly(network, *given, distances), distances, far, views.background[b])
            np.testing.assert_allclose(rendering.auxiliary[0].images[b, ray], coarse, atol=2e-5)

            share = (np.array(weights) + 1e-5) / (np.array(weights) + 1e-5).sum()
            chosen = [int((np.cumsum(share) <= u).sum()) for u in draws.interval[b, ray].tolist()]
            distances += [near + (k + u) * length for k, u in zip(chosen, draws.within[b, ray].tolist(), strict=True)]
            distances += [min(max(depth + 0.01 * n, near), far) for n in draws.depth[b, ray].tolist()]
            distances.sort()
            given = (views, latents, 1, b, *where)
            fine, depth, opacity, weights = seen(
                *plainly(network, *given, distances), distances, far, views.background[b]
            )
            np.testing.assert_allclose(rendering.images[b, ray], fine, atol=2e-5)
            np.testing.assert_allclose(rendering.opacity[b, ray], [opacity], atol=2e-5)
            cosine = 1 / math.sqrt(1 + slopes[0] ** 2 + slopes[1] ** 2)
            inverse = sum(w / (z * cosine) for w, z in zip(weights, distances, strict=True))
            np.testing.assert_allclose(rendering.inverse_depth[b, ray], [inverse], atol=2e-5)


def test_whole_views_are_their_pixels(views):
    _, scene = scene_of(views)
    with torch.no_grad():
        whole = scene.render(views.cameras, views.background)
    assert whole.images.shape == whole.auxiliary[0].images.shape == (2, 3, 3, SIDE, SIDE)
    assert whole.opacity.shape == whole.inverse_depth.shape == (2, 3, 1, SIDE, SIDE)
    index = torch.arange(SIDE * SIDE).expand(2, -1)
    for view in range(3):
        pixels = Pixels(torch.full_like(index, view), index // SIDE, index % SIDE)
        with torch.no_grad():
            few = scene.render(views.cameras, views.background, pixels)
        for name in ("images", "opacity", "inverse_depth"):
            torch.testing.assert_close(pixels.of(getattr(whole, name)), getattr(few, name))


def test_rendering_is_deterministic_and_independent_of_other_views(views):
    _, scene = scene_of(views)
    with torch.no_grad():
        first, again = (scene.render(views.cameras, views.background).images for _ in range(2))
        last = scene.render(views.select(2, 3).cameras, views.background).images
    assert torch.equal(first, again)
    assert torch.equal(first[:, 2:], last)


def test_training_samples_use_torchs_generator(views):
    _, scene = scene_of(views, training=True)
    seeds = (1, 1, 2)
    renders = []
    for seed in seeds:
        torch.manual_seed(seed)
        renders.append(scene.render(views.cameras, views.background, PIXELS).images.detach())
    assert torch.equal(renders[0], renders[1])
    assert not torch.equal(renders[0], renders[2])


class LargestAllocation(TorchDispatchMode):
    """Records the bytes of the largest tensor that an operation returns."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


def test_rays_are_traced_in_groups_that_fit_into_memory(views):
    _, scene = scene_of(views)
    small = replace(scene, memory=300_000)
    assert 1 < small.rays_at_once() < SIDE * SIDE < scene.rays_at_once()
    with torch.no_grad():
        at_once = scene.render(views.cameras, views.background)
        with LargestAllocation() as allocation:
            in_groups = small.render(views.cameras, views.background)
    # The tensors of all operations of a group fit together, so none needs half of the limit; results are larger.
    results = 2 * 3 * SIDE * SIDE * 3 * 4
    assert allocation.bytes <= max(300_000 // 2, results)
    for name in ("images", "opacity", "inverse_depth"):
        torch.testing.assert_close(getattr(in_groups, name), getattr(at_once, name))
        torch.testing.assert_close(getattr(in_groups.auxiliary[0], name), getattr(at_once.auxiliary[0], name))


def test_a_budget_below_one_ray_still_renders(views):
    _, scene = scene_of(views)
    assert replace(scene, memory=1).rays_at_once() == 1


@pytest.mark.parametrize("detached", [False, True])
def test_the_fine_loss_reaches_the_coarse_network_through_depth_samples_only_as_published(views, detached):
    network, scene = scene_of(views, training=True, detach_depth_samples=detached, importance_samples=0)
    scene.render(views.cameras, views.background, PIXELS).images.sum().backward()
    reached = any(p.grad is not None and p.grad.any() for p in network.coarse.parameters())
    assert reached != detached
    assert network.fine.output.weight.grad.any()


def test_the_gradient_through_depth_samples_is_that_of_finite_differences(views):
    options = {"detach_depth_samples": False, "coarse_samples": 4, "importance_samples": 0, "depth_samples": 1}
    network = trained(small_options(input_views=2, **options)).double()
    views = views.to(torch.float64)
    weight = network.coarse.output.bias

    def rendered():
        scene = network.eval()(views.select(0, 2), Context())
        return scene.render(views.cameras, views.background, PIXELS).images.sum()

    (gradient,) = torch.autograd.grad(rendered(), weight)
    step = 1e-6
    with torch.no_grad():
        weight[3] += step
        above = rendered()
        weight[3] -= 2 * step
        below = rendered()
    assert gradient[3].item() != 0
    assert gradient[3].item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-3)


def test_importance_samples_pass_no_gradient(views):
    network, scene = scene_of(views, training=True, detach_depth_samples=False, depth_samples=0)
    scene.render(views.cameras, views.background, PIXELS).images.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in network.coarse.parameters())


def test_an_empty_scene_is_its_background_and_has_no_depth(views):
    network, scene = scene_of(views)
    with torch.no_grad():
        for part in (network.coarse, network.fine):
            part.output.weight.zero_()
            part.output.bias.fill_(-1.0)
        rendering = scene.render(views.cameras, views.background, PIXELS)
    torch.testing.assert_close(rendering.images, views.background[:, None].expand(2, 3, 3))
    assert not rendering.inverse_depth.any()
    assert not rendering.opacity.any()


def test_bounds_counted_from_the_origin_and_absolute_ones_render_alike():
    absolute, relative = source_views(views=2), source_views(views=2, from_origin=True)
    images = []
    for views in (absolute, relative):
        _, scene = scene_of(views)
        with torch.no_grad():
            images.append(scene.render(views.cameras, views.background).images)
    torch.testing.assert_close(images[0], images[1], atol=1e-4, rtol=1e-4)
