"""The C++ kernels against the float64 definition, and what a batch, threads and repeated calls must not change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.rasterizers.cpu import CpuRasterizer
from model.rasterizers.native import available_kernels
from model.rasterizers.reference import (
    TRANSMITTANCE_MIN,
    ReferenceRasterizer,
    alpha_maps,
    project,
    select,
)

REFERENCE = ReferenceRasterizer()
ROUNDING = 3e-5  # relative; float32 may decide otherwise about an alpha or transmittance this close to its threshold


def take(scene, scenes, views):
    """The part of a scene in two slices of the batch."""
    return replace(
        scene,
        gaussians=select(scene.gaussians, scenes),
        cameras=select(scene.cameras, scenes, views),
        background=scene.background[scenes],
        weights=scene.weights[scenes, views],
    )


def undecided_pixels(scene, antialiasing):
    """(B, V, 1, H, W) where a threshold (1/255 of alpha, 1e-4 of transmittance) is too close for float32 to call.

    There both outcomes are right, and they differ by up to 1/255: found by moving all opacities up and down a little.
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


def assert_agrees(scene, antialiasing, image_and_gradients, rasterizer):
    undecided = undecided_pixels(scene, antialiasing)
    assert undecided.sum() <= 1 + 0.02 * undecided.numel(), "a scene this close to its thresholds shows nothing"
    scene = replace(scene, weights=scene.weights * ~undecided)
    images, gradients = image_and_gradients(rasterizer, scene, antialiasing)
    expected, expected_gradients = image_and_gradients(REFERENCE, scene, antialiasing, torch.float64)

    error = (images - expected).abs() * ~undecided
    assert error.max() < 1e-5
    for name, gradient in expected_gradients.items():
        difference = (gradients[name] - gradient).norm()
        assert difference <= 1e-4 * gradient.norm(), f"{name}: {difference:.2e} of {gradient.norm():.2e}"


@settings(max_examples=200, derandomize=True, deadline=None)
@given(data=st.data())
def test_agrees_with_reference(make_scene, scene_kinds, image_and_gradients, data):
    scene = make_scene(
        seed=data.draw(st.integers(0, 2**32), "seed"),
        kind=data.draw(st.sampled_from(scene_kinds), "kind"),
        degree=data.draw(st.integers(0, 3), "degree"),
        count=data.draw(st.sampled_from([1, 7, 8, 60, 120]), "count"),
        batch=data.draw(st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 2)]), "batch"),
        size=data.draw(st.sampled_from([(20, 24), (17, 9), (1, 5), (32, 32)]), "size"),
        yaw=data.draw(st.floats(0, 180), "yaw"),
    )
    antialiasing = data.draw(st.booleans(), "antialiasing")
    assert_agrees(scene, antialiasing, image_and_gradients, CpuRasterizer())


@pytest.mark.parametrize("antialiasing", [False, True])
def test_agrees_on_every_kind(make_scene, scene_kinds, image_and_gradients, antialiasing):
    for seed, kind in enumerate(scene_kinds):
        scene = make_scene(seed, kind, degree=seed % 4, batch=(2, 2), yaw=150.0)
        assert_agrees(scene, antialiasing, image_and_gradients, CpuRasterizer())


@pytest.mark.parametrize("kernels", available_kernels())
def test_every_variant_agrees(make_scene, image_and_gradients, kernels):
    for degree in range(4):
        scene = make_scene(degree, degree=degree, count=101, batch=(2, 2))
        assert_agrees(scene, True, image_and_gradients, CpuRasterizer(kernels))


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match=r"kernels must be one of .*generic.*, got 'sse9'"):
        CpuRasterizer("sse9")


def test_no_gaussians_give_the_background(make_scene, image_and_gradients):
    scene = make_scene(count=0, batch=(2, 3))
    images, gradients = image_and_gradients(CpuRasterizer(), scene)
    assert torch.equal(images, scene.background[:, None, :, None, None].expand_as(images))
    torch.testing.assert_close(gradients["background"], scene.weights.sum(dim=(1, 3, 4)))
    assert gradients["means"].shape == (2, 0, 3)


@pytest.mark.parametrize("batch", [(0, 2), (2, 0)])
def test_empty_batches(make_scene, batch):
    part = take(make_scene(batch=(2, 2)), slice(batch[0]), slice(batch[1]))
    images = CpuRasterizer()(part.gaussians, part.cameras, part.background, False)
    assert images.shape == (*batch, 3, 20, 24)


def test_depths_that_float32_cannot_tell_apart_are_sorted(make_scene, image_and_gradients):
    scene = make_scene(kind="opaque", count=2)
    means = torch.tensor([[[0.01, 0.0, 1e-9], [0.0, 0.01, -1e-9]]])
    cameras = replace(scene.cameras, world_to_camera=torch.eye(4).expand(1, 1, 4, 4).clone())
    cameras.world_to_camera[..., 2, 3] = 2.0
    for order in ([0, 1], [1, 0]):
        near_tie = replace(scene, gaussians=replace(scene.gaussians, means=means[:, order]), cameras=cameras)
        assert_agrees(near_tie, False, image_and_gradients, CpuRasterizer())


def test_what_is_not_drawn_gets_no_gradient(make_scene, image_and_gradients):
    scene = make_scene(kind="near plane", count=40)
    _, gradients = image_and_gradients(CpuRasterizer(), scene)
    z = scene.gaussians.means[..., 2].double() + 2
    hidden = z <= scene.cameras.near
    assert hidden.any()
    assert (gradients["means"][hidden] == 0).all()
    assert (gradients["sh"][~hidden] != 0).any()


def test_results_do_not_depend_on_threads(make_scene, image_and_gradients, thread_count):
    scene = make_scene(count=1500, batch=(3, 3), degree=2)  # more Gaussians than one thread takes at a time
    thread_count(1)
    images, gradients = image_and_gradients(CpuRasterizer(), scene)
    for threads in (2, 5):
        thread_count(threads)
        again, gradients_again = image_and_gradients(CpuRasterizer(), scene)
        assert torch.equal(images, again)
        for name, gradient in gradients.items():
            assert torch.equal(gradient, gradients_again[name]), name


def test_batch_equals_its_members(make_scene):
    scene = make_scene(batch=(2, 3), count=100)
    images = CpuRasterizer()(scene.gaussians, scene.cameras, scene.background, False)
    for b in range(2):
        for v in range(3):
            part = take(scene, slice(b, b + 1), slice(v, v + 1))
            alone = CpuRasterizer()(part.gaussians, part.cameras, part.background, False)
            assert torch.equal(alone[0, 0], images[b, v])


def test_two_forwards_before_one_backward(make_scene, image_and_gradients):
    first, second = make_scene(1), make_scene(2)
    rasterizer = CpuRasterizer()
    means = [scene.gaussians.means.clone().requires_grad_() for scene in (first, second)]
    images = [
        rasterizer(replace(scene.gaussians, means=m), scene.cameras, scene.background, False)
        for scene, m in zip((first, second), means, strict=True)
    ]
    loss = sum((image * scene.weights).sum() for image, scene in zip(images, (first, second), strict=True))
    loss.backward(retain_graph=True)
    for scene, m in zip((first, second), means, strict=True):
        assert torch.equal(m.grad, image_and_gradients(rasterizer, scene)[1]["means"])
    loss.backward()
    assert torch.equal(means[0].grad, 2 * image_and_gradients(rasterizer, first)[1]["means"])


def test_calls_from_several_threads_at_once(make_scene, image_and_gradients):
    scenes = [make_scene(seed, count=400, batch=(1, 2)) for seed in range(4)]
    expected = [image_and_gradients(CpuRasterizer(), scene) for scene in scenes]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda scene: image_and_gradients(CpuRasterizer(), scene), scenes * 10))
    for i, (images, gradients) in enumerate(results):
        assert torch.equal(images, expected[i % 4][0])
        assert all(torch.equal(gradients[name], gradient) for name, gradient in expected[i % 4][1].items())


def test_keeps_the_dtype_and_takes_any_memory_layout(make_scene):
    scene = make_scene(degree=2, batch=(2, 2))
    expected = CpuRasterizer()(scene.gaussians, scene.cameras, scene.background, False)
    double = CpuRasterizer()(scene.gaussians.to(torch.float64), scene.cameras, scene.background, False)
    assert double.dtype == torch.float64
    assert torch.equal(double, expected.double())
    strided = replace(scene.gaussians, sh=scene.gaussians.sh.transpose(1, 3).contiguous().transpose(1, 3))
    assert not strided.sh.is_contiguous()
    assert torch.equal(CpuRasterizer()(strided, scene.cameras, scene.background, False), expected)


def test_numbers_at_the_edge_of_float32_do_not_crash(make_scene):
    scene = make_scene(count=32)
    for factor in (1e-38, 1e30, 3e38):
        for name in ("means", "scales"):
            gaussians = replace(scene.gaussians, **{name: (getattr(scene.gaussians, name) * factor).clamp(-3e38, 3e38)})
            images = CpuRasterizer()(gaussians, scene.cameras, scene.background, True)
            assert torch.isfinite(images).all()
