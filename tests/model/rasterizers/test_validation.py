"""Every invalid argument is rejected with its name."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.rasterizers import BACKENDS, cpu, is_available, render
from model.registry import UnknownChoiceError
from tests.kernels import rasteriser_kernels


def with_value(tensor, value):
    tensor = tensor.clone()
    tensor.view(-1)[1] = value
    return tensor


GAUSSIANS = {
    "means": [lambda t: t[..., :2], lambda t: t[0], lambda t: t.long(), lambda t: with_value(t, float("nan"))],
    "scales": [lambda t: t[:, 1:], lambda t: t.double(), lambda t: with_value(t, float("inf"))],
    "rotations": [lambda t: t[..., :3], lambda t: with_value(t, float("-inf"))],
    "opacities": [lambda t: t[..., 0], lambda t: with_value(t, 1.01), lambda t: with_value(t, -0.01)],
    "sh": [lambda t: t[:, :, :3], lambda t: t.flatten(2), lambda t: t.to("meta")],
}
CAMERAS = {
    "world_to_camera": [
        lambda t: t[:1],
        lambda t: t[..., :3, :],
        lambda t: t * 0,
        lambda t: with_value(t, float("nan")),
    ],
    "focal": [lambda t: t[:, :1], lambda t: t * 0, lambda t: t.clone().requires_grad_()],
    "principal": [lambda t: t[..., :1], lambda t: with_value(t, float("inf"))],
    "height": [lambda _: 0, lambda _: 2.5, lambda _: 2**15],
    "width": [lambda _: -3],
    "near": [lambda _: 0.0, lambda _: float("nan")],
}


#: The backends for both ways of checking values: by the kernels, and by torch.
backends = pytest.mark.parametrize("backend", ["cpu", "reference"])


@backends
@pytest.mark.parametrize(("name", "spoil"), [(n, s) for n, spoilers in GAUSSIANS.items() for s in spoilers])
def test_bad_gaussians(make_scene, name, spoil, backend):
    scene = make_scene(batch=(2, 2))
    gaussians = replace(scene.gaussians, **{name: spoil(getattr(scene.gaussians, name))})
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        render(gaussians, scene.cameras, scene.background, backend)


@backends
@pytest.mark.parametrize(("name", "spoil"), [(n, s) for n, spoilers in CAMERAS.items() for s in spoilers])
def test_bad_cameras(make_scene, name, spoil, backend):
    scene = make_scene(batch=(2, 2))
    cameras = replace(scene.cameras, **{name: spoil(getattr(scene.cameras, name))})
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        render(scene.gaussians, cameras, scene.background, backend)


@backends
@pytest.mark.parametrize(
    "background", [torch.zeros(2), torch.zeros(3, 3), torch.full((3,), float("nan")), torch.zeros(3).long(), 1.0]
)
def test_bad_background(make_scene, background, backend):
    scene = make_scene(batch=(2, 2))
    with pytest.raises(ValueError, match=r"^background\b"):
        render(scene.gaussians, scene.cameras, background, backend)


@backends
def test_finite_values_whose_sum_overflows_pass(make_scene, backend):
    scene = make_scene()
    gaussians = replace(scene.gaussians, sh=torch.full_like(scene.gaussians.sh, 3e37))
    assert torch.isfinite(render(gaussians, scene.cameras, scene.background, backend)).any()


@pytest.mark.parametrize("kernels", rasteriser_kernels())
@pytest.mark.parametrize("field", ["means", "scales", "rotations", "opacities", "sh"])
def test_kernels_see_every_value(make_scene, kernels, field):
    """They check every Gaussian, also in the last group, which may be smaller than the others."""
    scene = make_scene(count=301, degree=3)
    for number in (0, 255, 300):
        tensor = getattr(scene.gaussians, field).clone()
        tensor[0, number].view(-1)[-1] = float("nan")
        gaussians = replace(scene.gaussians, **{field: tensor})
        with pytest.raises(ValueError, match=rf"^{field}: 1 of {tensor.numel()} values are NaN or infinite$"):
            cpu.render(gaussians, scene.cameras, scene.background, False, False, kernels=kernels)


def test_values_beyond_float32_are_refused_by_the_kernels(make_scene):
    scene = make_scene()
    gaussians = replace(scene.gaussians.to(torch.float64), means=with_value(scene.gaussians.means.double(), 1e300))
    with pytest.raises(ValueError, match=r"^means: 1 of .* values are NaN or infinite$"):
        render(gaussians, scene.cameras, scene.background.double(), "cpu")


def test_unknown_backend(make_scene):
    scene = make_scene()
    with pytest.raises(UnknownChoiceError, match="did you mean 'reference'"):
        render(scene.gaussians, scene.cameras, scene.background, backend="referense")


@pytest.mark.parametrize("backend", ["auto", *filter(is_available, BACKENDS)])
def test_one_background_serves_all_scenes(make_scene, backend):
    scene = make_scene(batch=(2, 2))
    background = torch.tensor([0.2, 0.4, 0.6], requires_grad=True)
    images = render(scene.gaussians, scene.cameras, background, backend)
    assert images.shape == (2, 2, 3, 20, 24)
    assert torch.equal(images, render(scene.gaussians, scene.cameras, background.expand(2, 3), backend))
    images.sum().backward()
    assert background.grad.shape == (3,)
    assert (background.grad > 0).all()
