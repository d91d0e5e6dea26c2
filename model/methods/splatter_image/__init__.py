"""Splatter Image (Szymanowicz et al. 2024): Gaussians for every source pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from model.fusion import Place
from model.methods.base import Method, MethodOptions, SceneKind, Setting
from model.methods.splatter_image.backbones import BACKBONES, find_backbone
from model.methods.splatter_image.options import SplatterImageOptions
from model.options import MisfitError
from model.registry import UnknownChoiceError, is_choice

if TYPE_CHECKING:
    from model.fusion.base import Fusion
    from model.methods.splatter_image.predictor import GaussianPredictor

_DEFAULT_BACKBONE = "unet"


class SplatterImage(Method):
    """A network predicts the parameters of one Gaussian, or two, for every pixel of the source views."""

    Options: ClassVar[type[MethodOptions]] = find_backbone(_DEFAULT_BACKBONE).Options
    scene: ClassVar[SceneKind] = "gaussians"
    adam_eps: ClassVar[float] = 1e-15

    @classmethod
    def all_options(cls) -> tuple[type[MethodOptions], ...]:
        return tuple(find_backbone(name).Options for name in BACKBONES)

    @classmethod
    def options_for(cls, values: Any) -> type[MethodOptions]:
        name = values.get("backbone", _DEFAULT_BACKBONE) if isinstance(values, Mapping) else _DEFAULT_BACKBONE
        if not is_choice(name, BACKBONES):
            raise MisfitError("model.backbone", str(UnknownChoiceError("backbone", name, BACKBONES)))
        return find_backbone(name).Options

    @classmethod
    def places(cls, options: SplatterImageOptions) -> frozenset[Place]:
        return find_backbone(options.backbone).places

    @classmethod
    def check(cls, options: SplatterImageOptions, resolution: int) -> None:
        find_backbone(options.backbone).check(options, resolution)

    @classmethod
    def check_place(cls, options: SplatterImageOptions, resolution: int, way: type[Fusion], fusion: str) -> None:
        find_backbone(options.backbone).check_place(options, resolution, way, fusion)

    @classmethod
    def build(cls, options: SplatterImageOptions, setting: Setting, contexts: Sequence[Fusion]) -> GaussianPredictor:
        import torch

        from model.methods.splatter_image.heads import GaussianHead, gaussian_groups
        from model.methods.splatter_image.predictor import GaussianPredictor

        groups = gaussian_groups(options.head.model_dump(), options.sh_degree, options.gaussians_per_pixel)
        channels = sum(group.channels for group in groups)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            backbone = find_backbone(options.backbone).build(options, setting.resolution, channels, contexts)
            head = GaussianHead(groups)
        return GaussianPredictor(backbone, head, setting.backend, setting.antialiasing)
