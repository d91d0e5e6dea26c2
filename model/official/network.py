"""Networks with the call signatures of the published code."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from model.geometry import pixel_rays
from model.methods.splatter_image.backbones.unet import UNet
from model.methods.splatter_image.heads import GaussianHead
from model.methods.splatter_image.predictor import Frustums, GaussianPredictor, place
from model.official.constants import predictor_constants, resampling_filters
from model.official.datasets import PublishedDataset
from model.official.names import PROJECTORS
from model.types import Context, Gaussians


@dataclass
class FileFacts:
    """Contents of a published file besides parameters, preserved when it is read and written again."""

    constants: dict[str, Tensor]
    projector: str = PROJECTORS[0]


class OfficialUNet(nn.Module):
    """A U-Net with the call signature and, in `official_state_dict`, the names of the published one."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet
        self.file = FileFacts(resampling_filters(unet))

    def forward(
        self,
        x: Tensor,
        camera_embedding: Tensor | None = None,
        global_context: Tensor | None = None,
        spatial_context: Tensor | None = None,
        num_views: int = 1,
    ) -> Tensor:
        """Raw maps (B * V, out_channels, H, W).

        x (B * V, C, H, W), the views of an object one after the other; camera_embedding (B * V, E), its halves not
        yet swapped; global_context (B * V, D); spatial_context (B * V, C', H', W').
        """
        dtype = next(self.parameters()).dtype
        context = _context(global_context, spatial_context, num_views).to(dtype)
        pose = None if camera_embedding is None else camera_embedding.flatten(0, -2).to(dtype)
        raw: Tensor = self.unet(x.to(dtype), context, num_views, pose)
        return raw


class OfficialPredictor(GaussianPredictor):
    """A predictor with the call signature and, in `official_state_dict`, the names of the published one."""

    def __init__(self, unet: UNet, head: GaussianHead, dataset: PublishedDataset) -> None:
        super().__init__(unet, head)
        self.dataset = dataset
        self.file = FileFacts(predictor_constants(unet, dataset))

    def forward(  # type: ignore[override]
        self,
        images: Tensor,
        view_to_world: Tensor,
        source_quaternion: Tensor,
        focal: Tensor | None = None,
        origin_distance: Tensor | None = None,
        depth: Tensor | None = None,
        semantic: Tensor | None = None,
    ) -> Gaussians:
        """The Gaussians of all views, view 0 first, in the frame of `view_to_world`.

        images (B, V, 3, H, W); view_to_world (B, V, 4, 4) acting on row vectors; source_quaternion (B, V, 4), real
        part first, the rotation of `view_to_world`; focal (B, V, 2) pixels; origin_distance (B, V, 1, H, W);
        depth (B * V, 1, H, W) and semantic (B * V, D) for networks that are conditioned on them.

        Raises ValueError where the dataset has focal lengths or distances per view and they are missing.
        """
        dtype, views = self.head.out.weight.dtype, images.shape[1]
        images, view_to_world = images.to(dtype), view_to_world.to(dtype)
        near, far = self._bounds(origin_distance, images)
        frustums = Frustums(
            rays=self._rays(focal, images),
            near=near,
            far=far,
            camera_to_world=view_to_world.transpose(-1, -2),
            quaternion=source_quaternion.to(dtype),
        )
        context = _context(semantic, depth, views).to(dtype)
        return place(self.raw_maps(images, frustums.camera_to_world, context), frustums)

    def _rays(self, focal: Tensor | None, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if focal is None:
            focal = images.new_full((*images.shape[:2], 2), self.dataset.focal(width))
        focal = focal.to(images.dtype)
        return pixel_rays(height, width, focal, focal.new_tensor([width / 2, height / 2]).expand_as(focal))

    def _bounds(self, origin_distance: Tensor | None, images: Tensor) -> tuple[Tensor, Tensor]:
        near, far = images.new_tensor(self.dataset.near), images.new_tensor(self.dataset.far)
        if origin_distance is not None:
            return near + origin_distance.to(images.dtype), far + origin_distance.to(images.dtype)
        if self.dataset.per_view:
            raise ValueError("this dataset's bounds of depth are counted from its origin: give `origin_distance`")
        return near, far


def _context(vector: Tensor | None, spatial: Tensor | None, views: int) -> Context:
    return Context(
        semantic=None if vector is None else vector.reshape(-1, views, vector.shape[-1]),
        depth=None if spatial is None else spatial.reshape(-1, views, *spatial.shape[-3:]),
    )
