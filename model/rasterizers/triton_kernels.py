"""The kernels of backend `triton`, with one program per block of Gaussians or tile of pixels; `reference` defines them.

Four kernels, in order: `project` (Gaussian -> splat on the image), `fill_tiles` (the splats of each tile, nearest
first), `composite` (splats -> pixels), and backward `composite_backward` and `project_backward`.  Names and formulas
are those of `model/rasterizers/reference.py`.  Geometry is float64, so that nearly equal depths are ordered as in
`reference`; work on pixels is float32.

Shapes: S scenes, V views of each, R = S * V renders, N Gaussians of a scene, C harmonics, T tiles of TILE px.

    means, scales (S, N, 3); rotations (S, N, 4); opacities (S, N); sh (S, N, C, 3); background (S, 3)
    cameras (R, 16): rotation by rows, translation, focal, principal
    splats (R, N, 10): centre x, y; inverse covariance yy/det, xy/det, xx/det; opacity; red, green, blue; 1/z
    depths (R, N): camera z, infinite where the Gaussian is not drawn
    spans (R, N): first and last tile in x, then y, 16 bits each; a first behind its last covers no tile
    members (R, T, M): indices of a tile's splats, nearest first, at most M of them; counts (R, T)
    images (R, 4, H, W): red, green, blue, inverse depth; transmittances (R, H, W) behind the last splat

A triple is a tuple of three blocks.  With TRITON_INTERPRET=1 in the environment when this module is imported, the
kernels run on a CPU, slowly.
"""

from __future__ import annotations

import triton
import triton.language as tl

SPLAT = tl.constexpr(10)  # numbers of one splat
CHUNK = tl.constexpr(8)  # splats composited at a time
NOWHERE = tl.constexpr(0x7FFF)  # the first tile of a splat that covers none

ALPHA_MIN = tl.constexpr(1.0 / 255.0)
ALPHA_MAX = tl.constexpr(0.99)
TRANSMITTANCE_MIN = tl.constexpr(1e-4)
DILATION = tl.constexpr(0.3)
COMPENSATION_MIN = tl.constexpr(0.000025)
FRUSTUM_MARGIN = tl.constexpr(1.3)
DEPTH_EPS = tl.constexpr(1e-7)
SPAN_MARGIN = tl.constexpr(0.01)  # px around a splat's support, for what float32 rounds


# Triples


@triton.jit
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@triton.jit
def cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@triton.jit
def combine(a, x, b, y):
    """a * x + b * y, with triples x and y."""
    return a * x[0] + b * y[0], a * x[1] + b * y[1], a * x[2] + b * y[2]


@triton.jit
def load3(pointer, mask):
    return (
        tl.load(pointer, mask, 0.0).to(tl.float64),
        tl.load(pointer + 1, mask, 0.0).to(tl.float64),
        tl.load(pointer + 2, mask, 0.0).to(tl.float64),
    )


@triton.jit
def store3(pointer, value, mask):
    tl.store(pointer, value[0], mask)
    tl.store(pointer + 1, value[1], mask)
    tl.store(pointer + 2, value[2], mask)


# Geometry: each formula once, for both directions


@triton.jit
def load_gaussian(means, scales, rotations, opacities, g, here):
    """Mean, scales, quaternion and opacity."""
    real = tl.load(rotations + g * 4, here, 0.0).to(tl.float64)
    i, j, k = load3(rotations + g * 4 + 1, here)
    opacity = tl.load(opacities + g, here, 0.0).to(tl.float64)
    return load3(means + g * 3, here), load3(scales + g * 3, here), (real, i, j, k), opacity


@triton.jit
def load_camera(cameras, render):
    """Rows of the rotation, translation, the camera's place in the world, focal and principal point."""
    camera = cameras + render * 16
    row0, row1, row2 = load3(camera, True), load3(camera + 3, True), load3(camera + 6, True)
    translation = load3(camera + 9, True)
    across0, across1, across2 = cross(row1, row2), cross(row2, row0), cross(row0, row1)  # columns of det * inverse
    determinant = dot(row0, across0)
    moved = combine(translation[0], across0, translation[1], across1)
    moved = combine(1.0, moved, translation[2], across2)
    place = (-moved[0] / determinant, -moved[1] / determinant, -moved[2] / determinant)
    focal_x, focal_y, principal_x = load3(camera + 12, True)
    return (row0, row1, row2), translation, place, focal_x, focal_y, principal_x, tl.load(camera + 15).to(tl.float64)


@triton.jit
def to_camera(mean, rows, translation, here, NEAR: tl.constexpr):
    """x, y and z in camera axes, and whether the Gaussian is drawn; z is 1 where it is not."""
    z = dot(rows[2], mean) + translation[2]
    visible = here & (z > NEAR)
    return dot(rows[0], mean) + translation[0], dot(rows[1], mean) + translation[1], tl.where(visible, z, 1.0), visible


@triton.jit
def rotation_columns(quaternion):
    """Columns of the rotation matrix of a quaternion, real part first, taken to be of unit length."""
    r, x, y, z = quaternion
    column0 = (1 - 2 * (y * y + z * z), 2 * (x * y + r * z), 2 * (x * z - r * y))
    column1 = (2 * (x * y - r * z), 1 - 2 * (x * x + z * z), 2 * (y * z + r * x))
    column2 = (2 * (x * z + r * y), 2 * (y * z - r * x), 1 - 2 * (x * x + y * y))
    return column0, column1, column2


@triton.jit
def bounded(x, z, limit):
    """x where x/z lies within the widened frustum, else the bound times z; and whether it does."""
    slope = x / z
    inside = tl.abs(slope) <= limit
    return tl.where(inside, x, tl.where(slope > 0, limit, -limit) * z), inside


@triton.jit
def projection(x, y, z, rows, focal_x, focal_y, width, height):
    """World to image at a point: two rows, with the bounded x and y, and whether each lies within the bounds."""
    bounded_x, inside_x = bounded(x, z, width / (2 * focal_x) * FRUSTUM_MARGIN)
    bounded_y, inside_y = bounded(y, z, height / (2 * focal_y) * FRUSTUM_MARGIN)
    row_x = combine(focal_x / z, rows[0], -focal_x * bounded_x / (z * z), rows[2])
    row_y = combine(focal_y / z, rows[1], -focal_y * bounded_y / (z * z), rows[2])
    return row_x, row_y, bounded_x, bounded_y, inside_x, inside_y


@triton.jit
def covariance(row_x, row_y, columns, scale):
    """The axes of a Gaussian on the image, x and y components, and its covariance xx, xy, yy before the dilation."""
    axes_x = (dot(row_x, columns[0]) * scale[0], dot(row_x, columns[1]) * scale[1], dot(row_x, columns[2]) * scale[2])
    axes_y = (dot(row_y, columns[0]) * scale[0], dot(row_y, columns[1]) * scale[1], dot(row_y, columns[2]) * scale[2])
    return axes_x, axes_y, dot(axes_x, axes_x), dot(axes_x, axes_y), dot(axes_y, axes_y)


@triton.jit
def compensation(xx, xy, yy):
    """The share of its opacity that a Gaussian keeps after the dilation; whether that is above its lower bound."""
    before = xx * yy - xy * xy
    after = (xx + DILATION) * (yy + DILATION) - xy * xy
    ratio = before / after
    above = ratio > COMPENSATION_MIN
    return tl.sqrt(tl.where(above, ratio, COMPENSATION_MIN)), above


@triton.jit
def sh_basis(direction, COEFFICIENTS: tl.constexpr):
    """Real spherical harmonics along unit vectors, with the signs of 3DGS."""
    x, y, z = direction
    xx, yy, zz = x * x, y * y, z * z
    basis = (x * 0 + 0.28209479177387814,)
    if COEFFICIENTS > 1:
        basis = basis + (-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x)
    if COEFFICIENTS > 4:
        c = 1.0925484305920792
        basis = basis + (c * x * y, -c * y * z, 0.31539156525252005 * (2 * zz - xx - yy), -c * x * z)
        basis = basis + (0.5462742152960396 * (xx - yy),)
    if COEFFICIENTS > 9:
        c = 0.4570457994644658
        basis = basis + (-0.5900435899266435 * y * (3 * xx - yy), 2.890611442640554 * x * y * z)
        basis = basis + (-c * y * (4 * zz - xx - yy), 0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy))
        basis = basis + (-c * x * (4 * zz - xx - yy), 1.445305721320277 * z * (xx - yy))
        basis = basis + (-0.5900435899266435 * x * (xx - 3 * yy),)
    return basis


@triton.jit
def sh_basis_backward(direction, g, COEFFICIENTS: tl.constexpr):
    """The gradient with respect to the direction, from those of the basis."""
    x, y, z = direction
    xx, yy, zz = x * x, y * y, z * z
    gx, gy, gz = x * 0, x * 0, x * 0
    if COEFFICIENTS > 1:
        c = 0.4886025119029199
        gx, gy, gz = -c * g[3], -c * g[1], c * g[2]
    if COEFFICIENTS > 4:
        c = 1.0925484305920792
        d = 0.31539156525252005 * g[6]
        e = 2 * 0.5462742152960396 * g[8]
        gx += c * (y * g[4] - z * g[7]) - 2 * x * d + x * e
        gy += c * (x * g[4] - z * g[5]) - 2 * y * d - y * e
        gz += -c * (y * g[5] + x * g[7]) + 4 * z * d
    if COEFFICIENTS > 9:
        a = -0.5900435899266435
        b = 2.890611442640554 * g[10]
        c = -0.4570457994644658
        d = 0.3731763325901154 * g[12]
        e = 1.445305721320277 * g[14]
        gx += a * (6 * x * y * g[9] + 3 * (xx - yy) * g[15]) + b * y * z - 6 * x * z * d + 2 * x * z * e
        gx += c * (-2 * x * y * g[11] + (4 * zz - 3 * xx - yy) * g[13])
        gy += a * (3 * (xx - yy) * g[9] - 6 * x * y * g[15]) + b * x * z - 6 * y * z * d - 2 * y * z * e
        gy += c * ((4 * zz - xx - 3 * yy) * g[11] - 2 * x * y * g[13])
        gz += b * x * y + c * 8 * z * (y * g[11] + x * g[13]) + (6 * zz - 3 * xx - 3 * yy) * d + (xx - yy) * e
    return gx, gy, gz


@triton.jit
def direction_from(place, mean):
    """The unit vector from the camera to a Gaussian, 0 for one at the camera, and the distance."""
    offset = combine(1.0, mean, -1.0, place)
    length = tl.maximum(tl.sqrt(dot(offset, offset)), 1e-30)
    return (offset[0] / length, offset[1] / length, offset[2] / length), length


@triton.jit
def colour_along(basis, sh, g, here, COEFFICIENTS: tl.constexpr):
    """Red, green and blue, before negative ones become 0."""
    grey = basis[0] * 0 + 0.5
    colour = (grey, grey, grey)
    for k in tl.static_range(COEFFICIENTS):
        colour = combine(1.0, colour, basis[k], load3(sh + (g * COEFFICIENTS + k) * 3, here))
    return colour


@triton.jit
def where_positive(colour, value):
    """`value`, a triple, where `colour` is not negative, else 0."""
    red, green, blue = colour
    return tl.where(red < 0, 0.0, value[0]), tl.where(green < 0, 0.0, value[1]), tl.where(blue < 0, 0.0, value[2])


# Forward


@triton.jit
def first_and_last_tile(centre, reach, size, TILE: tl.constexpr):
    """The tiles along one side that a splat reaches; first > last where it reaches none."""
    low, high = centre - reach - SPAN_MARGIN, centre + reach + SPAN_MARGIN
    covers = (high >= 0) & (low <= size - 1)  # false for NaN
    first = tl.where(covers, tl.maximum(low, 0.0), 0.0)
    last = tl.where(covers, tl.minimum(high, size - 1.0), 0.0)
    first, last = (first / TILE).to(tl.int64), (last / TILE).to(tl.int64)
    return tl.where(covers, first, NOWHERE), tl.where(covers, last, 0)


@triton.jit
def project(
    means,
    scales,
    rotations,
    opacities,
    sh,
    cameras,
    splats,
    depths,
    spans,
    V,
    N,
    width,
    height,
    NEAR: tl.constexpr,
    ANTIALIASING: tl.constexpr,
    COEFFICIENTS: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Every Gaussian of every render as a splat.  Grid (R, blocks of N)."""
    render = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = n < N
    g = render // V * N + n
    rows, translation, place, focal_x, focal_y, principal_x, principal_y = load_camera(cameras, render)
    mean, scale, quaternion, opacity = load_gaussian(means, scales, rotations, opacities, g, here)
    x, y, z, visible = to_camera(mean, rows, translation, here, NEAR)
    row_x, row_y, _, _, _, _ = projection(x, y, z, rows, focal_x, focal_y, width, height)
    _, _, xx, xy, yy = covariance(row_x, row_y, rotation_columns(quaternion), scale)
    if ANTIALIASING:
        kept, _ = compensation(xx, xy, yy)
        opacity = opacity * kept
    xx, yy = xx + DILATION, yy + DILATION
    determinant = xx * yy - xy * xy
    centre_x = x / (z + DEPTH_EPS) * focal_x + principal_x - 0.5
    centre_y = y / (z + DEPTH_EPS) * focal_y + principal_y - 0.5

    direction, _ = direction_from(place, mean)
    colour = colour_along(sh_basis(direction, COEFFICIENTS), sh, g, here, COEFFICIENTS)
    splat = splats + (render * N + n) * SPLAT
    store3(splat, (centre_x, centre_y, yy / determinant), visible)
    store3(splat + 3, (xy / determinant, xx / determinant, opacity), visible)
    store3(splat + 6, where_positive(colour, colour), visible)
    tl.store(splat + 9, 1 / z, visible)

    # alpha >= 1/255 where the Mahalanobis distance squared is at most 2 ln(255 opacity)
    squared = 2 * tl.log(tl.maximum(opacity / ALPHA_MIN, 1.0))
    shown = visible & (opacity >= ALPHA_MIN * (1 - 1e-6))
    first_x, last_x = first_and_last_tile(centre_x, tl.sqrt(squared * xx), width, TILE)
    first_y, last_y = first_and_last_tile(centre_y, tl.sqrt(squared * yy), height, TILE)
    first_x = tl.where(shown, first_x, NOWHERE)
    tl.store(depths + render * N + n, tl.where(visible, z, float("inf")), here)
    tl.store(spans + render * N + n, first_x | last_x << 16 | first_y << 32 | last_y << 48, here)


@triton.jit
def fill_tiles(spans, order, members, counts, N, tiles_x, tiles_y, capacity, BLOCK: tl.constexpr):
    """The splats of every tile, nearest first; `counts` goes on where `capacity` ends.  Grid (T, R).

    `spans` and `order` (the index of each splat) are sorted by depth.
    """
    tile, render = tl.program_id(0), tl.program_id(1).to(tl.int64)
    x, y = tile % tiles_x, tile // tiles_x
    found = 0
    for start in range(0, N, BLOCK):
        n = start + tl.arange(0, BLOCK)
        span = tl.load(spans + render * N + n, n < N, NOWHERE)
        in_x = ((span & 0xFFFF) <= x) & ((span >> 16 & 0xFFFF) >= x)
        in_y = ((span >> 32 & 0xFFFF) <= y) & ((span >> 48) >= y)
        inside = (in_x & in_y & (n < N)).to(tl.int32)
        slot = found + tl.cumsum(inside, 0) - 1
        kept = (inside > 0) & (slot < capacity)
        index = tl.load(order + render * N + n, kept, 0).to(tl.int32)
        tl.store(members + (render * tiles_x * tiles_y + tile) * capacity + slot, index, kept)
        found += tl.sum(inside, 0)
    tl.store(counts + render * tiles_x * tiles_y + tile, found)


@triton.jit
def tile_pixels(tile, tiles_x, width, height, TILE: tl.constexpr):
    """Columns and rows (TILE * TILE,) of a tile's pixels, and which of them the image has."""
    pixel = tl.arange(0, TILE * TILE)
    column = tile % tiles_x * TILE + pixel % TILE
    row = tile // tiles_x * TILE + pixel // TILE
    return column, row, (column < width) & (row < height)


@triton.jit
def next_chunk(members, start, count, first):
    """Offsets (CHUNK,) of a tile's next splats, of which `first` is that of its render, and which of them there are."""
    slot = start + tl.arange(0, CHUNK)
    there = slot < count
    return (first + tl.load(members + slot, there, 0)) * SPLAT, there


@triton.jit
def alpha_maps(splat, there, column, row):
    """Alphas (CHUNK, pixels), 0 where too faint to count, with the Gaussian's value and the offset to its centre."""
    dx = column[None, :].to(tl.float32) - tl.load(splat, there, 0.0)[:, None]
    dy = row[None, :].to(tl.float32) - tl.load(splat + 1, there, 0.0)[:, None]
    inverse_xx = tl.load(splat + 2, there, 0.0)[:, None]
    inverse_xy = tl.load(splat + 3, there, 0.0)[:, None]
    inverse_yy = tl.load(splat + 4, there, 0.0)[:, None]
    opacity = tl.load(splat + 5, there, 0.0)[:, None]
    power = -0.5 * (inverse_xx * dx * dx + inverse_yy * dy * dy) + inverse_xy * dx * dy
    value = tl.exp(tl.minimum(power, 0.0))
    alpha = tl.minimum(opacity * value, ALPHA_MAX)
    alpha = tl.where((power <= 0) & (alpha >= ALPHA_MIN) & there[:, None], alpha, 0.0)
    return alpha, value, opacity, dx, dy, inverse_xx, inverse_xy, inverse_yy


@triton.jit
def blend(alpha, product):
    """Weight of each splat in its pixels (CHUNK, pixels), and whether the pixel still takes it.

    `product` (pixels,) of 1 - alpha over all nearer splats goes on where a pixel has stopped, so that it stays stopped.
    Returns weights, takes, the product before the splat and behind it.
    """
    behind = product[None, :] * tl.cumprod(1 - alpha, 0)
    takes = behind >= TRANSMITTANCE_MIN
    before = behind / (1 - alpha)
    return tl.where(takes, alpha * before, 0.0), takes, before, behind


@triton.jit
def composite(
    splats,
    members,
    counts,
    background,
    images,
    transmittances,
    V,
    N,
    width,
    height,
    tiles_x,
    tiles_y,
    capacity,
    TILE: tl.constexpr,
):
    """Every pixel from its splats, nearest first, over the background.  Grid (T, R)."""
    tile, render = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column, row, inside = tile_pixels(tile, tiles_x, width, height, TILE)
    tile_index = render * tiles_x * tiles_y + tile
    count = tl.minimum(tl.load(counts + tile_index), capacity)
    red = tl.zeros((TILE * TILE,), tl.float32)
    green, blue, inverse_depth = red, red, red
    product = tl.where(inside, red + 1, 0.0)  # pixels beyond the edge stop at once
    transmittance = red + 1
    start = 0
    while (start < count) & (tl.max(product, 0) >= TRANSMITTANCE_MIN):
        offset, there = next_chunk(members + tile_index * capacity, start, count, render * N)
        splat = splats + offset
        alpha, _, _, _, _, _, _, _ = alpha_maps(splat, there, column, row)
        weight, takes, _, behind = blend(alpha, product)
        red += tl.sum(weight * tl.load(splat + 6, there, 0.0)[:, None], 0)
        green += tl.sum(weight * tl.load(splat + 7, there, 0.0)[:, None], 0)
        blue += tl.sum(weight * tl.load(splat + 8, there, 0.0)[:, None], 0)
        inverse_depth += tl.sum(weight * tl.load(splat + 9, there, 0.0)[:, None], 0)
        transmittance = tl.minimum(transmittance, tl.min(tl.where(takes, behind, 1.0), 0))
        product = tl.min(behind, 0)
        start += CHUNK
    scene = render // V
    area = width * height
    image = images + render * 4 * area + row * width + column
    tl.store(image, red + transmittance * tl.load(background + scene * 3), inside)
    tl.store(image + area, green + transmittance * tl.load(background + scene * 3 + 1), inside)
    tl.store(image + 2 * area, blue + transmittance * tl.load(background + scene * 3 + 2), inside)
    tl.store(image + 3 * area, inverse_depth, inside)
    tl.store(transmittances + render * area + row * width + column, transmittance, inside)


# Backward


@triton.jit
def add(sums, offset, number: tl.constexpr, value, there, scale, FIXED_POINT: tl.constexpr):
    """Add to one number of each splat's gradient; as integers, whose sum does not depend on the order."""
    if FIXED_POINT:
        value = tl.floor(value.to(tl.float64) * scale + 0.5).to(tl.int64)
    tl.atomic_add(sums + offset + number, value, there, sem="relaxed")  # otherwise a fence each time


@triton.jit
def composite_backward(
    splats,
    members,
    counts,
    images,
    image_gradients,
    sums,
    scale,
    N,
    width,
    height,
    tiles_x,
    tiles_y,
    capacity,
    TILE: tl.constexpr,
    FIXED_POINT: tl.constexpr,
):
    """Gradients of all splats, summed over pixels: one addition a splat and tile.  Grid (T, R).

    Goes from front to back like `composite`.  What lies behind a splat is what the pixel shows (`images`, with the
    background) less what the splats up to it have added.  Integer sums of the inverse covariance, which grow with the
    square of a splat's size, have steps that are width + height times as large, so that they do not overflow.
    """
    tile, render = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column, row, inside = tile_pixels(tile, tiles_x, width, height, TILE)
    tile_index = render * tiles_x * tiles_y + tile
    count = tl.minimum(tl.load(counts + tile_index), capacity)
    area = width * height
    at = render * 4 * area + row * width + column
    g_red, g_green, g_blue, g_inverse = (
        tl.load(image_gradients + at, inside, 0.0),
        tl.load(image_gradients + at + area, inside, 0.0),
        tl.load(image_gradients + at + 2 * area, inside, 0.0),
        tl.load(image_gradients + at + 3 * area, inside, 0.0),
    )
    rest = g_red * tl.load(images + at, inside, 0.0) + g_green * tl.load(images + at + area, inside, 0.0)
    rest += g_blue * tl.load(images + at + 2 * area, inside, 0.0)
    rest += g_inverse * tl.load(images + at + 3 * area, inside, 0.0)
    unit = 1.0
    if FIXED_POINT:
        unit = tl.load(scale)
    coarse = unit / (width + height)
    product = tl.where(inside, tl.zeros((TILE * TILE,), tl.float32) + 1, 0.0)
    start = 0
    while (start < count) & (tl.max(product, 0) >= TRANSMITTANCE_MIN):
        offset, there = next_chunk(members + tile_index * capacity, start, count, render * N)
        splat = splats + offset
        alpha, value, opacity, dx, dy, inverse_xx, inverse_xy, inverse_yy = alpha_maps(splat, there, column, row)
        weight, takes, before, behind = blend(alpha, product)
        shown = g_red[None, :] * tl.load(splat + 6, there, 0.0)[:, None]  # what the splat's colour is worth
        shown += g_green[None, :] * tl.load(splat + 7, there, 0.0)[:, None]
        shown += g_blue[None, :] * tl.load(splat + 8, there, 0.0)[:, None]
        shown += g_inverse[None, :] * tl.load(splat + 9, there, 0.0)[:, None]
        added = tl.cumsum(weight * shown, 0)
        g_alpha = before * shown - (rest[None, :] - added) / (1 - alpha)
        g_alpha = tl.where(takes & (alpha > 0), g_alpha, 0.0)
        g_power = g_alpha * opacity * value
        g_dx = g_power * (inverse_xy * dy - inverse_xx * dx)
        g_dy = g_power * (inverse_xy * dx - inverse_yy * dy)

        add(sums, offset, 0, -tl.sum(g_dx, 1), there, unit, FIXED_POINT)
        add(sums, offset, 1, -tl.sum(g_dy, 1), there, unit, FIXED_POINT)
        add(sums, offset, 2, tl.sum(-0.5 * g_power * dx * dx, 1), there, coarse, FIXED_POINT)
        add(sums, offset, 3, tl.sum(g_power * dx * dy, 1), there, coarse, FIXED_POINT)
        add(sums, offset, 4, tl.sum(-0.5 * g_power * dy * dy, 1), there, coarse, FIXED_POINT)
        add(sums, offset, 5, tl.sum(g_alpha * value, 1), there, unit, FIXED_POINT)
        add(sums, offset, 6, tl.sum(weight * g_red[None, :], 1), there, unit, FIXED_POINT)
        add(sums, offset, 7, tl.sum(weight * g_green[None, :], 1), there, unit, FIXED_POINT)
        add(sums, offset, 8, tl.sum(weight * g_blue[None, :], 1), there, unit, FIXED_POINT)
        add(sums, offset, 9, tl.sum(weight * g_inverse[None, :], 1), there, unit, FIXED_POINT)
        rest -= tl.sum(weight * shown, 0)
        product = tl.min(behind, 0)
        start += CHUNK


@triton.jit
def rotation_backward(quaternion, g0, g1, g2):
    """The quaternion's gradient, from those of the columns of its matrix."""
    r, x, y, z = quaternion
    g_r = 2 * (z * (g0[1] - g1[0]) + y * (g2[0] - g0[2]) + x * (g1[2] - g2[1]))
    g_x = 2 * (y * (g1[0] + g0[1]) + z * (g2[0] + g0[2]) - 2 * x * (g1[1] + g2[2]) + r * (g1[2] - g2[1]))
    g_y = 2 * (x * (g1[0] + g0[1]) + z * (g2[1] + g1[2]) - 2 * y * (g0[0] + g2[2]) + r * (g2[0] - g0[2]))
    g_z = 2 * (x * (g2[0] + g0[2]) + y * (g2[1] + g1[2]) - 2 * z * (g0[0] + g1[1]) + r * (g0[1] - g1[0]))
    return g_r, g_x, g_y, g_z


@triton.jit
def project_backward(
    means,
    scales,
    rotations,
    opacities,
    sh,
    cameras,
    sums,
    g_means,
    g_scales,
    g_rotations,
    g_opacities,
    g_sh,
    V,
    N,
    width,
    height,
    NEAR: tl.constexpr,
    ANTIALIASING: tl.constexpr,
    COEFFICIENTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of the Gaussians, summed over the views of their scene in order.  Grid (S, blocks of N)."""
    scene = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = n < N
    g = scene * N + n
    mean, scale, quaternion, opacity = load_gaussian(means, scales, rotations, opacities, g, here)
    columns = rotation_columns(quaternion)
    none = opacity * 0
    g_mean, g_scale, g_opacity = (none, none, none), (none, none, none), none
    g_column0, g_column1, g_column2 = (none, none, none), (none, none, none), (none, none, none)
    for view in range(V):
        render = scene * V + view
        rows, translation, place, focal_x, focal_y, _, _ = load_camera(cameras, render)
        x, y, z, visible = to_camera(mean, rows, translation, here, NEAR)
        splat = sums + (render * N + n) * SPLAT
        g_centre_x, g_centre_y, g_inverse_xx = load3(splat, visible)
        g_inverse_xy, g_inverse_yy, g_shown = load3(splat + 3, visible)
        g_colour = load3(splat + 6, visible)
        g_inverse_depth = tl.load(splat + 9, visible, 0.0).to(tl.float64)

        # Covariance on the image, from that of its inverse
        row_x, row_y, bounded_x, bounded_y, inside_x, inside_y = projection(
            x, y, z, rows, focal_x, focal_y, width, height
        )
        axes_x, axes_y, xx, xy, yy = covariance(row_x, row_y, columns, scale)
        determinant = (xx + DILATION) * (yy + DILATION) - xy * xy
        a, b, c = (yy + DILATION) / determinant, xy / determinant, (xx + DILATION) / determinant
        g_xx = -(a * a * g_inverse_xx + a * b * g_inverse_xy + b * b * g_inverse_yy)
        g_yy = -(b * b * g_inverse_xx + b * c * g_inverse_xy + c * c * g_inverse_yy)
        g_xy = 2 * a * b * g_inverse_xx + (a * c + b * b) * g_inverse_xy + 2 * b * c * g_inverse_yy
        if ANTIALIASING:
            kept, above = compensation(xx, xy, yy)
            g_kept = tl.where(above, g_shown * opacity * 0.5 / kept, 0.0)
            by_before, by_after = g_kept / determinant, -g_kept * kept * kept / determinant
            g_xx += by_before * yy + by_after * (yy + DILATION)
            g_yy += by_before * xx + by_after * (xx + DILATION)
            g_xy -= 2 * xy * (by_before + by_after)
            g_opacity += g_shown * kept
        else:
            g_opacity += g_shown

        # Axes on the image -> scales, rotation, and the rows of the projection
        g_axes_x = combine(2 * g_xx, axes_x, g_xy, axes_y)
        g_axes_y = combine(2 * g_yy, axes_y, g_xy, axes_x)
        g_scale = (
            g_scale[0] + g_axes_x[0] * dot(row_x, columns[0]) + g_axes_y[0] * dot(row_y, columns[0]),
            g_scale[1] + g_axes_x[1] * dot(row_x, columns[1]) + g_axes_y[1] * dot(row_y, columns[1]),
            g_scale[2] + g_axes_x[2] * dot(row_x, columns[2]) + g_axes_y[2] * dot(row_y, columns[2]),
        )
        gs_x = (g_axes_x[0] * scale[0], g_axes_x[1] * scale[1], g_axes_x[2] * scale[2])
        gs_y = (g_axes_y[0] * scale[0], g_axes_y[1] * scale[1], g_axes_y[2] * scale[2])
        g_column0 = combine(1.0, g_column0, 1.0, combine(gs_x[0], row_x, gs_y[0], row_y))
        g_column1 = combine(1.0, g_column1, 1.0, combine(gs_x[1], row_x, gs_y[1], row_y))
        g_column2 = combine(1.0, g_column2, 1.0, combine(gs_x[2], row_x, gs_y[2], row_y))
        g_row_x = combine(1.0, combine(gs_x[0], columns[0], gs_x[1], columns[1]), gs_x[2], columns[2])
        g_row_y = combine(1.0, combine(gs_y[0], columns[0], gs_y[1], columns[1]), gs_y[2], columns[2])

        # Rows of the projection, centre and inverse depth -> the point in camera coordinates
        slope_x, slope_y = dot(g_row_x, rows[2]), dot(g_row_y, rows[2])
        over = 1 / (z + DEPTH_EPS)
        g_x = focal_x * over * g_centre_x - tl.where(inside_x, focal_x / (z * z) * slope_x, 0.0)
        g_y = focal_y * over * g_centre_y - tl.where(inside_y, focal_y / (z * z) * slope_y, 0.0)
        g_z = -(focal_x * x * g_centre_x + focal_y * y * g_centre_y) * over * over - g_inverse_depth / (z * z)
        g_z -= (focal_x * dot(g_row_x, rows[0]) + focal_y * dot(g_row_y, rows[1])) / (z * z)
        g_z += 2 * (focal_x * bounded_x * slope_x + focal_y * bounded_y * slope_y) / (z * z * z)
        g_mean = combine(1.0, g_mean, g_x, rows[0])
        g_mean = combine(1.0, g_mean, g_y, rows[1])
        g_mean = combine(1.0, g_mean, g_z, rows[2])

        # Colour -> harmonics and direction
        direction, length = direction_from(place, mean)
        basis = sh_basis(direction, COEFFICIENTS)
        g_colour = where_positive(colour_along(basis, sh, g, here, COEFFICIENTS), g_colour)
        g_basis = ()
        for k in tl.static_range(COEFFICIENTS):
            at = (g * COEFFICIENTS + k) * 3
            g_basis = g_basis + (dot(load3(sh + at, here), g_colour),)
            before = load3(g_sh + at, here)
            store3(g_sh + at, combine(1.0, before, basis[k], g_colour), visible)
        g_direction = sh_basis_backward(direction, g_basis, COEFFICIENTS)
        along = dot(g_direction, direction)
        g_offset = combine(1.0 / length, g_direction, -along / length, direction)
        g_mean = combine(1.0, g_mean, tl.where(visible, 1.0, 0.0), g_offset)

    store3(g_means + g * 3, g_mean, here)
    store3(g_scales + g * 3, g_scale, here)
    g_r, g_i, g_j, g_k = rotation_backward(quaternion, g_column0, g_column1, g_column2)
    tl.store(g_rotations + g * 4, g_r, here)
    store3(g_rotations + g * 4 + 1, (g_i, g_j, g_k), here)
    tl.store(g_opacities + g, g_opacity, here)
