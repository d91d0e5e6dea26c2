import pytest
import torch

from model.semantic.dinov2_classifier import Dinov2VitL14RegistersClassifier
from model.weights import MissingWeightsError, WeightStore
from tests.tiny_checkpoints import write_tiny_checkpoint

NAME = "dinov2_vitl14_reg_lc"


@pytest.fixture
def file(tmp_path):
    write_tiny_checkpoint(NAME, tmp_path)
    return tmp_path / f"{NAME}.pth"


def timm_features(tensors, images, side):
    """Normalised class tokens and patches of all layers, by timm, which has its own code for the authors' names."""
    import timm

    backbone = {n.removeprefix("backbone."): t.clone() for n, t in tensors.items() if n.startswith("backbone.")}
    judge = timm.create_model(
        "vit_small_patch14_reg4_dinov2",
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": backbone},
        embed_dim=64,
        depth=4,
        num_heads=1,
        img_size=side,
    ).eval()
    return judge.get_intermediate_layers(images, n=4, return_prefix_tokens=True, norm=True)


@pytest.mark.parametrize("side", [56, 112, 224])
def test_logits_are_of_four_class_tokens_and_the_mean_patch(side, file, views):
    model = Dinov2VitL14RegistersClassifier(WeightStore(file.parent), resolution=side)
    tensors = torch.load(file, weights_only=True)
    layers = timm_features(tensors, model.prepared(views.images.flatten(0, 1)), side)
    tokens = [prefix[:, 0] for _, prefix in layers] + [layers[-1][0].mean(dim=1)]
    logits = torch.cat(tokens, dim=1) @ tensors["linear_head.weight"].T + tensors["linear_head.bias"]
    torch.testing.assert_close(model(views).flatten(0, 1), logits, rtol=1e-3, atol=1e-4)
    assert model.width == 1000


def test_tokens_are_the_last_layers_patches(file, views):
    model = Dinov2VitL14RegistersClassifier(WeightStore(file.parent), output_type="tokens", resolution=56)
    layers = timm_features(torch.load(file, weights_only=True), model.prepared(views.images.flatten(0, 1)), 56)
    torch.testing.assert_close(model(views).flatten(0, 1), layers[-1][0], rtol=1e-3, atol=1e-4)


def test_the_two_files_of_the_publisher_serve_as_well(file, views, tmp_path):
    tensors = torch.load(file, weights_only=True)
    folder = tmp_path / "apart" / NAME
    folder.mkdir(parents=True)
    for prefix, name in (("backbone.", "pretrain"), ("linear_head.", "linear4_head")):
        part = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        torch.save(part, folder / f"dinov2_vitl14_reg4_{name}.pth")
    apart = Dinov2VitL14RegistersClassifier(WeightStore(folder.parent), resolution=56)
    joined = Dinov2VitL14RegistersClassifier(WeightStore(file.parent), resolution=56)
    assert torch.equal(apart(views), joined(views))


@pytest.mark.parametrize("name", ["linear_head.bias", "backbone.norm.bias", "backbone.blocks.2.attn.qkv.weight"])
def test_missing_tensors_are_refused(name, file):
    tensors = torch.load(file, weights_only=True)
    del tensors[name]
    torch.save(tensors, file)
    with pytest.raises(MissingWeightsError, match=r"missing or of another shape|lack them"):
        Dinov2VitL14RegistersClassifier(WeightStore(file.parent))


def test_tensors_that_a_dinov2_has_not_are_refused(file):
    tensors = torch.load(file, weights_only=True)
    tensors["backbone.head.weight"] = torch.ones(1)
    torch.save(tensors, file)
    with pytest.raises(MissingWeightsError, match=r"no tensor 'head\.weight'"):
        Dinov2VitL14RegistersClassifier(WeightStore(file.parent))
