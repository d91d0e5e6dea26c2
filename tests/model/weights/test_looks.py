import pytest

from model.weights import WEIGHTS
from model.weights.looks import KNOWN, identify, is_of_other_sizes, mistaken


def clip(width, layers, patch, positions):
    block = {f"vision_model.encoder.layers.{n}.mlp.fc1.weight": (4 * width, width) for n in range(layers)}
    return block | {
        "vision_model.embeddings.class_embedding": (width,),
        "vision_model.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": (positions, width),
    }


def dinov2(width, layers, registers=0):
    tokens = {"embeddings.register_tokens": (1, registers, width)} if registers else {}
    return (
        tokens
        | {"embeddings.cls_token": (1, 1, width)}
        | {f"encoder.layer.{n}.norm1.bias": (width,) for n in range(layers)}
    )


def facebook(width, layers, registers=0):
    tokens = {"register_tokens": (1, registers, width)} if registers else {}
    return tokens | {"cls_token": (1, 1, width)} | {f"blocks.{n}.ls1.gamma": (width,) for n in range(layers)}


def dpt(width, layers, hybrid=False):
    extra = {"dpt.embeddings.backbone.bit.embedder.norm.bias": (64,)} if hybrid else {}
    return (
        extra | {"dpt.embeddings.cls_token": (1, 1, width)} | {f"dpt.encoder.layer.{n}.a": (1,) for n in range(layers)}
    )


def resnet(blocks, convolutions):
    names = [f"layer3.{n}.conv1.weight" for n in range(blocks)]
    names += [f"layer4.0.conv{n}.weight" for n in range(1, convolutions + 1)]
    return dict.fromkeys(names, (1, 1, 3, 3))


def trunk(**channels):
    return {f"{position[1:]}.weight": (width, 3, 3, 3) for position, width in channels.items()}


GOOD = {
    "clip_vit_b32": clip(768, 12, 32, 50),
    "clip_vit_l14": clip(1024, 24, 14, 257),
    "dinov2_small": dinov2(384, 12),
    "dinov2_base": facebook(768, 12),
    "dinov2_large_reg": dinov2(1024, 24, 4),
    "dpt_large": dpt(1024, 24),
    "dpt_hybrid": dpt(768, 12, hybrid=True),
    "alexnet": trunk(_0=64, _3=192, _6=384, _8=256, _10=256),
    "resnet34": resnet(6, 2),
    "dists": {"alpha": (1, 1475, 1, 1), "beta": (1, 1475, 1, 1)},
}


@pytest.mark.parametrize("name", GOOD)
def test_weights_are_what_they_look_like(name):
    assert mistaken(name, GOOD[name]) is None
    assert is_of_other_sizes(name, GOOD[name]) is None
    for other in GOOD.keys() - {name}:
        assert f"are not the tensors of {other}" in str(mistaken(other, GOOD[name]))


@pytest.mark.parametrize(
    ("name", "shapes", "what"),
    [
        ("clip_vit_b32", clip(768, 12, 16, 197), "those of CLIP ViT-B/16"),
        ("clip_vit_l14", clip(1024, 24, 14, 577), "those of CLIP ViT-L/14 at 336 px"),
        ("dinov2_large", dinov2(1536, 40), "those of DINOv2 giant"),
        ("dinov2_base_reg", facebook(768, 12), "those of dinov2_base"),
        (
            "depth_anything_v2_small",
            {"pretrained.cls_token": (1, 1, 384), "depth_head.projects.0.weight": (48, 384)},
            "own names",
        ),
        ("zoedepth", {"core.core.pretrained.model.cls_token": (1, 1, 1024)}, "ZoeDepth under its authors' own names"),
        ("midas_small", {"pretrained.layer1.0.weight": (64, 3, 7, 7)}, "those of MiDaS v2.1 large"),
        ("vgg16", {"classifier.0.weight": (9, 9)}, "unknown here: classifier.0.weight"),
        ("resnet34", resnet(2, 2), "ResNet (blocks 2, convolutions 2)"),
        ("resnet34", resnet(6, 3), "ResNet (blocks 6, convolutions 3)"),
        ("vgg16", trunk(_0=64, _2=64), "convolutions of an image classifier (layer 0 64, layer 2 64)"),
    ],
)
def test_others_are_named(name, shapes, what):
    assert what in str(mistaken(name, shapes))


def test_a_model_of_the_kind_in_a_size_that_nobody_publishes_is_no_mistake():
    assert mistaken("dinov2_small", dinov2(64, 4)) is None
    assert "layers 4, registers 0, width 64" in str(is_of_other_sizes("dinov2_small", dinov2(64, 4)))


def test_weights_by_any_name_are_taken_as_they_are():
    assert mistaken("hub:some/model", {"a": (1,)}) is None
    assert identify({"a": (1,)}) is None


def test_names_are_those_of_the_table():
    listed = {name for name in KNOWN if name.islower() and " " not in name}
    assert listed <= WEIGHTS.keys()
