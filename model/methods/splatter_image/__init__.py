"""Splatter Image (Szymanowicz et al. 2024): one Gaussian a source pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from model.fusion import Place
from model.methods.base import Method, MethodOptions, SceneKind, Setting
from model.options import Count, Counts, Finite, MisfitError, Positive, Section

if TYPE_CHECKING:
    from model.fusion.base import Fusion
    from model.methods.splatter_image.predictor import GaussianPredictor


class HeadOptions(Section):
    """Initial size and offset of each group of raw Gaussian parameters."""

    depth_scale: Finite = 1.0
    depth_bias: Finite = 0.0
    offset_scale: Finite = 0.1
    offset_bias: Finite = 0.0
    opacity_scale: Finite = 1.0
    opacity_bias: Finite = -2.0
    scale_scale: Finite = 0.003
    scale_bias: Positive = 0.02


class SplatterImageOptions(MethodOptions):
    """The U-Net's sizes, and how Gaussians start."""

    name: Literal["splatter_image"] = "splatter_image"
    base_dim: Annotated[int, Field(gt=0, multiple_of=4)] = 16
    num_blocks: Count = 1
    channel_mult: Annotated[Counts, Field(min_length=1)] = (1, 2, 2, 2)
    #: side lengths, in pixels, of the feature maps whose encoder blocks attend to themselves
    attention_resolutions: Counts = (8,)
    sh_degree: Literal[0, 1] = 1
    #: source views of each object; several attend to each other
    input_views: Count = 1
    #: every block takes where the camera stands and looks; it says something with several views only
    camera_embedding: bool = False
    head: HeadOptions = HeadOptions()


class SplatterImage(Method):
    """A U-Net predicts the parameters of one Gaussian for every pixel of the source views."""

    Options: ClassVar[type[MethodOptions]] = SplatterImageOptions
    scene: ClassVar[SceneKind] = "gaussians"
    adam_eps: ClassVar[float] = 1e-15

    @classmethod
    def places(cls, options: Any) -> frozenset[Place]:
        return frozenset({"input", "block", "bottleneck"})

    @classmethod
    def check(cls, options: Any, resolution: int) -> None:
        halvings = len(options.channel_mult) - 1
        if resolution % (1 << halvings):
            reason = f"data.resolution {resolution} cannot be halved {halvings} times, as model.channel_mult asks"
            raise MisfitError("data.resolution", reason)

    @classmethod
    def build(cls, options: SplatterImageOptions, setting: Setting, contexts: Sequence[Fusion]) -> GaussianPredictor:
        import torch

        from model.methods.splatter_image.backbones.unet import UNet
        from model.methods.splatter_image.camera_embedding import POSE_CHANNELS
        from model.methods.splatter_image.heads import GaussianHead, gaussian_groups
        from model.methods.splatter_image.predictor import GaussianPredictor

        groups = gaussian_groups(options.head.model_dump(), options.sh_degree)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            unet = UNet(
                resolution=setting.resolution,
                out_channels=sum(group.channels for group in groups),
                base_dim=options.base_dim,
                num_blocks=options.num_blocks,
                channel_mult=options.channel_mult,
                attention_resolutions=options.attention_resolutions,
                camera_channels=POSE_CHANNELS if options.camera_embedding else 0,
                fusions=contexts,
            )
            head = GaussianHead(groups)
        return GaussianPredictor(unet, head, setting.backend, setting.antialiasing)
