"""Triton kernels of `model.group_norm`: group norm and SiLU over channels-last feature maps.

A feature map (B, C, H, W) lies in memory as (B, P, C) with P = H * W.  Its rows are divided into chunks of `ROWS`,
which divides P.  `COLUMNS` is the power of two that holds all C channels.  Statistics and sums are float32.

Of a small map, one program has a whole group: `SIZE` channels of all pixels.  `PIXELS` and `WIDTH` are the powers of
two that hold these.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def silu(z):
    """z times its sigmoid."""
    return z / (1 + tl.exp(-z))


@triton.jit
def silu_slope(z):
    """The derivative of `silu`."""
    sigmoid = 1 / (1 + tl.exp(-z))
    return sigmoid * (1 + z * (1 - sigmoid))


@triton.jit
def chunk_of(P, C, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Offsets (ROWS, COLUMNS) of the elements of this program's chunk, its channels, and which of them there are."""
    image, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    rows = chunk * ROWS + tl.arange(0, ROWS)
    channels = tl.arange(0, COLUMNS)
    there = channels < C
    return (image * P + rows)[:, None] * C + channels[None, :], channels, there


@triton.jit
def moments(x, partial, P, C, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Mean and sum of squared deviations of every channel in a chunk: partial (B, chunks, 2, C).  Grid (B, chunks)."""
    offsets, channels, there = chunk_of(P, C, ROWS, COLUMNS)
    values = tl.load(x + offsets, there[None, :], 0.0).to(tl.float32)
    mean = tl.sum(values, 0) / ROWS
    deviation = values - mean[None, :]
    target = partial + (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64) * 2 * C + channels
    tl.store(target, mean, there)
    tl.store(target + C, tl.sum(deviation * deviation, 0), there)


@triton.jit
def statistics(
    partial, weight, bias, affine, means, deviations, chunks, C, ROWS: tl.constexpr, SIZE: tl.constexpr,
    WIDTH: tl.constexpr, CHUNKS: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """Mean and 1 / standard deviation (B, G) of groups of `SIZE` channels, and what is left to do: affine (B, 2, C).

    Grid (B, G); `WIDTH` is the power of two that holds a group, `CHUNKS` of them are combined at a time.
    """
    image, group = tl.program_id(0), tl.program_id(1)
    within = tl.arange(0, WIDTH)
    channels = group * SIZE + within
    start = partial + image.to(tl.int64) * chunks * 2 * C + channels[None, :]
    total = tl.zeros((CHUNKS, WIDTH), tl.float32)
    for first in range(0, chunks, CHUNKS):
        chunk = first + tl.arange(0, CHUNKS)
        there = (chunk < chunks)[:, None] & (within < SIZE)[None, :]
        total += tl.load(start + chunk[:, None] * 2 * C, there, 0.0)
    mean = tl.sum(tl.sum(total, 0), 0) / (chunks * SIZE)
    squares = tl.zeros((CHUNKS, WIDTH), tl.float32)
    for first in range(0, chunks, CHUNKS):
        chunk = first + tl.arange(0, CHUNKS)
        there = (chunk < chunks)[:, None] & (within < SIZE)[None, :]
        at = start + chunk[:, None] * 2 * C
        apart = tl.load(at, there, 0.0) - mean
        squares += tl.where(there, tl.load(at + C, there, 0.0) + ROWS * apart * apart, 0.0)
    variance = tl.sum(tl.sum(squares, 0), 0) / (chunks * SIZE * ROWS)
    deviation = tl.rsqrt(variance + EPS)
    scale = deviation * tl.load(weight + channels, within < SIZE, 0.0).to(tl.float32)
    shift = tl.load(bias + channels, within < SIZE, 0.0).to(tl.float32) - mean * scale
    tl.store(affine + image * 2 * C + channels, scale, within < SIZE)
    tl.store(affine + image * 2 * C + C + channels, shift, within < SIZE)
    at = image * tl.num_programs(1) + group
    tl.store(means + at, mean)
    tl.store(deviations + at, deviation)


@triton.jit
def normalise(x, affine, y, P, C, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SILU: tl.constexpr):
    """y = x * scale + shift, then SiLU.  Grid (B, chunks)."""
    offsets, channels, there = chunk_of(P, C, ROWS, COLUMNS)
    scale = tl.load(affine + tl.program_id(0) * 2 * C + channels, there, 0.0)
    shift = tl.load(affine + tl.program_id(0) * 2 * C + C + channels, there, 0.0)
    z = tl.load(x + offsets, there[None, :], 0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    if SILU:
        z = silu(z)
    tl.store(y + offsets, z, there[None, :])


@triton.jit
def backward_chunk(
    x, by_y, affine, means, deviations, P, C, G, SIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    SILU: tl.constexpr,
):  # fmt: skip
    """A chunk's place, its normalised values (ROWS, COLUMNS), and the gradient of what SiLU was applied to.

    The place: offsets, channels, which of them there are, their groups, and 1 / standard deviation.
    """
    offsets, channels, there = chunk_of(P, C, ROWS, COLUMNS)
    values = tl.load(x + offsets, there[None, :], 0.0).to(tl.float32)
    by_z = tl.load(by_y + offsets, there[None, :], 0.0).to(tl.float32)
    if SILU:
        scale = tl.load(affine + tl.program_id(0) * 2 * C + channels, there, 0.0)
        shift = tl.load(affine + tl.program_id(0) * 2 * C + C + channels, there, 0.0)
        z = values * scale[None, :] + shift[None, :]
        by_z = by_z * silu_slope(z)
    group = tl.program_id(0) * G + channels // SIZE
    mean, deviation = tl.load(means + group, there, 0.0), tl.load(deviations + group, there, 0.0)
    return offsets, channels, there, group, deviation, (values - mean[None, :]) * deviation[None, :], by_z


@triton.jit
def gradient_moments(
    x, by_y, affine, means, deviations, partial, P, C, G, SIZE: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Sums over a chunk's rows of the gradient, and of its product with the normalised values: (B, chunks, 2, C)."""
    _, channels, there, _, _, normalised, by_z = backward_chunk(
        x, by_y, affine, means, deviations, P, C, G, SIZE, ROWS, COLUMNS, SILU
    )
    target = partial + (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64) * 2 * C + channels
    tl.store(target, tl.sum(by_z, 0), there)
    tl.store(target + C, tl.sum(by_z * normalised, 0), there)


@triton.jit
def gradient_statistics(
    partial, weight, sums, shares, chunks, C, COUNT, SIZE: tl.constexpr, WIDTH: tl.constexpr, CHUNKS: tl.constexpr
):
    """The sums over all chunks (B, 2, C), and their weighted means over each group (B, G, 2).  Grid (B, G)."""
    image, group = tl.program_id(0), tl.program_id(1)
    within = tl.arange(0, WIDTH)
    channels = group * SIZE + within
    start = partial + image.to(tl.int64) * chunks * 2 * C + channels[None, :]
    plain = tl.zeros((CHUNKS, WIDTH), tl.float32)
    weighted = tl.zeros((CHUNKS, WIDTH), tl.float32)
    for first in range(0, chunks, CHUNKS):
        chunk = first + tl.arange(0, CHUNKS)
        there = (chunk < chunks)[:, None] & (within < SIZE)[None, :]
        plain += tl.load(start + chunk[:, None] * 2 * C, there, 0.0)
        weighted += tl.load(start + chunk[:, None] * 2 * C + C, there, 0.0)
    plain_sum, weighted_sum = tl.sum(plain, 0), tl.sum(weighted, 0)
    tl.store(sums + image * 2 * C + channels, plain_sum, within < SIZE)
    tl.store(sums + image * 2 * C + C + channels, weighted_sum, within < SIZE)
    by = tl.load(weight + channels, within < SIZE, 0.0).to(tl.float32)
    at = (image * tl.num_programs(1) + group) * 2
    tl.store(shares + at, tl.sum(by * plain_sum, 0) / COUNT)
    tl.store(shares + at + 1, tl.sum(by * weighted_sum, 0) / COUNT)


@triton.jit
def gradient(
    x, by_y, affine, means, deviations, shares, by_x, P, C, G, SIZE: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """The gradient of x.  Grid (B, chunks)."""
    offsets, channels, there, group, deviation, normalised, by_z = backward_chunk(
        x, by_y, affine, means, deviations, P, C, G, SIZE, ROWS, COLUMNS, SILU
    )
    plain, weighted = tl.load(shares + 2 * group, there, 0.0), tl.load(shares + 2 * group + 1, there, 0.0)
    scale = tl.load(affine + tl.program_id(0) * 2 * C + channels, there, 0.0)
    result = by_z * scale[None, :] - deviation[None, :] * (plain[None, :] + normalised * weighted[None, :])
    tl.store(by_x + offsets, result, there[None, :])


@triton.jit
def group_of(P, C, SIZE: tl.constexpr, PIXELS: tl.constexpr, WIDTH: tl.constexpr):
    """Offsets (PIXELS, WIDTH) of the elements of this program's group, its channels, and which elements there are."""
    image, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    pixels, within = tl.arange(0, PIXELS), tl.arange(0, WIDTH)
    channels = group * SIZE + within
    there = (pixels < P)[:, None] & (within < SIZE)[None, :]
    return (image * P + pixels)[:, None] * C + channels[None, :], channels, there


@triton.jit
def normalise_group(
    x, weight, bias, y, means, deviations, P, C, SIZE: tl.constexpr, PIXELS: tl.constexpr, WIDTH: tl.constexpr,
    EPS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Group norm, then SiLU; mean and 1 / standard deviation (B, G).  Grid (B, G)."""
    offsets, channels, there = group_of(P, C, SIZE, PIXELS, WIDTH)
    values = tl.load(x + offsets, there, 0.0).to(tl.float32)
    mean = tl.sum(tl.sum(values, 0), 0) / (P * SIZE)
    apart = tl.where(there, values - mean, 0.0)
    deviation = tl.rsqrt(tl.sum(tl.sum(apart * apart, 0), 0) / (P * SIZE) + EPS)
    of_group = tl.arange(0, WIDTH) < SIZE
    scale = deviation * tl.load(weight + channels, of_group, 0.0).to(tl.float32)
    z = apart * scale[None, :] + tl.load(bias + channels, of_group, 0.0).to(tl.float32)[None, :]
    if SILU:
        z = silu(z)
    tl.store(y + offsets, z, there)
    at = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(means + at, mean)
    tl.store(deviations + at, deviation)


@triton.jit
def gradient_group(
    x, by_y, weight, bias, means, deviations, by_x, sums, P, C, SIZE: tl.constexpr, PIXELS: tl.constexpr,
    WIDTH: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """The gradient of x; sums over pixels of the gradient, and of its product with the normalised values: (B, 2, C).

    Grid (B, G).
    """
    offsets, channels, there = group_of(P, C, SIZE, PIXELS, WIDTH)
    at = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    mean, deviation = tl.load(means + at), tl.load(deviations + at)
    normalised = tl.where(there, (tl.load(x + offsets, there, 0.0).to(tl.float32) - mean) * deviation, 0.0)
    by_z = tl.load(by_y + offsets, there, 0.0).to(tl.float32)
    of_group = tl.arange(0, WIDTH) < SIZE
    by = tl.load(weight + channels, of_group, 0.0).to(tl.float32)
    if SILU:
        z = normalised * by[None, :] + tl.load(bias + channels, of_group, 0.0).to(tl.float32)[None, :]
        by_z = by_z * silu_slope(z)
    plain, weighted = tl.sum(by_z, 0), tl.sum(by_z * normalised, 0)
    target = sums + tl.program_id(0) * 2 * C + channels
    tl.store(target, plain, of_group)
    tl.store(target + C, weighted, of_group)
    plain_mean, weighted_mean = tl.sum(by * plain, 0) / (P * SIZE), tl.sum(by * weighted, 0) / (P * SIZE)
    result = deviation * (by_z * by[None, :] - plain_mean - normalised * weighted_mean)
    tl.store(by_x + offsets, result, there)
