"""The contract of all backends that compute exactly what `reference` defines, tested with all kinds of scenes.

Backend `triton` runs on the GPU where there is one; elsewhere Triton's interpreter runs its kernels.  Its tiles and
chunks of splats are then large, because the interpreter takes as long for small ones; `test_triton` varies them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.rasterizers import cpu, reference
from model.rasterizers import triton as triton_backend

INTERPRETED_TILE, INTERPRETED_CHUNK = 32, 32


@dataclass(frozen=True)
class Backend:
    module: ModuleType
    device: str
    examples: int  # random scenes to draw
    repeats_bits: bool  # gradients are the same to the last bit in every run

    def draw(self, scene, antialiasing=False, return_depth=False):
        gaussians, cameras = scene.gaussians.to(self.device), scene.cameras.to(self.device)
        background = scene.background.to(self.device)
        images, depths = self.module.render(gaussians, cameras, background, antialiasing, return_depth)
        return images.cpu(), None if depths is None else depths.cpu()


@pytest.fixture(scope="module", params=["cpu", pytest.param("triton", marks=pytest.mark.gpu)])
def backend(request):
    if request.param == "cpu":
        yield Backend(cpu, "cpu", examples=200, repeats_bits=True)
        return
    if torch.cuda.is_available():
        yield Backend(triton_backend, "cuda", examples=60, repeats_bits=False)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.setattr(triton_backend, "TILE", INTERPRETED_TILE)
        if not triton_backend.is_available():
            pytest.skip("torch brings Triton on Linux alone")
        from model.rasterizers import triton_kernels

        patch.setattr(triton_kernels, "CHUNK", type(triton_kernels.CHUNK)(INTERPRETED_CHUNK))
        yield Backend(triton_backend, "cpu", examples=15, repeats_bits=True)


@pytest.fixture
def agrees(backend, assert_agrees):
    def check(scene, antialiasing=False, return_depth=False):
        assert_agrees(scene, antialiasing, return_depth, backend.module.render, backend.device)

    return check


def test_agrees_with_reference(make_scene, scene_kinds, backend, agrees):
    @settings(max_examples=backend.examples, derandomize=True, deadline=None, database=None)
    @given(data=st.data())
    def on_random_scenes(data):
        scene = make_scene(
            seed=data.draw(st.integers(0, 2**32), "seed"),
            kind=data.draw(st.sampled_from(scene_kinds), "kind"),
            degree=data.draw(st.integers(0, 3), "degree"),
            count=data.draw(st.sampled_from([1, 7, 8, 60, 120]), "count"),
            batch=data.draw(st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 2)]), "batch"),
            size=data.draw(st.sampled_from([(20, 24), (17, 9), (1, 5), (32, 32)]), "size"),
            yaw=data.draw(st.floats(0, 180), "yaw"),
        )
        agrees(scene, data.draw(st.booleans(), "antialiasing"), data.draw(st.booleans(), "return_depth"))

    on_random_scenes()


@pytest.mark.parametrize("antialiasing", [False, True])
def test_agrees_on_every_kind(make_scene, scene_kinds, agrees, antialiasing):
    for seed, kind in enumerate(scene_kinds):
        batch = (1, 2) if antialiasing else (2, 1)
        agrees(make_scene(seed, kind, degree=seed % 4, batch=batch, yaw=150.0), antialiasing, return_depth=True)


def test_without_gaussians_the_background_is_drawn(make_scene, evaluate, backend):
    scene = make_scene(count=0, batch=(2, 3))
    outcome = evaluate(backend.module.render, scene, return_depth=True, device=backend.device)
    assert torch.equal(outcome["images"], scene.background[:, None, :, None, None].expand_as(outcome["images"]))
    assert torch.equal(outcome["inverse depths"], torch.zeros(2, 3, 1, 20, 24))
    torch.testing.assert_close(outcome["background"], scene.weights.sum(dim=(1, 3, 4)))
    assert outcome["means"].shape == (2, 0, 3)


@pytest.mark.parametrize("batch", [(0, 2), (2, 0)])
def test_empty_batches(make_scene, take, backend, batch):
    part = take(make_scene(batch=(2, 2)), slice(batch[0]), slice(batch[1]))
    images, inverse_depths = backend.draw(part, return_depth=True)
    assert images.shape == (*batch, 3, 20, 24)
    assert inverse_depths.shape == (*batch, 1, 20, 24)


def test_depths_that_are_equal_in_float32_are_sorted(make_scene, agrees):
    scene = make_scene(kind="opaque", count=2)
    means = torch.tensor([[[0.01, 0.0, 1e-9], [0.0, 0.01, -1e-9]]])
    cameras = replace(scene.cameras, world_to_camera=torch.eye(4).expand(1, 1, 4, 4).clone())
    cameras.world_to_camera[..., 2, 3] = 2.0
    for order in ([0, 1], [1, 0]):
        agrees(replace(scene, gaussians=replace(scene.gaussians, means=means[:, order]), cameras=cameras))


def test_what_is_not_drawn_gets_no_gradient(make_scene, evaluate, backend):
    scene = make_scene(kind="near plane", degree=2, count=40)
    scene.gaussians.means[:, 1] = torch.tensor([0.0, 0.0, -2.0])  # the camera's centre, seen in no direction
    gradients = evaluate(backend.module.render, scene, device=backend.device)
    z = scene.gaussians.means[..., 2].double() + 2
    hidden = z <= scene.cameras.near
    assert hidden.any()
    assert (gradients["means"][hidden] == 0).all()
    assert (gradients["sh"][~hidden] != 0).any()
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_large_images_agree(make_scene, agrees):
    """The image has several bands of rows and tiles, and some Gaussians cover all of them."""
    agrees(make_scene(kind="needles", count=40, size=(130, 70)), True, True)


def test_batch_equals_its_members(make_scene, take, backend):
    scene = make_scene(batch=(2, 3), count=100)
    images, _ = backend.draw(scene)
    for b in range(2):
        for v in range(3):
            alone, _ = backend.draw(take(scene, slice(b, b + 1), slice(v, v + 1)))
            assert torch.equal(alone[0, 0], images[b, v])


def test_two_forwards_before_one_backward(make_scene, evaluate, backend):
    def assert_same(gradient, expected):
        if backend.repeats_bits:
            assert torch.equal(gradient, expected)
        else:
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)

    scenes = [make_scene(1), make_scene(2)]
    means = [scene.gaussians.means.clone().requires_grad_() for scene in scenes]
    images = [
        backend.draw(replace(scene, gaussians=replace(scene.gaussians, means=m)))[0]
        for scene, m in zip(scenes, means, strict=True)
    ]
    expected = [evaluate(backend.module.render, scene, device=backend.device)["means"] for scene in scenes]
    loss = sum((image * scene.weights).sum() for image, scene in zip(images, scenes, strict=True))
    loss.backward(retain_graph=True)
    for m, gradient in zip(means, expected, strict=True):
        assert_same(m.grad, gradient)
    loss.backward()
    assert_same(means[0].grad, 2 * expected[0])


@pytest.mark.parametrize("used", ["images", "inverse depths"])
def test_a_loss_may_use_one_of_the_two_results(make_scene, backend, used):
    scene = make_scene(count=40)
    gradients = []
    exact = Backend(reference, "cpu", 1, True)
    for side, dtype in ((backend, torch.float32), (exact, torch.float64)):
        means = scene.gaussians.means.to(dtype, copy=True).requires_grad_()
        gaussians = replace(scene.gaussians.to(dtype), means=means)
        results = side.draw(replace(scene, gaussians=gaussians, background=scene.background.to(dtype)), False, True)
        results[used == "inverse depths"].square().sum().backward()
        gradients.append(means.grad)
    torch.testing.assert_close(gradients[0], gradients[1].float(), rtol=1e-4, atol=1e-5)


def test_keeps_the_dtype_and_takes_any_memory_layout(make_scene, backend):
    scene = make_scene(degree=2, batch=(2, 2))
    expected, _ = backend.draw(scene)
    double, _ = backend.draw(replace(scene, gaussians=scene.gaussians.to(torch.float64)))
    assert double.dtype == torch.float64
    assert torch.equal(double, expected.double())
    strided = replace(scene.gaussians, sh=scene.gaussians.sh.transpose(1, 3).contiguous().transpose(1, 3))
    assert not strided.sh.is_contiguous()
    assert torch.equal(backend.draw(replace(scene, gaussians=strided))[0], expected)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_numbers_at_the_edge_of_float32_do_not_crash(make_scene, backend):
    scene = make_scene(count=32)
    for factor in (1e-38, 1e30, 3e38):
        for name in ("means", "scales"):
            gaussians = replace(scene.gaussians, **{name: (getattr(scene.gaussians, name) * factor).clamp(-3e38, 3e38)})
            images, _ = backend.draw(replace(scene, gaussians=gaussians), antialiasing=True)
            assert torch.isfinite(images).all()
