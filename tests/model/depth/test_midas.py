"""MiDaS small against an independent implementation: timm's encoder, and the decoder as functions of the tensors."""

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from model.depth.midas import MidasSmall
from model.preprocess import IMAGENET
from tests.tiny_depth_checkpoints import MIDAS_ENCODER, midas_tensors


def assembled(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The network by its published description, (N, 3, H, W) -> (N, 1, H, W)."""

    def conv(name: str, x: Tensor, padding: int) -> Tensor:
        return F.conv2d(x, state[f"scratch.{name}.weight"], state.get(f"scratch.{name}.bias"), padding=padding)

    def residual(name: str, x: Tensor) -> Tensor:
        return x + conv(f"{name}.conv2", conv(f"{name}.conv1", x.relu(), 1).relu(), 1)

    encoder = timm.create_model("tf_efficientnet_lite3", pretrained=False).eval()
    beginnings = {theirs: ours for ours, theirs in MIDAS_ENCODER.items()}
    renamed = {
        ours + name.removeprefix(theirs): tensor
        for name, tensor in state.items()
        for theirs, ours in beginnings.items()
        if name.startswith(theirs)
    }
    missing = encoder.load_state_dict(renamed, strict=False).missing_keys
    assert {name.split(".")[0] for name in missing} == {"conv_head", "bn2", "classifier"}
    features = encoder.forward_intermediates(images, indices=(1, 2, 3, 4), intermediates_only=True)

    path = None
    for level in (4, 3, 2, 1):
        x = conv(f"layer{level}_rn", features[level - 1], 1)
        if path is not None:
            x = path + residual(f"refinenet{level}.resConfUnit1", x)
        x = residual(f"refinenet{level}.resConfUnit2", x)
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        path = conv(f"refinenet{level}.out_conv", x, 0)
    x = F.interpolate(conv("output_conv.0", path, 1), scale_factor=2, mode="bilinear", align_corners=False)
    return conv("output_conv.4", conv("output_conv.2", x, 1).relu(), 0).relu()


def test_computes_the_published_architecture(tiny_checkpoints, make_views):
    views = make_views(64)
    model = MidasSmall(tiny_checkpoints, preprocess="published")
    expected = assembled(tiny_checkpoints.load("midas_small"), views.images.flatten(0, 1))
    assert expected.std() > 0.1
    torch.testing.assert_close(model(views).flatten(0, 1), expected, rtol=1e-4, atol=1e-4)


def test_correct_is_256_pixels_with_imagenets_statistics(tiny_checkpoints, make_views):
    views = make_views(64)
    images = F.interpolate(views.images[:, 0], (256, 256), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    large = assembled(tiny_checkpoints.load("midas_small"), (images - mean) / std)
    expected = F.interpolate(large, (64, 64), mode="bicubic").clamp(min=0)
    torch.testing.assert_close(MidasSmall(tiny_checkpoints)(views)[:, 0], expected, rtol=1e-3, atol=1e-3)


def test_all_482_tensors_have_a_place():
    tensors = midas_tensors()
    assert len(tensors) == 482
    network = MidasSmall.loaded({}, tensors)
    parameters = [p.numel() for p in network.parameters()]
    assert sum(parameters) == pytest.approx(21.32e6, rel=1e-3)


def test_other_tensors_are_refused():
    tensors = midas_tensors()
    tensors.pop("scratch.output_conv.4.weight")
    with pytest.raises(ValueError, match=r"(?s)not the weights of midas_small.*output_conv\.4\.weight"):
        MidasSmall.loaded({}, tensors)
