"""Written files follow the format and can be read by plyfile; reading gives the written Gaussians."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from model.ply import read_ply, write_ply
from model.rasterizers.reference import select
from model.types import Gaussians


def make_gaussians(degree: int, count: int = 5) -> Gaussians:
    random = torch.Generator().manual_seed(degree)
    return Gaussians(
        means=torch.randn(1, count, 3, generator=random),
        scales=torch.rand(1, count, 3, generator=random) + 0.01,
        rotations=torch.nn.functional.normalize(torch.randn(1, count, 4, generator=random), dim=-1),
        opacities=torch.rand(1, count, 1, generator=random) * 0.98 + 0.01,
        sh=torch.randn(1, count, (degree + 1) ** 2, 3, generator=random),
    )


@pytest.mark.parametrize("degree", range(4))
def test_comes_back_as_it_was(tmp_path, degree):
    gaussians = make_gaussians(degree)
    write_ply(gaussians, tmp_path / "scene.ply")
    again = read_ply(tmp_path / "scene.ply")
    for field in fields(Gaussians):
        torch.testing.assert_close(getattr(again, field.name), getattr(gaussians, field.name), rtol=1e-5, atol=1e-6)


def test_is_the_format_that_viewers_read(tmp_path):
    gaussians = make_gaussians(degree=3)
    write_ply(gaussians, tmp_path / "scene.ply")
    assert (tmp_path / "scene.ply").read_bytes().startswith(b"ply\nformat binary_little_endian 1.0\n")
    ply = PlyData.read(str(tmp_path / "scene.ply"))
    vertices = ply["vertex"]
    names = [*"xyz", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(45)), "opacity"]
    assert [element.name for element in ply.elements] == ["vertex"]
    assert [p.name for p in vertices.properties] == names + [f"scale_{i}" for i in range(3)] + [
        f"rot_{i}" for i in range(4)
    ]
    assert {p.val_dtype for p in vertices.properties} == {"f4"}
    one = select(gaussians, 0, 2)
    row = vertices[2]
    assert [row[name] for name in "xyz"] == one.means.tolist()
    assert [row["nx"], row["ny"], row["nz"]] == [0, 0, 0]
    assert [row[f"f_dc_{c}"] for c in range(3)] == one.sh[0].tolist()
    assert row["f_rest_3"] == one.sh[4, 0]  # red, band 4
    assert row["f_rest_15"] == one.sh[1, 1]  # the first of green
    opacity, scale = one.opacities.item(), one.scales[1].item()
    assert row["opacity"] == pytest.approx(np.log(opacity / (1 - opacity)), rel=1e-5)
    assert row["scale_1"] == pytest.approx(np.log(scale), rel=1e-5)
    assert [row[f"rot_{i}"] for i in range(4)] == one.rotations.tolist()


def test_numbers_without_a_logarithm_stay_finite(tmp_path):
    gaussians = make_gaussians(degree=0, count=2)
    extreme = replace(
        gaussians, opacities=torch.tensor([[[0.0], [1.0]]]), scales=torch.tensor([[[0.0, 1e-3, 1], [-0.5, 1, 1]]])
    )
    write_ply(extreme, tmp_path / "scene.ply")
    again = read_ply(tmp_path / "scene.ply")
    torch.testing.assert_close(again.opacities, extreme.opacities, rtol=0, atol=1e-6)
    torch.testing.assert_close(again.scales, extreme.scales.abs())


def test_no_gaussians(tmp_path):
    write_ply(make_gaussians(degree=1, count=0), tmp_path / "scene.ply")
    assert read_ply(tmp_path / "scene.ply").sh.shape == (1, 0, 4, 3)


def test_properties_in_any_order_and_precision(tmp_path):
    write_ply(make_gaussians(degree=1), tmp_path / "scene.ply")
    expected = read_ply(tmp_path / "scene.ply")
    data = PlyData.read(str(tmp_path / "scene.ply"))["vertex"].data
    shuffled = np.empty(len(data), [(name, "f8") for name in sorted(data.dtype.names)])
    for name in data.dtype.names:
        shuffled[name] = data[name]
    PlyData([PlyElement.describe(shuffled, "vertex")], text=True).write(str(tmp_path / "other.ply"))
    again = read_ply(tmp_path / "other.ply")
    for field in fields(Gaussians):
        assert torch.equal(getattr(again, field.name), getattr(expected, field.name))


def test_only_one_scene_fits(tmp_path):
    two = replace(make_gaussians(0), means=torch.zeros(2, 5, 3))
    with pytest.raises(ValueError, match="holds one scene, got 2"):
        write_ply(two, tmp_path / "scene.ply")


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["x", "y", "z"], "lacks f_dc_0"),
        ([*"xyz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(3))], "lacks opacity"),
    ],
)
def test_other_point_clouds_are_refused(tmp_path, names, problem):
    points = np.zeros(3, [(name, "f4") for name in names])
    PlyData([PlyElement.describe(points, "vertex")]).write(str(tmp_path / "points.ply"))
    with pytest.raises(ValueError, match=rf"points.ply is not a .ply of Gaussians: it {problem}"):
        read_ply(tmp_path / "points.ply")


def test_harmonics_of_no_degree_are_refused(tmp_path):
    write_ply(make_gaussians(degree=1), tmp_path / "scene.ply")
    data = PlyData.read(str(tmp_path / "scene.ply"))["vertex"].data
    names = [name for name in data.dtype.names if name not in ("f_rest_6", "f_rest_7", "f_rest_8")]
    fewer = np.empty(len(data), [(name, "f4") for name in names])
    for name in names:
        fewer[name] = data[name]
    PlyData([PlyElement.describe(fewer, "vertex")]).write(str(tmp_path / "odd.ply"))
    with pytest.raises(ValueError, match="3 harmonics belong to no degree"):
        read_ply(tmp_path / "odd.ply")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a ply",
        b"ply\nformat ascii 1.0\nelement face 0\nend_header\n",
        b"ply\n\xff",
        b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float x\nend_header\n1 2\n",
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "noise.ply"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"noise\.ply is not a .ply of Gaussians"):
        read_ply(path)
