"""The C++ kernels against `reference` in float64, and their invariance to batches, threads and repeated calls."""

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

from model.native import rasterise
from model.rasterizers import cpu
from tests.kernels import rasteriser_kernels


def draw(scene, antialiasing=False, return_depth=False):
    return cpu.render(scene.gaussians, scene.cameras, scene.background, antialiasing, return_depth)


@pytest.mark.parametrize("kernels", rasteriser_kernels())
def test_every_variant_agrees(make_scene, assert_agrees, kernels):
    for degree in range(4):
        scene = make_scene(degree, degree=degree, count=101, batch=(2, 2))
        assert_agrees(scene, True, degree % 2 == 0, functools.partial(cpu.render, kernels=kernels))


def test_unknown_variant_is_refused(make_scene):
    scene = make_scene()
    with pytest.raises(ValueError, match=r"kernels must be one of .*generic.*, got 'sse9'"):
        cpu.render(scene.gaussians, scene.cameras, scene.background, False, False, kernels="sse9")


def assert_equal(outcome, expected):
    """Asserts bit-identical results."""
    assert outcome.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(outcome[name], tensor), name


def test_results_do_not_depend_on_torchs_defaults(make_scene, evaluate, other_defaults):
    scene = make_scene(batch=(1, 2))
    expected = evaluate(cpu.render, scene, return_depth=True)
    with other_defaults():
        assert_equal(evaluate(cpu.render, scene, return_depth=True), expected)


@pytest.mark.parametrize("borrowed", [True, False], ids=["torch's threads", "own threads"])
@pytest.mark.parametrize("batch", [(1, 1), (1, 3), (5, 2)])
def test_results_do_not_depend_on_threads(make_scene, evaluate, thread_count, monkeypatch, batch, borrowed):
    """Cases: fewer, as many and more scenes than threads; several bands of rows; more Gaussians than one chunk."""
    if not borrowed:
        monkeypatch.setattr(rasterise, "gomp_parallel", lambda: None)
    scene = make_scene(count=700, batch=batch, degree=2, size=(100, 30))
    thread_count(1)
    expected = evaluate(cpu.render, scene, True, True)
    for threads in (2, 5):
        thread_count(threads)
        assert_equal(evaluate(cpu.render, scene, True, True), expected)


def test_a_thousand_calls_from_four_threads_at_once(make_scene, evaluate):
    """They give the results of single calls and leak no memory: 1 kB per call would add up to 1 MiB."""
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


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_a_signal_ends_a_long_call(make_scene):
    """A signal raises KeyboardInterrupt, like Ctrl-C, in a call that would take several seconds.

    The handler raises the second time: behind a call that ignored signals, it would run once for all of them.
    """
    scene = make_scene(kind="huge", count=3000, batch=(1, 40), size=(256, 256))
    gaussians = replace(scene.gaussians, opacities=torch.full_like(scene.gaussians.opacities, 0.01))

    alarms = []

    def interrupt(*_):
        alarms.append(None)
        if len(alarms) == 2:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        with pytest.raises(KeyboardInterrupt):
            draw(replace(scene, gaussians=gaussians))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
    """Peak memory in GiB above the initial one: 32 renders of 16,384 Gaussians at 128 px, forward and backward."""
    environment = os.environ | {"PYTHONPATH": str(Path(cpu.__file__).parents[2])}
    command = [sys.executable, "-c", MEMORY]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert 0.01 < float(output) < 1
