"""Source views -> a radiance field."""

from __future__ import annotations

from model.methods.pixelnerf.encoder import Encoder, project
from model.methods.pixelnerf.field import FieldNetwork
from model.methods.pixelnerf.options import PixelNerfOptions
from model.methods.pixelnerf.rays import Bounds
from model.methods.pixelnerf.sampling import SampleCounts
from model.methods.pixelnerf.scene import RadianceField, Tracing
from model.methods.pixelnerf.sources import Sources
from model.scenes import Reconstructor
from model.types import Context, Views


class PixelNerfReconstructor(Reconstructor):
    """An encoder of source views, and the coarse and the fine network that read its maps."""

    def __init__(self, options: PixelNerfOptions) -> None:
        super().__init__()
        self.options = options
        self.encoder = Encoder(
            options.encoder_width,
            first_pool=options.first_pool,
            frozen_statistics=options.batch_norm == "frozen",
        )
        self.coarse, self.fine = (
            FieldNetwork(
                sum(self.encoder.channels),
                hidden=options.hidden,
                blocks=options.blocks,
                view_blocks=options.view_blocks,
                combination=options.combine,
                density=options.density,
            )
            for _ in range(2)
        )

    def forward(self, source: Views, context: Context) -> RadianceField:
        """Raises ValueError where the views lack the origin around which their objects lie."""
        if source.origin is None:
            raise ValueError("these views have no `origin`, the point around which objects lie; PixelNeRF needs it")
        options = self.options
        pyramid = self.encoder(source.images.flatten(0, 1))
        tables = [
            project(pyramid, self.encoder.strides, *network.injection, options.feature_alignment).flatten(0, 2)
            for network in (self.coarse, self.fine)
        ]
        return RadianceField(
            networks=(self.coarse, self.fine),
            tables=(tables[0], tables[1]),
            size=(pyramid[0].shape[-2], pyramid[0].shape[-1]),
            sources=Sources(source.cameras, source.origin),
            bounds=Bounds(
                source.near,
                source.far,
                of=options.bounds,
                origin=None if source.origin_distance is None else source.origin,
            ),
            tracing=Tracing(
                counts=SampleCounts(options.coarse_samples, options.importance_samples, options.depth_samples),
                depth_deviation=options.depth_deviation,
                detach_depth_samples=options.detach_depth_samples,
                through=options.pixel_point,
            ),
            training=self.training,
        )
