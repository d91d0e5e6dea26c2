"""Depth models of the transformers library against the library's own loading, processing and forward pass."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from torch.nn import functional as F

from model.depth import DEPTH
from model.depth.zoe import ZoeDepth
from model.preprocess import HALF, IMAGENET
from model.registry import resolve

TASKS = {
    "dpt_large": "DPTForDepthEstimation",
    "dpt_hybrid": "DPTForDepthEstimation",
    "depth_anything_v2_small": "DepthAnythingForDepthEstimation",
    "depth_anything_v2_base": "DepthAnythingForDepthEstimation",
    "depth_anything_v2_large": "DepthAnythingForDepthEstimation",
    "zoedepth": "ZoeDepthForDepthEstimation",
}


@pytest.fixture(params=TASKS)
def name(request):
    return request.param


def model_of(name, store, **keywords):
    return resolve(DEPTH, name, "depth model")(store, **keywords)


def library(name, folder):
    return getattr(transformers, TASKS[name]).from_pretrained(folder, local_files_only=True).eval()


@torch.no_grad()
def test_published_shows_the_raw_picture_at_its_own_size(name, tiny_checkpoints, published, make_views):
    model = model_of(name, tiny_checkpoints, preprocess="published")
    # For the hybrid, it is also the only size at which the library itself accepts the stand-in.
    views = make_views(2 * model.stride)
    theirs = library(name, published(name))
    # One image at a time, because ZoeDepth's output depends on the other images in a batch.
    expected = torch.stack([theirs(image).predicted_depth for image in views.images]).unsqueeze(2)
    if name == "zoedepth":
        expected = 1 / expected
    assert expected.std(dim=(2, 3, 4)).min() > 1e-4
    torch.testing.assert_close(model(views), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", ["dpt_large", "depth_anything_v2_small"])
def test_correct_is_what_the_processor_does(name, tiny_checkpoints, published, make_views):
    side, (mean, std) = (518, IMAGENET) if name.startswith("depth_anything") else (384, HALF)
    processor = transformers.DPTImageProcessor(
        size={"height": side, "width": side},
        do_rescale=False,
        image_mean=mean,
        image_std=std,
        ensure_multiple_of=2,
        keep_aspect_ratio=True,
    )
    views = make_views(48)
    inputs = processor(list(views.images[:, 0]), return_tensors="pt")["pixel_values"]
    assert inputs.shape[-2:] == (side, side)
    maps = library(name, published(name))(inputs).predicted_depth
    expected = F.interpolate(maps[:, None], (48, 48), mode="bicubic").clamp(min=0)
    # Bicubic interpolation overshoots slightly where the processor does not clamp.
    torch.testing.assert_close(model_of(name, tiny_checkpoints)(views)[:, 0], expected, rtol=0.02, atol=0.02)


@torch.no_grad()
def test_correct_zoedepth_pads_and_crops_as_its_processor(tiny_checkpoints, published, make_views):
    processor = transformers.ZoeDepthImageProcessor(do_rescale=False)
    views = make_views(48)
    theirs = library("zoedepth", published("zoedepth"))
    expected = []
    for image in views.images[:, 0]:
        inputs = processor(image, return_tensors="pt")["pixel_values"]
        assert inputs.shape == (1, 3, 384, 384)
        inverse = SimpleNamespace(predicted_depth=1 / theirs(inputs).predicted_depth)
        expected.append(processor.post_process_depth_estimation(inverse, source_sizes=[(48, 48)])[0]["predicted_depth"])
    maps = model_of("zoedepth", tiny_checkpoints)(views)
    torch.testing.assert_close(maps[:, 0, 0], torch.stack(expected), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_picture_means_the_same_beside_others(tiny_checkpoints, make_views):
    views = make_views(32)
    model = model_of("zoedepth", tiny_checkpoints, preprocess="published")
    alone = type(views)(**{f: getattr(views, f) for f in views.__slots__} | {"images": views.images[:1]})
    assert torch.equal(model(views)[:1], model(alone))


class Touching(torch.nn.Module):
    """Sees every pixel at the camera's centre."""

    def forward(self, prepared):
        return SimpleNamespace(predicted_depth=torch.zeros(len(prepared), *prepared.shape[2:]))


def test_zoedepth_of_no_distance_is_finite(make_views):
    maps = ZoeDepth(None, network=Touching())(make_views(32))
    torch.testing.assert_close(maps, torch.full_like(maps, 1000))


@pytest.mark.parametrize(("name", "side"), [("dpt_large", 64), ("dpt_hybrid", 64), ("depth_anything_v2_small", 42)])
def test_published_preprocessing_rounds_up_to_the_next_multiple(name, side, tiny_checkpoints, make_views):
    model = model_of(name, tiny_checkpoints, preprocess="published")
    assert model.prepared(make_views(40).images[:, 0]).shape == (2, 3, side, side)
    assert model(make_views(40)).shape == (2, 1, 1, 40, 40)


def test_a_resolution_that_does_not_fit_is_refused(tiny_checkpoints):
    with pytest.raises(ValueError, match="resolution 100 for depth_anything_v2_small; allowed: multiples of 14"):
        model_of("depth_anything_v2_small", tiny_checkpoints, resolution=100)


def test_missing_tensors_are_refused(name, tiny_checkpoints):
    tensors = tiny_checkpoints.load(name)
    dropped = next(key for key in tensors if "neck.fusion_stage.layers.1" in key)
    del tensors[dropped]
    with pytest.raises(ValueError, match=f"not the weights of {name}: missing or of another shape: {dropped}"):
        resolve(DEPTH, name, "depth model").loaded(tiny_checkpoints.config(name), tensors)


def test_a_foreign_configuration_is_refused():
    with pytest.raises(ValueError, match="configuration of dpt_large"):
        resolve(DEPTH, "dpt_large", "depth model").loaded({"hidden_size": "big"}, {})


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("dpt_hybrid", 122.38),
        ("dpt_large", 343.03),
        ("depth_anything_v2_small", 24.79),
        ("depth_anything_v2_base", 97.47),
        ("depth_anything_v2_large", 335.32),
    ],
)
def test_architectures_have_the_published_size(name, millions):
    with torch.device("meta"):
        network = resolve(DEPTH, name, "depth model").architecture()
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
