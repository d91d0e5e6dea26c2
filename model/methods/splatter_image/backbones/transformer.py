"""A plain transformer: patches in, feature maps out.

It follows Dosovitskiy et al. 2021 (ViT) and Zhang et al. 2024 (GS-LRM).  Every patch of every view is a token.  The
tokens of all views of an object attend to each other, and a linear layer computes the pixels of each patch from its
token.  Layers normalise their input (pre-norm); there is no dropout.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from model.fusion.base import Fusion, at_input, in_block
from model.fusion.positional import position_code
from model.methods.splatter_image.camera_embedding import CameraMapping, linear
from model.types import Context

#: Width of a layer's hidden units, relative to that of a token.
_EXPANSION = 4
#: Gain of the last layer, as in the U-Net: Gaussians start close to the head's biases.
_OUT_GAIN = 0.2


class Layer(nn.Module):
    """Self-attention among all tokens of an object, then an MLP per token, each with a residual connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm0 = nn.LayerNorm(width)
        self.qkv = linear(width, 3 * width)
        self.proj = linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.expand = linear(width, _EXPANSION * width)
        self.reduce = linear(_EXPANSION * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, width) -> the same shape."""
        query, key, value = self.qkv(self.norm0(tokens)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)  # (B, heads, T, width / heads)
        tokens = tokens + self.proj(attended.transpose(1, 2).flatten(2))
        return tokens + self.reduce(F.gelu(self.expand(self.norm1(tokens))))


class Transformer(nn.Module):
    """Images (B * V, in_channels, R, R) -> feature maps (B * V, out_channels, R, R), by r x r patches of each view."""

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 24,
        patch_size: int = 4,
        width: int = 96,
        layers: int = 6,
        heads: int = 4,
        camera_channels: int = 0,
        fusions: Sequence[Fusion] = (),
    ) -> None:
        """patch_size: side of a patch, pixels, which divides R; camera_channels: length of pose embeddings, 0: none."""
        super().__init__()
        self.patch_size, self.out_channels = patch_size, out_channels
        self.camera = CameraMapping(camera_channels, width) if camera_channels else None
        self.input_fusers = nn.ModuleList(at_input(fusions))
        channels = in_channels + sum(fusion.input_channels for fusion in fusions)
        self.embed = nn.Conv2d(channels, width, patch_size, stride=patch_size)
        nn.init.xavier_uniform_(self.embed.weight.flatten(1))
        nn.init.zeros_(self.embed.bias)  # type: ignore[arg-type]
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        #: for each layer, the fusion modules that follow it
        self.fusers = nn.ModuleList(nn.ModuleList(in_block(fusions, width)) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = linear(width, out_channels * patch_size**2)
        nn.init.xavier_uniform_(self.out.weight, gain=_OUT_GAIN)
        for layer in self.layers:  # scaled so that the sum over layers has the variance of one (Radford et al. 2019)
            for last in (layer.proj, layer.reduce):
                last.weight.data.mul_((2 * layers) ** -0.5)  # type: ignore[union-attr, operator]

    def forward(self, images: Tensor, context: Context, views: int = 1, pose_embedding: Tensor | None = None) -> Tensor:
        """images: `views` consecutive ones belong to one object; pose_embedding: (B * V, camera_channels).

        Raises ValueError where a pose embedding is missing, or given to a network without one.
        """
        if (self.camera is None) != (pose_embedding is None):
            raise ValueError(f"a pose_embedding is {'not used' if self.camera is None else 'needed'} by this network")
        for fuser in self.input_fusers:
            images = fuser(images, context)
        grid = self.embed(images)  # (B * V, width, r, r)
        grid = grid + position_code(*grid.shape[1:], grid.device, grid.dtype)
        if self.camera is not None:
            grid = grid + self.camera(pose_embedding)[:, :, None, None]
        rows, columns = grid.shape[2:]
        tokens = grid.flatten(2).transpose(1, 2).unflatten(0, (-1, views)).flatten(1, 2)  # (B, V * r * r, width)
        for layer, fusers in zip(self.layers, self.fusers, strict=True):
            tokens = layer(tokens)
            for fuser in fusers:  # type: ignore[attr-defined]  # on the tokens as a feature map
                grid = tokens.unflatten(1, (views, rows, columns)).flatten(0, 1).permute(0, 3, 1, 2)
                grid = fuser(grid, context)
                tokens = grid.flatten(2).transpose(1, 2).unflatten(0, (-1, views)).flatten(1, 2)
        patches = self.out(self.norm(tokens)).unflatten(1, (views, rows, columns)).flatten(0, 1)
        return F.pixel_shuffle(patches.permute(0, 3, 1, 2), self.patch_size)
