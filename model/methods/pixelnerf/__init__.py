"""PixelNeRF (Yu et al. 2021): a radiance field from features of the source views where a point projects to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from model.methods.base import Method, MethodOptions, SceneKind, Setting, Targets
from model.methods.pixelnerf.options import PUBLISHED_WIDTH, PixelNerfOptions, strides
from model.options import MisfitError

if TYPE_CHECKING:
    from model.fusion.base import Fusion
    from model.methods.pixelnerf.reconstructor import PixelNerfReconstructor

#: The encoder's ImageNet weights, in the table of weights.
IMAGENET = "resnet34"


class PixelNerf(Method):
    """A ResNet34 encodes the source views; two residual networks turn points into colour and density."""

    Options: ClassVar[type[MethodOptions]] = PixelNerfOptions
    scene: ClassVar[SceneKind] = "field"

    @classmethod
    def targets(cls, options: PixelNerfOptions) -> Targets:
        return Targets(pixels=options.rays_per_object, in_box_until=options.no_bbox_step)

    @classmethod
    def weights(cls, options: PixelNerfOptions) -> tuple[str, ...]:
        return (IMAGENET,) if options.pretrained else ()

    @classmethod
    def check(cls, options: PixelNerfOptions, resolution: int) -> None:
        width, views, blocks = options.encoder_width, options.view_blocks, options.blocks
        if options.pretrained and width != PUBLISHED_WIDTH:
            reason = f"model.encoder_width {width} has no ImageNet weights, or set model.pretrained to false"
            raise MisfitError("model.encoder_width", reason, (str(PUBLISHED_WIDTH),))
        if options.batch_norm == "frozen" and not options.pretrained:
            reason = "model.batch_norm frozen needs statistics that were learnt before, and model.pretrained is false"
            raise MisfitError("model.batch_norm", reason, ("batch",))
        if views > blocks:
            reason = f"model.view_blocks {views} is more than model.blocks {blocks}, which they are among"
            raise MisfitError("model.view_blocks", reason)

    @classmethod
    def check_batch(cls, options: PixelNerfOptions, resolution: int, batch_size: int) -> None:
        if options.batch_norm == "frozen":
            return
        maps = batch_size * options.input_views
        if maps == 1 and resolution <= strides(first_pool=options.first_pool)[-1]:
            reason = (
                "train.batch_size 1 with model.input_views 1 gives batch normalisation one value a channel, since at "
                f"data.resolution {resolution} the encoder's last map is one cell; take 2 objects or more"
            )
            if resolution > strides(first_pool=False)[-1]:
                reason += ", or set model.first_pool to false"
            raise MisfitError("train.batch_size", reason)

    @classmethod
    def build(cls, options: PixelNerfOptions, setting: Setting, contexts: Sequence[Fusion]) -> PixelNerfReconstructor:
        import torch

        from model.methods.pixelnerf.reconstructor import PixelNerfReconstructor

        if contexts:
            raise ValueError("pixelnerf has no place for context")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setting.seed)
            reconstructor = PixelNerfReconstructor(options)
        if options.pretrained and setting.initial:
            reconstructor.encoder.load_imagenet(setting.weights.load(IMAGENET))
        return reconstructor
