"""The backbone of Splatter Image: a U-Net of residual blocks after Song et al. 2021 ("NCSN++") and Karras et al. 2022.

It maps images to feature maps of the same size and knows nothing of Gaussians.  Conditioning enters at three
places, through objects of `model.fusion`: extra input channels, after the last encoder output, and after the
self-attention of blocks at the attention resolutions.  Several views of an object attend to each other; all other
operations treat them independently.

Source of the architecture and numerics: Szymanowicz et al. 2024, "Splatter Image".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.attention import self_attention
from model.fusion import Source
from model.fusion.base import Fusion, at_bottleneck, at_input, in_block
from model.group_norm import activated, normalised
from model.methods.splatter_image.backbones.unet_options import block_channels
from model.methods.splatter_image.camera_embedding import CameraMapping, linear
from model.norm_groups import norm_groups
from model.types import Context

DROPOUT = 0.10
SKIP_SCALE = math.sqrt(0.5)


def conv(in_channels: int, out_channels: int, kernel: int, gain: float = 1.0) -> nn.Conv2d:
    """A convolution that keeps the image size, with the network's initialisation: Glorot's uniform, zero bias.

    `gain` multiplies the bound.
    """
    layer = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    nn.init.xavier_uniform_(layer.weight, gain=gain)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with at least four channels a group and at most 32 groups."""
    return nn.GroupNorm(norm_groups(channels), channels, eps=1e-6)


def resample(x: Tensor, direction: Literal["down", "up"] | None) -> Tensor:
    """(B, C, H, W) -> half the size by the mean of 2x2 pixels, or double the size by repetition."""
    if direction == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2, mode="nearest") if direction == "up" else x


def join_views(x: Tensor, views: int) -> Tensor:
    """(B * V, C, H, W) -> (B, C, V * H, W): the views of an object, concatenated vertically."""
    return x if views == 1 else x.unflatten(0, (-1, views)).transpose(1, 2).flatten(2, 3)


def split_views(x: Tensor, views: int) -> Tensor:
    """The inverse of `join_views`."""
    return x if views == 1 else x.unflatten(2, (views, -1)).transpose(1, 2).flatten(0, 1)


class SelfAttention(nn.Module):
    """One head as wide as the feature map, over the pixels of all views of an object.

    The statistics of its norm span the views as well.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        # Output channels 3c, 3c+1, 3c+2 are query, key and value of channel c.
        self.qkv = conv(channels, 3 * channels, 1, gain=math.sqrt(0.2))
        self.proj = conv(channels, channels, 1, gain=1e-5)

    def forward(self, x: Tensor, views: int = 1) -> Tensor:
        x = join_views(x, views)
        attended = self_attention(self.qkv(normalised(self.norm, x)))
        return split_views((self.proj(attended) + x) * SKIP_SCALE, views)


class ResidualBlock(nn.Module):
    """Two convolutions around a skip, with optional resampling, camera vector, self-attention and context.

    The result is scaled by sqrt(1/2), so that the variance of the input is preserved.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        direction: Literal["down", "up"] | None = None,
        attention: bool = False,
        camera_width: int = 0,
        fusers: Sequence[nn.Module] = (),
    ) -> None:
        """`camera_width`: length of the camera vector; 0: none."""
        super().__init__()
        self.direction = direction
        self.norm0 = group_norm(in_channels)
        self.conv0 = conv(in_channels, out_channels, 3)
        self.affine = linear(camera_width, out_channels) if camera_width else None
        self.norm1 = group_norm(out_channels)
        self.conv1 = conv(out_channels, out_channels, 3, gain=1e-5)
        plain = in_channels == out_channels and direction is None
        self.skip = None if plain else conv(in_channels, out_channels, 1)
        self.attention = SelfAttention(out_channels) if attention else None
        self.fusers = nn.ModuleList(fusers)

    def forward(self, x: Tensor, context: Context, views: int = 1, camera: Tensor | None = None) -> Tensor:
        h = self.conv0(resample(activated(self.norm0, x), self.direction))
        if self.affine is not None:
            # As published, the same norm and activation are applied once more.
            h = activated(self.norm1, h + self.affine(camera)[:, :, None, None])
        skip = resample(x, self.direction)
        if self.skip is not None:
            skip = self.skip(skip)
        h = self.conv1(F.dropout(activated(self.norm1, h), DROPOUT, self.training))
        h = (h + skip) * SKIP_SCALE
        if self.attention is not None:
            h = self.attention(h, views)
        for fuser in self.fusers:
            h = fuser(h, context)
        return h


class UNet(nn.Module):
    """Images (B * V, in_channels, R, R) -> feature maps (B * V, out_channels, R, R).

    Level l has R >> l pixels a side and `base_dim * channel_mult[l]` channels.  Every encoder output is pushed on a
    stack; the decoder's ordinary blocks pop it.
    """

    def __init__(
        self,
        *,
        resolution: int,
        in_channels: int = 3,
        out_channels: int = 24,
        base_dim: int = 128,
        num_blocks: int = 4,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        attention_resolutions: Sequence[int] = (16,),
        camera_channels: int = 0,
        fusions: Sequence[Fusion] = (),
        fusion_resolutions: Mapping[Source, Collection[int]] | None = None,
    ) -> None:
        """camera_channels: length of the pose embeddings that `forward` takes; 0: none.

        fusion_resolutions: resolutions of the blocks that each source of context enters; by default those of attention.
        """
        super().__init__()
        self.resolution, self.num_blocks, self.fusions = resolution, num_blocks, tuple(fusions)
        attends = [(resolution >> level) in attention_resolutions for level in range(len(channel_mult))]
        encoder, decoder = block_channels(base_dim, num_blocks, channel_mult)
        camera_width = 4 * base_dim if camera_channels else 0

        def plain(channels: int, direction: Literal["down", "up"] | None = None, attention: bool = False) -> nn.Module:
            return ResidualBlock(
                channels, channels, direction=direction, attention=attention, camera_width=camera_width
            )

        def block(c_in: int, c_out: int, level: int, *, attention: bool) -> ResidualBlock:
            at = {f.source: (fusion_resolutions or {}).get(f.source, attention_resolutions) for f in fusions}
            entering = [f for f in fusions if (resolution >> level) in at[f.source]]
            fusers = in_block(entering, c_out)
            return ResidualBlock(c_in, c_out, attention=attention, camera_width=camera_width, fusers=fusers)

        self.camera = CameraMapping(camera_channels, camera_width) if camera_channels else None
        self.input_fusers = nn.ModuleList(at_input(fusions))
        self.stem = conv(in_channels + sum(f.input_channels for f in fusions), base_dim, 3)
        self.encoder = nn.ModuleList()
        for level, pairs in enumerate(encoder):
            if level > 0:
                self.encoder.append(plain(pairs[0][0], "down"))
            self.encoder.extend(block(*pair, level, attention=attends[level]) for pair in pairs)
        channels = encoder[-1][-1][1]
        self.bottleneck_fusers = nn.ModuleList(at_bottleneck(fusions, channels))

        # Per level: the modules without skip inputs, then the blocks with them.
        self.decoder_entries = nn.ModuleList()
        self.decoder_blocks = nn.ModuleList()
        for level, pairs in reversed(list(enumerate(decoder))):
            if level == len(decoder) - 1:
                entry = [plain(channels, attention=True), plain(channels)]
            else:
                entry = [plain(channels, "up")]
            self.decoder_entries.append(nn.ModuleList(entry))
            attention = [False] * num_blocks + [attends[level]]
            blocks = (block(*pair, level, attention=own) for pair, own in zip(pairs, attention, strict=True))
            self.decoder_blocks.append(nn.ModuleList(blocks))
            channels = pairs[-1][1]
        self.tail_norm = group_norm(channels)
        self.tail_conv = conv(channels, out_channels, 3, gain=0.2)

    def forward(self, images: Tensor, context: Context, views: int = 1, pose_embedding: Tensor | None = None) -> Tensor:
        """images: `views` consecutive ones belong to one object; pose_embedding: (B * V, camera_channels).

        Raises ValueError where a pose embedding is missing, or given to a network without one.
        """
        if (self.camera is None) != (pose_embedding is None):
            raise ValueError(
                "this network takes no pose_embedding, but one was given"
                if self.camera is None
                else "this network takes a pose_embedding, but none was given"
            )
        camera = None if self.camera is None else self.camera(pose_embedding)
        for fuser in self.input_fusers:
            images = fuser(images, context)

        h = self.stem(images)
        stack = [h]
        for module in self.encoder:
            h = module(h, context, views, camera)
            stack.append(h)
        for fuser in self.bottleneck_fusers:
            h = fuser(h, context)
        for entry, blocks in zip(self.decoder_entries, self.decoder_blocks, strict=True):
            for module in entry:  # type: ignore[attr-defined]
                h = module(h, context, views, camera)
            for module in blocks:  # type: ignore[attr-defined]
                h = module(torch.cat([h, stack.pop()], dim=1), context, views, camera)
        return self.tail_conv(activated(self.tail_norm, h))
