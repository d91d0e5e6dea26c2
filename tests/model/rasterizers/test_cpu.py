"""The C++ kernels against the float64 definition, and what a batch, threads and repeated calls must not change."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.rasterizers import cpu, reference
from model.rasterizers.native import available_kernels
from model.rasterizers.reference import TRANSMITTANCE_MIN, alpha_maps, project, select

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


def draw(scene, antialiasing=False, return_depth=False):
    return cpu.render(scene.gaussians, scene.cameras, scene.background, antialiasing, return_depth)


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


def assert_agrees(scene, evaluate, antialiasing=False, return_depth=False, render=cpu.render):
    """Pictures within 1e-5, relative to the nearest possible inverse depth; gradients within 1e-4 of their norm."""
    undecided = undecided_pixels(scene, antialiasing)
    assert undecided.sum() <= 1 + 0.02 * undecided.numel(), "a scene this close to its thresholds shows nothing"
    scene = replace(scene, weights=scene.weights * ~undecided)
    outcome = evaluate(render, scene, antialiasing, return_depth)
    expected = evaluate(reference.render, scene, antialiasing, return_depth, torch.float64)

    assert ((outcome.pop("images") - expected.pop("images")).abs() * ~undecided).max() < 1e-5
    if return_depth:
        error = (outcome.pop("inverse depths") - expected.pop("inverse depths")).abs() * ~undecided
        assert error.max() * scene.cameras.near < 1e-5
    for name, gradient in expected.items():
        difference = (outcome[name] - gradient).norm()
        assert difference <= 1e-4 * gradient.norm(), f"{name}: {difference:.2e} of {gradient.norm():.2e}"


@settings(max_examples=200, derandomize=True, deadline=None)
@given(data=st.data())
def test_agrees_with_reference(make_scene, scene_kinds, evaluate, data):
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
    assert_agrees(scene, evaluate, antialiasing, data.draw(st.booleans(), "return_depth"))


@pytest.mark.parametrize("antialiasing", [False, True])
def test_agrees_on_every_kind(make_scene, scene_kinds, evaluate, antialiasing):
    for seed, kind in enumerate(scene_kinds):
        scene = make_scene(seed, kind, degree=seed % 4, batch=(2, 2), yaw=150.0)
        assert_agrees(scene, evaluate, antialiasing, return_depth=True)


@pytest.mark.parametrize("kernels", available_kernels())
def test_every_variant_agrees(make_scene, evaluate, kernels):
    for degree in range(4):
        scene = make_scene(degree, degree=degree, count=101, batch=(2, 2))
        assert_agrees(scene, evaluate, True, degree % 2 == 0, functools.partial(cpu.render, kernels=kernels))


def test_unknown_variant_is_refused(make_scene):
    scene = make_scene()
    with pytest.raises(ValueError, match=r"kernels must be one of .*generic.*, got 'sse9'"):
        cpu.render(scene.gaussians, scene.cameras, scene.background, False, False, kernels="sse9")


def test_no_gaussians_give_the_background(make_scene, evaluate):
    scene = make_scene(count=0, batch=(2, 3))
    outcome = evaluate(cpu.render, scene, return_depth=True)
    assert torch.equal(outcome["images"], scene.background[:, None, :, None, None].expand_as(outcome["images"]))
    assert torch.equal(outcome["inverse depths"], torch.zeros(2, 3, 1, 20, 24))
    torch.testing.assert_close(outcome["background"], scene.weights.sum(dim=(1, 3, 4)))
    assert outcome["means"].shape == (2, 0, 3)


@pytest.mark.parametrize("batch", [(0, 2), (2, 0)])
def test_empty_batches(make_scene, batch):
    part = take(make_scene(batch=(2, 2)), slice(batch[0]), slice(batch[1]))
    images, inverse_depths = draw(part, return_depth=True)
    assert images.shape == (*batch, 3, 20, 24)
    assert inverse_depths.shape == (*batch, 1, 20, 24)


def test_depths_that_float32_cannot_tell_apart_are_sorted(make_scene, evaluate):
    scene = make_scene(kind="opaque", count=2)
    means = torch.tensor([[[0.01, 0.0, 1e-9], [0.0, 0.01, -1e-9]]])
    cameras = replace(scene.cameras, world_to_camera=torch.eye(4).expand(1, 1, 4, 4).clone())
    cameras.world_to_camera[..., 2, 3] = 2.0
    for order in ([0, 1], [1, 0]):
        near_tie = replace(scene, gaussians=replace(scene.gaussians, means=means[:, order]), cameras=cameras)
        assert_agrees(near_tie, evaluate)


def test_what_is_not_drawn_gets_no_gradient(make_scene, evaluate):
    scene = make_scene(kind="near plane", count=40)
    gradients = evaluate(cpu.render, scene)
    z = scene.gaussians.means[..., 2].double() + 2
    hidden = z <= scene.cameras.near
    assert hidden.any()
    assert (gradients["means"][hidden] == 0).all()
    assert (gradients["sh"][~hidden] != 0).any()


def assert_equal(outcome, expected):
    """To the last bit."""
    assert outcome.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(outcome[name], tensor), name


@pytest.mark.parametrize("borrowed", [True, False], ids=["torch's threads", "own threads"])
@pytest.mark.parametrize("batch", [(1, 1), (1, 3), (5, 2)])
def test_results_do_not_depend_on_threads(make_scene, evaluate, thread_count, monkeypatch, batch, borrowed):
    """Fewer scenes than threads, as many, more; several bands of rows; more Gaussians than a thread takes at a time."""
    if not borrowed:
        monkeypatch.setattr(cpu, "parallel", lambda: None)
    scene = make_scene(count=700, batch=batch, degree=2, size=(100, 30))
    thread_count(1)
    expected = evaluate(cpu.render, scene, True, True)
    for threads in (2, 5):
        thread_count(threads)
        assert_equal(evaluate(cpu.render, scene, True, True), expected)


def test_large_images_agree(make_scene, evaluate):
    """Several bands, some Gaussians in all of them."""
    scene = make_scene(kind="needles", count=40, size=(130, 70))
    assert_agrees(scene, evaluate, True, True)


def test_batch_equals_its_members(make_scene):
    scene = make_scene(batch=(2, 3), count=100)
    images, _ = draw(scene)
    for b in range(2):
        for v in range(3):
            alone, _ = draw(take(scene, slice(b, b + 1), slice(v, v + 1)))
            assert torch.equal(alone[0, 0], images[b, v])


def test_two_forwards_before_one_backward(make_scene, evaluate):
    scenes = [make_scene(1), make_scene(2)]
    means = [scene.gaussians.means.clone().requires_grad_() for scene in scenes]
    images = [
        draw(replace(scene, gaussians=replace(scene.gaussians, means=m)))[0]
        for scene, m in zip(scenes, means, strict=True)
    ]
    loss = sum((image * scene.weights).sum() for image, scene in zip(images, scenes, strict=True))
    loss.backward(retain_graph=True)
    for scene, m in zip(scenes, means, strict=True):
        assert torch.equal(m.grad, evaluate(cpu.render, scene)["means"])
    loss.backward()
    assert torch.equal(means[0].grad, 2 * evaluate(cpu.render, scenes[0])["means"])


@pytest.mark.parametrize("used", ["images", "inverse depths"])
def test_a_loss_may_use_one_of_the_two_results(make_scene, used):
    scene = make_scene(count=40)
    gradients = []
    for render, dtype in ((cpu.render, torch.float32), (reference.render, torch.float64)):
        means = scene.gaussians.means.to(dtype, copy=True).requires_grad_()
        gaussians = replace(scene.gaussians.to(dtype), means=means)
        results = render(gaussians, scene.cameras, scene.background.to(dtype), False, True)
        results[used == "inverse depths"].square().sum().backward()
        gradients.append(means.grad)
    torch.testing.assert_close(gradients[0], gradients[1].float(), rtol=1e-4, atol=1e-5)


def test_a_thousand_calls_from_four_threads_at_once(make_scene, evaluate):
    """They give what single calls give, and leave nothing behind: 1 kB a call would add up to 1 MiB."""
    scenes = [make_scene(seed, count=400, batch=(1, 2)) for seed in range(4)]
    expected = [evaluate(cpu.render, scene, return_depth=True) for scene in scenes]

    def evaluate_and_compare(number):
        assert_equal(evaluate(cpu.render, scenes[number % 4], return_depth=True), expected[number % 4])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(evaluate_and_compare, range(300)))
        before = psutil.Process().memory_info().rss
        list(pool.map(evaluate_and_compare, range(1000)))
        grown = psutil.Process().memory_info().rss - before
    assert grown < 8 * 2**20


def test_keeps_the_dtype_and_takes_any_memory_layout(make_scene):
    scene = make_scene(degree=2, batch=(2, 2))
    expected, _ = draw(scene)
    double, _ = draw(replace(scene, gaussians=scene.gaussians.to(torch.float64)))
    assert double.dtype == torch.float64
    assert torch.equal(double, expected.double())
    strided = replace(scene.gaussians, sh=scene.gaussians.sh.transpose(1, 3).contiguous().transpose(1, 3))
    assert not strided.sh.is_contiguous()
    assert torch.equal(draw(replace(scene, gaussians=strided))[0], expected)


def test_numbers_at_the_edge_of_float32_do_not_crash(make_scene):
    scene = make_scene(count=32)
    for factor in (1e-38, 1e30, 3e38):
        for name in ("means", "scales"):
            gaussians = replace(scene.gaussians, **{name: (getattr(scene.gaussians, name) * factor).clamp(-3e38, 3e38)})
            images, _ = draw(replace(scene, gaussians=gaussians), antialiasing=True)
            assert torch.isfinite(images).all()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_a_signal_ends_a_long_call(make_scene):
    """Ctrl-C raises KeyboardInterrupt in just this way, out of a call that would take several seconds."""
    scene = make_scene(kind="huge", count=3000, batch=(1, 40), size=(256, 256))
    gaussians = replace(scene.gaussians, opacities=torch.full_like(scene.gaussians.opacities, 0.01))

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    started = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            draw(replace(scene, gaussians=gaussians))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 3


def test_other_python_threads_run_meanwhile(make_scene):
    scene = make_scene(kind="huge", count=1000, batch=(1, 4), size=(256, 256))
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    began = time.monotonic()
    draw(scene)
    ended = time.monotonic()
    done.set()
    ticker.join()
    assert sum(began < t < ended for t in ticks) >= 3


MEMORY = """
import re, torch
from model.rasterizers import render
from model.types import Cameras, Gaussians

n, views = 128 * 128, 4
generator = torch.Generator().manual_seed(0)
normal = lambda *shape: torch.randn(8, n, *shape, generator=generator)
leaves = [0.5 * normal(3), 0.01 * (0.3 * normal(3)).exp(), normal(4), torch.sigmoid(normal(1)), 0.3 * normal(4, 3)]
leaves[2] = torch.nn.functional.normalize(leaves[2], dim=-1)
leaves = [leaf.requires_grad_() for leaf in leaves]
matrices = torch.eye(4).repeat(8, views, 1, 1)
matrices[..., 2, 3] = 2
cameras = Cameras(matrices, torch.full((8, views, 2), 128.0), torch.full((8, views, 2), 64.0), 128, 128)
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
before = peak()
render(Gaussians(*leaves), cameras, torch.ones(3), "cpu").square().mean().backward()
print((peak() - before) / 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to tell the peak")
def test_peak_memory_of_a_batch():
    """32 renders of 16,384 Gaussians at 128 px, forward and backward, in GiB above what stood before."""
    environment = os.environ | {"PYTHONPATH": str(Path(cpu.__file__).parents[2])}
    command = [sys.executable, "-c", MEMORY]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert 0.01 < float(output) < 1
