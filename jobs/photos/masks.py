"""Separates the object of a photograph from its background.

`colour` is a simple removal for plain backgrounds: it fits a smooth surface to the colours along the border, and keeps
the connected regions that differ from it.  It does not recognise objects: a cast shadow, a table's edge or a pattern
behind the object counts as object, and parts in the background's colour are lost.  `rembg` is a trained network of the
package of that name.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from jobs.data.importers.base import UnreadableObjectError
from jobs.data.importers.files import read_mask
from jobs.photos.picture import Picture, PictureError
from results.records.home import user_path

#: Words that `--mask` takes besides a file.
WORDS = ("auto", "colour", "rembg", "none")
#: Packages that `rembg` needs; its own name alone says nothing of a backend.
_REMBG = ("rembg", "onnxruntime")
#: Its network.  Later versions of the package have another default, of 1 GB and not free for commercial use.
_NETWORK = "u2net"
#: Side that a picture is reduced to for `colour`, pixels.
_SIDE = 768
#: Width of the border that background colours are fitted to, as a share of the shorter side.
_BORDER = 0.04
#: Maximum share of the border that is not background, such as an object that extends beyond the picture.
_MOST_OFF = 0.35
#: Minimum difference from the background, of colours in [0, 1], of a pixel that is certainly part of the object, and of
#: its neighbours in the object.  Both grow with the background's noise.
_LEAST, _LEAST_BESIDE = 0.08, 0.045
#: Factor of the background's noise in the lower of these limits; it is doubled in the other.
_NOISE = 4.0
#: Deviation of the border's colours from the fitted surface above which a background is not plain.
_PLAIN = 0.06
#: Limits of the object's share of the picture.
_SMALLEST, _LARGEST = 0.002, 0.9
#: Coverage above which a picture's transparency shows no object.
_OPAQUE = 0.98
#: Smallest part that is kept, and smallest hole, as shares of the object.
_PART, _HOLE = 0.05, 0.001
#: Tolerance between the aspect ratios of a mask and its picture.
_ASPECT = 0.02


@dataclass(frozen=True)
class Mask:
    """The object's coverage of a picture's pixels."""

    #: (H, W) float32 in [0, 1], as large as `Picture.rgba`
    coverage: np.ndarray
    #: how it was found, for messages
    how: str
    remarks: tuple[str, ...] = field(default=())


def find_mask(picture: Picture, wanted: str | Path) -> Mask | None:
    """The object's mask, by a word of `WORDS` or from a file; None where no object is looked for.

    `auto` is the picture's own transparency, else `rembg` where it is installed, else `colour`.  Transparency of
    a few pixels, such as rounded corners, does not count.
    Raises `PictureError` where the object cannot be separated.
    """
    if wanted == "none":
        return None
    if wanted not in WORDS:
        return _from_file(picture, user_path(wanted))
    if wanted == "auto":
        coverage = picture.rgba[..., 3] / np.float32(255)
        if coverage.mean() <= _OPAQUE:
            return _checked(Mask(coverage, "its transparency"), picture)
        wanted = "rembg" if all(find_spec(name) is not None for name in _REMBG) else "colour"
    return _checked(_REMOVERS[wanted](picture), picture)


def _checked(mask: Mask, picture: Picture, remedy: str = "give its mask with --mask FILE") -> Mask:
    """Returns the mask.  Raises `PictureError` where the object's share of the picture is implausible."""
    share = float(mask.coverage.mean())
    if not _SMALLEST <= share <= _LARGEST:
        raise PictureError(
            f"{picture.path}: by {mask.how}, the object covers {share:.1%} of the picture; allowed: {_SMALLEST:.1%} to "
            f"{_LARGEST:.0%}; {remedy}, or take the largest square in the middle with --mask none"
        )
    return mask


def _from_file(picture: Picture, path: Path) -> Mask:
    try:
        found = read_mask(path, upright=True)
    except UnreadableObjectError as error:
        raise PictureError(f"--mask {error}") from error
    height, width = found.shape
    aspect = width / height / (picture.size[0] / picture.size[1])
    if abs(aspect - 1) > _ASPECT:
        raise PictureError(
            f"--mask {path}: {width} x {height} pixels, and {picture.path} has {picture.size[0]} x {picture.size[1]}"
        )
    mask = Mask(_resized(found / np.float32(255), picture), f"the mask {path.name}")
    return _checked(mask, picture, "show the object white on black")


def _resized(coverage: np.ndarray, picture: Picture) -> np.ndarray:
    height, width, _ = picture.rgba.shape
    image = Image.fromarray(coverage.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)).clip(0, 1)


def _by_colour(picture: Picture) -> Mask:
    """Computed on a reduced picture: difference from the background, hysteresis threshold, largest parts."""
    factor = max(1, -(-max(picture.rgba.shape[:2]) // _SIDE))
    # Transparent pixels have any colour; white is what viewers show.
    rgba = Image.fromarray(picture.rgba)
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB").reduce(factor)
    colours = np.asarray(flat, np.float32) / 255
    surface, noise, off = _background(colours)
    how = "colour against a plain background"
    if noise > _PLAIN or off > _MOST_OFF:
        raise PictureError(
            f"{picture.path}: its background is not plain enough to be removed by colour (along the border, colours "
            f"deviate by {noise:.0%} from a smooth surface, and {off:.0%} of them are far from it); give its mask with "
            "--mask FILE, take the largest square in the middle with --mask none, or: pip install 'rembg[cpu]'"
        )
    difference = ndimage.gaussian_filter(np.abs(colours - surface), (1, 1, 0)).max(axis=-1)
    seed_limit, grow_limit = max(_LEAST, 2 * _NOISE * noise), max(_LEAST_BESIDE, _NOISE * noise)
    grown = ndimage.binary_propagation(difference > seed_limit, mask=difference > grow_limit)
    # At the object's edge, keep the pixels with more of the object's colour than of the background's.
    edge = grown & ~ndimage.binary_erosion(grown, iterations=2)
    grown &= ~(edge & (difference < ndimage.maximum_filter(difference, 5) / 2))
    kept = _parts(ndimage.binary_closing(grown) | grown)
    remarks = ["the background was removed by colour alone: shadows and all else that differs from it count as object"]
    touched = np.concatenate([kept[0], kept[-1], kept[:, 0], kept[:, -1]]).mean()
    if touched > 0.02:
        remarks.append(f"the object reaches the picture's border ({touched:.0%} of it), so a part may be missing")
    return Mask(_resized(kept.astype(np.float32), picture), how, tuple(remarks))


def _background(colours: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Surface of colours (H, W, 3) fitted to the border, its deviation there, and the share of the border off it.

    A quadratic in x and y for each channel, fitted repeatedly to the pixels that are near the former fit.
    """
    height, width, _ = colours.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)
    band = max(1, round(_BORDER * min(height, width)))
    border = np.ones((height, width), bool)
    border[band:-band, band:-band] = False
    basis, values = terms[border], colours[border]
    kept = np.abs(values - np.median(values, axis=0)).max(axis=1) < 0.25
    fitted = np.zeros((6, 3))
    for _ in range(5):
        if kept.sum() < basis.shape[1]:
            break
        fitted = np.linalg.lstsq(basis[kept], values[kept], rcond=None)[0]
        residuals = np.abs(values - basis @ fitted).max(axis=1)
        kept = residuals < max(3 * np.median(residuals[kept]), 0.02)
    residuals = np.abs(values - basis @ fitted).max(axis=1)
    noise = float(np.median(residuals[kept])) if kept.any() else 1.0
    off = float((residuals > max(_LEAST, 2 * _NOISE * noise)).mean())
    return (terms @ fitted).astype(np.float32), noise, off


def _parts(found: np.ndarray) -> np.ndarray:
    """The largest connected parts, without pinholes.  Larger holes stay: the background seen through a chair's back."""
    labels, count = ndimage.label(found, np.ones((3, 3)))
    if not count:
        return found
    sizes = ndimage.sum_labels(found, labels, range(1, count + 1))
    kept = np.isin(labels, 1 + np.flatnonzero(sizes >= _PART * sizes.max()))
    holes, count = ndimage.label(~kept)
    areas = ndimage.sum_labels(~kept, holes, range(1, count + 1))
    filled: np.ndarray = kept | np.isin(holes, 1 + np.flatnonzero(areas <= _HOLE * kept.sum()))
    return filled


def _by_rembg(picture: Picture) -> Mask:
    try:
        with _quiet():
            from rembg import remove  # type: ignore[import-not-found]
    except (ImportError, SystemExit):  # without onnxruntime its import ends the process
        needed = "the package rembg with one of its backends: pip install 'rembg[cpu]'"
        raise PictureError(f"--mask rembg needs {needed}") from None
    try:
        with _quiet():
            mask = remove(Image.fromarray(picture.rgba[..., :3]), session=_rembg_session(), only_mask=True)
    except Exception as error:  # it fetches its network on first use
        raise PictureError(
            f"{picture.path}: rembg failed: {type(error).__name__}: {error}; --mask colour is simpler, or give the "
            "mask with --mask FILE"
        ) from error
    return Mask(_resized(np.asarray(mask.convert("L"), np.float32) / 255, picture), "rembg")


@cache
def _rembg_session() -> Any:
    """The loaded network, once for all pictures."""
    from rembg import new_session

    return new_session(_NETWORK)


def _quiet() -> redirect_stdout[io.StringIO]:
    """Keeps the package's own messages out of the output of a command."""
    return redirect_stdout(io.StringIO())


_REMOVERS: dict[str, Callable[[Picture], Mask]] = {"colour": _by_colour, "rembg": _by_rembg}
