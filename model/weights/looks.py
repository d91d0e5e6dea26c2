"""Identifies the model of a set of tensors by names and shapes, before it replaces a correct file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_CLASSIFIER = "convolutions of an image classifier"

#: Names of tensors -> their shapes.
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Looks:
    """A family of models with equal tensor names, and the sizes that distinguish its members."""

    family: str
    sizes: tuple[tuple[str, int], ...] = ()


def _blocks(shapes: Shapes, pattern: str) -> int:
    """Number of distinct numbers that `pattern` captures."""
    return len({match[1] for name in shapes if (match := re.match(pattern, name))})


def _at(shapes: Shapes, name: str, axis: int) -> int:
    shape = shapes.get(name, ())
    return shape[axis] if -len(shape) <= axis < len(shape) else 0


def _looks(family: str, **sizes: int) -> Looks:
    return Looks(family, tuple(sorted(sizes.items())))


def _clip(shapes: Shapes) -> Looks:
    return _looks(
        "CLIP",
        width=_at(shapes, "vision_model.embeddings.class_embedding", 0),
        layers=_blocks(shapes, r"vision_model\.encoder\.layers\.(\d+)\."),
        patch=_at(shapes, "vision_model.embeddings.patch_embedding.weight", -1),
        positions=_at(shapes, "vision_model.embeddings.position_embedding.weight", 0),
    )


def _dinov2(shapes: Shapes, token: str, block: str, registers: str) -> Looks:
    return _looks(
        "DINOv2",
        width=_at(shapes, token, -1),
        layers=_blocks(shapes, block),
        registers=_at(shapes, registers, 1),
    )


def _dinov2_hub(shapes: Shapes) -> Looks:
    return _dinov2(shapes, "embeddings.cls_token", r"encoder\.layer\.(\d+)\.", "embeddings.register_tokens")


def _dinov2_facebook(shapes: Shapes) -> Looks:
    return _dinov2(shapes, "cls_token", r"blocks\.(\d+)\.", "register_tokens")


def _dinov2_classifier(shapes: Shapes) -> Looks:
    backbone = {name.removeprefix("backbone."): shape for name, shape in shapes.items()}
    return Looks("DINOv2 with its linear classifier", _dinov2_facebook(backbone).sizes)


def _dpt(shapes: Shapes) -> Looks:
    return _looks(
        "DPT",
        width=_at(shapes, "dpt.embeddings.cls_token", -1),
        layers=_blocks(shapes, r"dpt\.encoder\.layer\.(\d+)\."),
        hybrid=int(any(name.startswith("dpt.embeddings.backbone.") for name in shapes)),
    )


def _depth_anything(shapes: Shapes) -> Looks:
    return _looks(
        "Depth Anything",
        width=_at(shapes, "backbone.embeddings.cls_token", -1),
        layers=_blocks(shapes, r"backbone\.encoder\.layer\.(\d+)\."),
    )


def _trunk(channels: Mapping[int, int]) -> Looks:
    return _looks(_CLASSIFIER, **{f"layer {position}": width for position, width in channels.items()})


def _convolutions(shapes: Shapes) -> Looks:
    """Positions in a sequence, and channels."""
    widths = {name: shape[0] for name, shape in shapes.items() if re.fullmatch(r"\d+\.weight", name)}
    return _trunk({int(name.removesuffix(".weight")): width for name, width in widths.items()})


def _midas(shapes: Shapes) -> Looks:
    return _looks("MiDaS v2.1", stem=_at(shapes, "pretrained.layer1.0.weight", 0))


def _resnet(shapes: Shapes) -> Looks:
    """Blocks of the third stage, and convolutions of a block: two, or three where they are bottlenecks."""
    return _looks(
        "ResNet",
        blocks=_blocks(shapes, r"layer3\.(\d+)\."),
        convolutions=_blocks(shapes, r"layer4\.0\.conv(\d)\."),
    )


def _plain(family: str) -> Callable[[Shapes], Looks]:
    return lambda _: Looks(family)


#: Pattern of a tensor that all members of a family have -> the family; the first match is used.
_FAMILIES: tuple[tuple[str, Callable[[Shapes], Looks]], ...] = (
    (r"vision_model\.embeddings\.patch_embedding\.weight", _clip),
    (r"linear_head\.weight", _dinov2_classifier),
    (r"embeddings\.cls_token", _dinov2_hub),
    (r"blocks\.0\.ls1\.gamma", _dinov2_facebook),
    (r"dpt\.embeddings\.cls_token", _dpt),
    (r"metric_head\..*|relative_head\..*", _plain("ZoeDepth")),
    (r"backbone\.embeddings\.cls_token", _depth_anything),
    (r"depth_head\.projects\.0\.weight", _plain("Depth Anything under its authors' own names, not the hub's")),
    (r"pretrained\.model\..*", _plain("a transformer of MiDaS under its authors' own names, not whole")),
    (r"(core\.)+pretrained\..*", _plain("ZoeDepth under its authors' own names, not the hub's")),
    (r"pretrained\.layer1\.0\.weight", _midas),
    (r"vision_model\.encoder\..*|visual\..*", _plain("a part of a CLIP")),
    (r"layer4\.\d+\.conv\d\.weight", _resnet),
    (r"alpha|beta", _plain("DISTS")),
    (r"0\.weight", _convolutions),
)


def identify(shapes: Shapes) -> Looks | None:
    """Identifies the model with tensors of these shapes; None where it is unknown."""
    for pattern, looks in _FAMILIES:
        if any(re.fullmatch(pattern, name) for name in shapes):
            return looks(shapes)
    return None


def _vit(width: int, layers: int, registers: int = 0) -> Looks:
    return _looks("DINOv2", width=width, layers=layers, registers=registers)


def _vgg(*depths: int) -> Looks:
    """`depths` convolutions in each of five stages; an activation follows each, a pooling each stage."""
    channels, position = {}, 0
    for depth, width in zip(depths, (64, 128, 256, 512, 512), strict=True):
        for _ in range(depth):
            channels[position] = width
            position += 2
        position += 1
    return _trunk(channels)


#: Names of the table of weights, and other published models that can be mistaken for them.
KNOWN: dict[str, Looks] = {
    "vgg16": _vgg(2, 2, 3, 3, 3),
    "VGG19": _vgg(2, 2, 4, 4, 4),
    "alexnet": _trunk({0: 64, 3: 192, 6: 384, 8: 256, 10: 256}),
    "clip_vit_b32": _looks("CLIP", width=768, layers=12, patch=32, positions=50),
    "CLIP ViT-B/16": _looks("CLIP", width=768, layers=12, patch=16, positions=197),
    "clip_vit_l14": _looks("CLIP", width=1024, layers=24, patch=14, positions=257),
    "CLIP ViT-L/14 at 336 px": _looks("CLIP", width=1024, layers=24, patch=14, positions=577),
    "dinov2_small": _vit(384, 12),
    "dinov2_base": _vit(768, 12),
    "dinov2_large": _vit(1024, 24),
    "DINOv2 giant": _vit(1536, 40),
    "dinov2_small_reg": _vit(384, 12, 4),
    "dinov2_base_reg": _vit(768, 12, 4),
    "dinov2_large_reg": _vit(1024, 24, 4),
    "DINOv2 giant with registers": _vit(1536, 40, 4),
    "dinov2_vitl14_reg_lc": Looks("DINOv2 with its linear classifier", _vit(1024, 24, 4).sizes),
    "dpt_large": _looks("DPT", width=1024, layers=24, hybrid=0),
    "dpt_hybrid": _looks("DPT", width=768, layers=12, hybrid=1),
    "depth_anything_v2_small": _looks("Depth Anything", width=384, layers=12),
    "depth_anything_v2_base": _looks("Depth Anything", width=768, layers=12),
    "depth_anything_v2_large": _looks("Depth Anything", width=1024, layers=24),
    "resnet34": _looks("ResNet", blocks=6, convolutions=2),
    "dists": Looks("DISTS"),
    "zoedepth": Looks("ZoeDepth"),
    "midas_small": _looks("MiDaS v2.1", stem=32),
    "MiDaS v2.1 large": _looks("MiDaS v2.1", stem=64),
}
#: Families whose members have fixed sizes: another width is not a smaller variant.
_EXACT = (_CLASSIFIER, "ResNet")


def mistaken(name: str, shapes: Shapes) -> str | None:
    """The reason why tensors of these shapes are not the weights `name`; None where they may be or it is unknown."""
    wanted, found = KNOWN.get(name), identify(shapes)
    if wanted is None or found == wanted:
        return None
    if found is None or (found.family != wanted.family and not found.sizes):
        what = found.family if found else f"unknown here: {', '.join(list(shapes)[:3])}, ..."
        return f"these are not the tensors of {name}; they are {what}"
    others = [other for other, looks in KNOWN.items() if looks == found]
    if others:
        return f"these are not the tensors of {name}; they are those of {others[0]}"
    if found.family != wanted.family or found.family in _EXACT:
        return f"these are not the tensors of {name}, but {_described(found)}"
    return None


def is_of_other_sizes(name: str, shapes: Shapes) -> str | None:
    """Describes how the model of these shapes differs from `name`; None where it does not, or either is unknown."""
    wanted, found = KNOWN.get(name), identify(shapes)
    if wanted is None or found is None or found == wanted:
        return None
    return f"{_described(found)}, where {name} has {_described(wanted)}"


def _described(looks: Looks) -> str:
    sizes = ", ".join(f"{key} {value}" for key, value in looks.sizes)
    return f"{looks.family} ({sizes})" if sizes else looks.family
