"""Properties of all encoders: preprocessing, sizes, and no heavy import before it is needed."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from model.registry import resolve
from model.semantic import SEMANTIC

PUBLISHED = [name for name in SEMANTIC if name not in ("timm", "transformers", "random")]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STATISTICS = {
    "clip_vit_b32": (CLIP_MEAN, CLIP_STD),
    "dinov2_small": (IMAGENET_MEAN, IMAGENET_STD),
    "dinov2_vitl14_reg_lc": (IMAGENET_MEAN, IMAGENET_STD),
    "efficientnet_lite0": ((0.5,) * 3, (0.5,) * 3),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_published_preprocessing_is_a_bilinear_resize_and_the_models_own_statistics(name, encoder, views):
    shown = encoder(name, preprocess="published", resolution=224).prepared(views.images[0])
    assert shown.shape == (2, 3, 224, 224)
    mean, std = (torch.tensor(values)[:, None, None] for values in STATISTICS[name])
    resized = F.interpolate(views.images[0], (224, 224), mode="bilinear", align_corners=False)
    torch.testing.assert_close(shown, (resized - mean) / std)


@pytest.mark.parametrize("name", STATISTICS)
def test_correct_preprocessing_is_antialiased_where_pictures_shrink(name, encoder):
    stripes = torch.zeros(1, 3, 448, 448)
    stripes[..., ::2] = 1.0
    mean, std = (torch.tensor(values)[:, None, None] for values in STATISTICS[name])

    def inside(preprocess):
        shown = encoder(name, preprocess=preprocess, resolution=112).prepared(stripes) * std + mean
        return shown[..., 8:-8, 8:-8]

    assert (inside("correct") - 0.5).abs().max() < 0.02
    other = encoder(name, preprocess="correct", resolution=112).prepared(torch.ones(1, 3, 448, 448))
    torch.testing.assert_close(other, ((1 - mean) / std).expand_as(other))


def test_the_two_preprocessings_differ(encoder, views):
    outputs = [encoder("dinov2_small", preprocess=way)(views) for way in ("published", "correct")]
    assert not torch.allclose(*outputs, atol=1e-3)


@pytest.mark.parametrize(("name", "side"), [("clip_vit_b32", 32), ("dinov2_small", 224), ("efficientnet_lite0", 224)])
def test_the_side_is_the_models_own_by_default(name, side, encoder, views):
    assert encoder(name).prepared(views.images[0]).shape[-2:] == (side, side)
    assert encoder(name, resolution=112).prepared(views.images[0]).shape[-2:] == (112, 112)


@pytest.mark.parametrize("name", ["clip_vit_b32", "dinov2_small", "dinov2_vitl14_reg_lc"])
def test_a_side_that_does_not_divide_into_patches_is_refused(name, encoder):
    with pytest.raises(ValueError, match=r"resolution 50 .*multiples of"):
        encoder(name, resolution=50)


@pytest.mark.parametrize("output_type", ["vector", "tokens"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_encoder_runs_on_a_file_in_its_format(name, output_type, encoder, views):
    model = encoder(name, output_type=output_type, resolution=56)
    values = model(views)
    assert values.shape[:2] == (2, 2)
    assert values.shape[-1] == model.width
    assert values.dim() == (3 if output_type == "vector" else 4)
    assert values.dtype == torch.float32
    assert values.isfinite().all()
    assert torch.equal(values, model.train()(views)), "it is not frozen"
    assert not values.requires_grad


PARAMETERS = {  # millions, as published
    "clip_vit_b32": 87.85,
    "clip_vit_l14": 303.97,
    "dinov2_small": 22.06,
    "dinov2_base": 86.58,
    "dinov2_large": 304.37,
    "dinov2_small_reg": 22.06,
    "dinov2_base_reg": 86.58,
    "dinov2_large_reg": 304.37,
    "dinov2_vitl14_reg_lc": 304.37 + 5.121,
    "efficientnet_lite0": 3.37,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_architectures_have_their_published_size(name):
    with torch.device("meta"):
        network = resolve(SEMANTIC, name, "encoder").architecture()
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert count == pytest.approx(PARAMETERS[name], abs=0.006)


def test_libraries_are_imported_only_for_the_encoders_that_want_them():
    modules = {path.split(":")[0] for path in SEMANTIC.values()} | {"model.weights"}
    code = f"import sys, {', '.join(sorted(modules))}; print({{'timm', 'transformers'}} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
