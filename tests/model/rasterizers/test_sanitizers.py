"""The kernels, built with sanitizers as a separate program, draw every kind of scene without faults or leaks."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from model.native import library

SOURCES = Path(library.__file__).parent / "csrc" / "rasteriser"
PROGRAM = Path(__file__).parent / "sanitize.cpp"
COMPILER = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), None)
FLAGS = ["-std=c++17", "-O0", "-g0", "-fno-math-errno", "-fno-trapping-math", "-pthread", "-Wno-psabi", "-w"]
#: GCC's checks of addresses as calls, not inline: a third of the compilation less.
FLAGS += ["--param", "asan-instrumentation-with-call-threshold=0"]


def pack(scene, antialiasing, depth):
    """A scene in the format that sanitize.cpp reads."""
    g, c = scene.gaussians, scene.cameras
    (scenes, gaussians, coefficients), views = g.sh.shape[:3], c.focal.shape[1]
    header = (scenes, views, gaussians, coefficients, c.height, c.width, antialiasing, depth)
    tensors = [g.means, g.scales, g.rotations, g.opacities, g.sh, scene.background]
    tensors += [t.double() for t in (c.world_to_camera, c.focal, c.principal)]
    return struct.pack("8qd", *header, c.near) + b"".join(t.contiguous().numpy().tobytes() for t in tensors)


@pytest.fixture(scope="module")
def scenes_file(make_scene, scene_kinds, tmp_path_factory):
    """Every kind of scene, several bands of rows, more scenes than threads, degrees 0 to 3; returns path and count."""
    scenes = [
        make_scene(seed, kind, degree=seed % 4, count=[60, 7, 300][seed % 3], batch=[(1, 2), (4, 1)][seed % 2])
        for seed, kind in enumerate(scene_kinds)
    ]
    scenes += [make_scene(kind=kind, size=(70, 41), degree=3) for kind in ("ordinary", "needles", "huge")]
    scenes += [make_scene(count=0), make_scene(size=(1, 1)), make_scene(size=(33, 8), count=1)]
    path = tmp_path_factory.mktemp("scenes") / "scenes.bin"
    path.write_bytes(b"".join(pack(scene, number % 2, number % 3 > 0) for number, scene in enumerate(scenes)))
    return path, len(scenes)


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_kernels_run_clean(scenes_file, tmp_path, sanitizers):
    path, count = scenes_file
    program = tmp_path / "sanitize"
    flags = [*FLAGS, f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", f"-I{SOURCES}"]
    build = [COMPILER, *flags, str(PROGRAM), "-o", str(program)]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    if "cannot find" in built.stderr and "san" in built.stderr:
        pytest.skip(f"{COMPILER} has no {sanitizers} sanitizer here")
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([program, path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) == count
