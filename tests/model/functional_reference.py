"""A second implementation of the published network, in numpy: no modules, no torch, driven by the tensors' names.

It was written only from the description of the network, as a reference for `model`.  It is slow, and computes in
double precision.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import expit, softmax

Array = np.ndarray
State = dict[str, Array]


@dataclass(frozen=True)
class Sizes:
    """The sizes of one U-Net."""

    resolution: int = 16
    base: int = 8
    blocks: int = 1
    mult: tuple[int, ...] = (1, 2, 2, 2)
    attention: tuple[int, ...] = ()
    channels_in: int = 3
    channels_out: int = 24
    camera: int = 0
    global_dim: int = 0
    global_at: tuple[int, ...] = ()
    spatial_channels: int = 0
    spatial_at: tuple[int, ...] = ()
    concat: int = 0

    @property
    def sides(self) -> list[int]:
        """The side lengths of the levels' feature maps."""
        return [self.resolution >> level for level in range(len(self.mult))]


# Shapes --------------------------------------------------------------------------------------------------------------


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Every tensor of a U-Net in the published format, constants included."""
    found: dict[str, tuple[int, ...]] = {}
    if sizes.camera:
        width = 4 * sizes.base
        found |= _layer("map_layer0", (width, sizes.camera)) | _layer("map_layer1", (width, width))
    top = sizes.resolution
    found |= _layer(f"enc.{top}x{top}_conv", (sizes.base, sizes.channels_in, 3, 3))
    stack, channels = [sizes.base], sizes.base
    for level, side in enumerate(sizes.sides):
        if level:
            found |= _block(sizes, f"enc.{side}x{side}_down", channels, channels, resampled=True)
            stack.append(channels)
        for index in range(sizes.blocks):
            name, width = f"enc.{side}x{side}_block{index}", sizes.base * sizes.mult[level]
            found |= _block(sizes, name, channels, width, attention=side in sizes.attention, context_at=side)
            channels = width
            stack.append(channels)
    if sizes.concat:
        found |= _layer("dino_projector", (channels, sizes.concat))
        found |= _layer("channel_reducer", (channels, 2 * channels, 1, 1))
    for side, mult in reversed(list(zip(sizes.sides, sizes.mult, strict=True))):
        name = f"dec.{side}x{side}"
        if side == sizes.sides[-1]:
            found |= _block(sizes, f"{name}_in0", channels, channels, attention=True)
            found |= _block(sizes, f"{name}_in1", channels, channels)
        else:
            found |= _block(sizes, f"{name}_up", channels, channels, resampled=True)
        for index in range(sizes.blocks + 1):
            attention = index == sizes.blocks and side in sizes.attention
            width = sizes.base * mult
            found |= _block(
                sizes, f"{name}_block{index}", channels + stack.pop(), width, attention=attention, context_at=side
            )
            channels = width
    found |= _norm(f"dec.{top}x{top}_aux_norm", channels)
    return found | _layer(f"dec.{top}x{top}_aux_conv", (sizes.channels_out, channels, 3, 3))


def _block(
    sizes: Sizes,
    name: str,
    c_in: int,
    c_out: int,
    *,
    attention: bool = False,
    resampled: bool = False,
    context_at: int | None = None,
) -> dict[str, tuple[int, ...]]:
    found = _norm(f"{name}.norm0", c_in) | _layer(f"{name}.conv0", (c_out, c_in, 3, 3))
    found |= _norm(f"{name}.norm1", c_out) | _layer(f"{name}.conv1", (c_out, c_out, 3, 3))
    if sizes.camera:
        found |= _layer(f"{name}.affine", (c_out, 4 * sizes.base))
    if resampled or c_in != c_out:
        found |= _layer(f"{name}.skip", (c_out, c_in, 1, 1))
    if resampled:
        found |= {f"{name}.{member}.resample_filter": (1, 1, 2, 2) for member in ("conv0", "skip")}
    if attention:
        found |= _norm(f"{name}.norm2", c_out) | _layer(f"{name}.qkv", (3 * c_out, c_out, 1, 1))
        found |= _layer(f"{name}.proj", (c_out, c_out, 1, 1))
    if context_at in sizes.global_at:
        found |= _cross(f"{name}.global_cross_attn_block", c_out, sizes.global_dim, (2 * c_out, sizes.global_dim))
    if context_at in sizes.spatial_at:
        key_value = (2 * c_out, sizes.spatial_channels, 1, 1)
        found |= _cross(f"{name}.spatial_cross_attn_block", c_out, sizes.spatial_channels, key_value)
    return found


def _cross(name: str, channels: int, width: int, key_value: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    found = _norm(f"{name}.q_norm", channels) | _norm(f"{name}.kv_norm", width)
    found |= _layer(f"{name}.q_proj", (channels, channels, 1, 1)) | _layer(f"{name}.kv_proj", key_value)
    return found | _layer(f"{name}.out_proj", (channels, channels, 3, 3))


def _layer(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return _layer(name, (channels,))


def random_state(found: Mapping[str, tuple[int, ...]], seed: int = 0) -> State:
    """Random values, scaled so that every part of the network affects the output noticeably."""
    generator = np.random.default_rng(seed)

    def value(name: str, shape: tuple[int, ...]) -> Array:
        if name.endswith("resample_filter"):
            return np.full(shape, 0.25)
        noise = generator.standard_normal(shape)
        if len(shape) > 1:
            return noise * 1.2 / math.sqrt(math.prod(shape[1:]))
        return 1 + 0.25 * noise if name.endswith("weight") else 0.1 * noise

    return {name: value(name, shape) for name, shape in found.items()}


# The U-Net -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """A U-Net's tensors, and the inputs common to all its blocks."""

    state: State
    views: int = 1
    camera: Array | None = None  # (B V, 4 base)
    vector: Array | None = None  # (B V, D)
    maps: Array | None = None  # (B V, C, H', W')

    def has(self, name: str) -> bool:
        return f"{name}.weight" in self.state

    def weights(self, name: str) -> tuple[Array, Array]:
        return self.state[f"{name}.weight"], self.state[f"{name}.bias"]

    def conv(self, name: str, x: Array) -> Array:
        """A convolution with zero padding that keeps the size."""
        weight, bias = self.weights(name)
        pad = weight.shape[-1] // 2
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        windows = sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
        return np.moveaxis(np.tensordot(windows, weight, axes=([1, 4, 5], [1, 2, 3])) + bias, -1, 1)

    def norm(self, name: str, x: Array, eps: float = 1e-6, groups: int | None = None) -> Array:
        weight, bias = self.weights(name)
        groups = groups or min(32, x.shape[1] // 4)
        grouped = x.reshape(len(x), groups, -1)
        centred = grouped - grouped.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return scaled.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]

    def linear(self, name: str, x: Array) -> Array:
        weight, bias = self.weights(name)
        return x @ weight.T + bias

    def block(self, name: str, x: Array) -> Array:
        h = self.conv(f"{name}.conv0", _resample(name, _silu(self.norm(f"{name}.norm0", x))))
        if self.camera is not None:
            h = h + self.linear(f"{name}.affine", self.camera)[:, :, None, None]
            h = _silu(self.norm(f"{name}.norm1", h))
        h = self.conv(f"{name}.conv1", _silu(self.norm(f"{name}.norm1", h)))
        skip = _resample(name, x)
        if self.has(f"{name}.skip"):
            skip = self.conv(f"{name}.skip", skip)
        h = (h + skip) * math.sqrt(0.5)
        if self.has(f"{name}.qkv"):
            h = self.self_attention(name, h)
        if self.has(f"{name}.global_cross_attn_block.out_proj"):
            h = self.cross_attention(f"{name}.global_cross_attn_block", h)
        if self.has(f"{name}.spatial_cross_attn_block.out_proj"):
            h = self.cross_attention(f"{name}.spatial_cross_attn_block", h)
        return h

    def self_attention(self, name: str, h: Array) -> Array:
        joined = np.concatenate([h[view :: self.views] for view in range(self.views)], axis=2)
        batch, channels, height, width = joined.shape
        qkv = self.conv(f"{name}.qkv", self.norm(f"{name}.norm2", joined)).reshape(batch, 3 * channels, -1)
        attended = np.stack([_attend(item[0::3], item[1::3], item[2::3]) for item in qkv])
        out = (self.conv(f"{name}.proj", attended.reshape(joined.shape)) + joined) * math.sqrt(0.5)
        views = np.split(out, self.views, axis=2)
        return np.stack(views, axis=1).reshape(batch * self.views, channels, height // self.views, width)

    def cross_attention(self, name: str, h: Array) -> Array:
        query = self.conv(f"{name}.q_proj", self.norm(f"{name}.q_norm", h, 1e-5)).reshape(*h.shape[:2], -1)
        if "global" in name:
            weight, bias = self.weights(f"{name}.kv_norm")
            centred = self.vector - self.vector.mean(-1, keepdims=True)
            normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias
            key_value = self.linear(f"{name}.kv_proj", normed)[:, :, None]
        else:
            normed = self.norm(f"{name}.kv_norm", self.maps, 1e-5, groups=self.maps.shape[1])
            key_value = self.conv(f"{name}.kv_proj", normed).reshape(len(h), 2 * h.shape[1], -1)
        pairs = zip(query, key_value, strict=True)
        attended = np.stack([_attend(q, kv[0::2], kv[1::2]) for q, kv in pairs]).reshape(h.shape)
        return h + self.conv(f"{name}.out_proj", attended)


def _attend(query: Array, key: Array, value: Array) -> Array:
    """Attention: (C, Q), (C, K), (C, K) -> (C, Q)."""
    return value @ softmax(query.T @ key / math.sqrt(len(query)), axis=1).T


def _silu(x: Array) -> Array:
    return x * expit(x)


def _resample(name: str, x: Array) -> Array:
    if name.endswith("_down"):
        return (x[..., 0::2, 0::2] + x[..., 1::2, 0::2] + x[..., 0::2, 1::2] + x[..., 1::2, 1::2]) / 4
    return x.repeat(2, axis=2).repeat(2, axis=3) if name.endswith("_up") else x


def unet(
    state: State,
    sizes: Sizes,
    x: Array,
    *,
    views: int = 1,
    camera_embedding: Array | None = None,
    vector: Array | None = None,
    maps: Array | None = None,
) -> Array:
    """The U-Net: images (B V, C, H, W) -> raw maps (B V, channels_out, H, W)."""
    camera = None
    if camera_embedding is not None:
        plain = Network(state)
        first, second = np.split(camera_embedding, 2, axis=1)
        swapped = np.concatenate([second, first], axis=1)
        camera = _silu(plain.linear("map_layer1", _silu(plain.linear("map_layer0", swapped))))
    net = Network(state, views, camera, vector, maps)

    def named(half: str, side: int) -> str:
        return f"{half}.{side}x{side}_"

    h = net.conv(named("enc", sizes.resolution) + "conv", x)
    stack = [h]
    for side in sizes.sides:
        downs = ["down"] if side != sizes.resolution else []
        for part in [*downs, *(f"block{index}" for index in range(sizes.blocks))]:
            h = net.block(named("enc", side) + part, h)
            stack.append(h)
    if sizes.concat:
        tiled = net.linear("dino_projector", vector)[:, :, None, None] + np.zeros((1, 1, *h.shape[2:]))
        h = net.conv("channel_reducer", np.concatenate([h, tiled], axis=1))
    for side in reversed(sizes.sides):
        for part in ["in0", "in1"] if side == sizes.sides[-1] else ["up"]:
            h = net.block(named("dec", side) + part, h)
        for index in range(sizes.blocks + 1):
            h = net.block(named("dec", side) + f"block{index}", np.concatenate([h, stack.pop()], axis=1))
    h = _silu(net.norm(named("dec", sizes.resolution) + "aux_norm", h))
    return net.conv(named("dec", sizes.resolution) + "aux_conv", h)


# The predictor -------------------------------------------------------------------------------------------------------


def camera_embedding(view_to_world: Array) -> Array:
    """The camera embedding: matrices (..., 4, 4) acting on row vectors -> (..., 60)."""
    scalars = np.concatenate([view_to_world[..., 3, :3], view_to_world[..., 2, :3]], axis=-1)
    frequencies = 10_000.0 ** -(np.arange(5) / 5)
    waves = [
        function(scalars[..., index, None] * frequencies)
        for index, function in itertools.product(range(6), (np.cos, np.sin))
    ]
    return np.concatenate(waves, axis=-1)


def gaussians(
    raw: Array,
    view_to_world: Array,
    quaternion: Array,
    focal: Array,
    near: float,
    far: float,
    origin_distance: Array | None = None,
) -> dict[str, Array]:
    """Converts raw maps (B, V, 24 or 15, H, W) to Gaussians, one per pixel.

    view_to_world (B, V, 4, 4) on row vectors, quaternion (B, V, 4), focal (B, V, 2) px, origin_distance (B, V).
    """
    batch, views, _, height, width = raw.shape
    out: dict[str, list[list[Array]]] = {
        name: [[] for _ in range(batch)] for name in ("means", "scales", "rotations", "opacities", "sh")
    }
    for b, v, i, j in itertools.product(range(batch), range(views), range(height), range(width)):
        pixel, matrix = raw[b, v, :, i, j], view_to_world[b, v]
        depth = expit(pixel[0]) * (far - near) + near
        if origin_distance is not None:
            depth += origin_distance[b, v]
        fx, fy = focal[b, v]
        ray = np.array([(j - (width - 1) / 2) / fx, (i - (height - 1) / 2) / fy, 1.0])
        world = np.append(ray * depth + pixel[1:4], 1.0) @ matrix
        out["means"][b].append(world[:3] / (world[3] + 1e-10))
        out["opacities"][b].append(expit(pixel[4:5]))
        out["scales"][b].append(np.exp(pixel[5:8]))
        local = pixel[8:12] / max(np.linalg.norm(pixel[8:12]), 1e-12)
        out["rotations"][b].append(_left_product(quaternion[b, v]) @ local)
        harmonics = [pixel[12:15]]
        if len(pixel) > 15:
            harmonics += list(_turned(pixel[15:24].reshape(3, 3), matrix[:3, :3]))
        out["sh"][b].append(np.stack(harmonics))
    return {name: np.array(values) for name, values in out.items()}


def _left_product(q: Array) -> Array:
    """The matrix of p -> q p, quaternions with the real part first."""
    w, x, y, z = q
    return np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])


def _turned(rest: Array, rotation: Array) -> Array:
    """Degree-1 harmonics (k, rgb), rotated by a matrix on row vectors."""
    vectors = np.stack([-rest[2], -rest[0], rest[1]], axis=1) @ rotation  # (rgb, xyz)
    return np.stack([-vectors[:, 1], vectors[:, 2], -vectors[:, 0]])
