"""Reads photographs: upright, in sRGB, with transparency, and with the field of view that a camera recorded."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from jobs.data.importers.files import files_in

#: Suffixes of the files that are read from a folder; others are ignored.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".heif", ".avif")
#: Limits of a picture's size, pixels.
SMALLEST_SIDE, MOST_PIXELS = 8, 2**27
#: Pictures are reduced by a whole factor to at most this side before anything is computed.
WORKING_SIDE = 2048

_EXIF_IFD, _FOCAL_IN_35MM = 0x8769, 0xA405
#: Diagonal of the film that focal lengths "in 35 mm" refer to (CIPA DCG-001).
_FILM_MM = math.hypot(36.0, 24.0)
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")
#: Modes that may have a colour profile -> the mode whose values the profile describes.
_PROFILED_MODES = {"RGB": "RGB", "RGBA": "RGB", "P": "RGB", "CMYK": "CMYK", "L": "L", "LA": "L"}
_HEIF_BRANDS = (b"heic", b"heix", b"heif", b"mif1", b"msf1", b"hevc")


class PictureError(ValueError):
    """A file cannot be used as a photograph; the message names it and the reason."""


@dataclass(frozen=True)
class Picture:
    """One decoded photograph."""

    path: Path
    #: (H, W, 4) uint8 sRGB and alpha, upright, reduced to at most `WORKING_SIDE`
    rgba: np.ndarray
    #: width and height of the file's picture, upright, pixels
    size: tuple[int, int]
    #: focal length in pixels of `size`, if the camera recorded it
    focal: float | None = None
    #: sentences about conversions
    remarks: tuple[str, ...] = field(default=())

    @property
    def is_transparent(self) -> bool:
        """Whether any pixel is."""
        return bool((self.rgba[..., 3] < 255).any())


def picture_files(paths: list[Path]) -> list[Path]:
    """The given files, and the pictures directly in the given folders, by name.

    Raises `PictureError` for a path that does not exist and for a folder without pictures.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [file for file in files_in(path, "*") if file.suffix.lower() in SUFFIXES and file.is_file()]
            if not inside:
                raise PictureError(f"{path}: the folder holds no picture; suffixes: {', '.join(SUFFIXES)}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise PictureError(f"{path}: there is no such file or folder")
    return list(dict.fromkeys(found))


def read_picture(path: Path) -> Picture:
    """A photograph: EXIF orientation applied, colours converted to 8-bit sRGB; of an animation the first frame.

    Raises `PictureError` for anything but a picture, and for one that is damaged, too small or too large.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path}: {error.strerror or error}") from error
    if not content:
        raise PictureError(f"{path}: the file is empty")
    try:
        with _opened(content, path) as image:
            return _decoded(image, path)
    except PictureError:
        raise
    # Decoders raise many kinds of errors on damaged files: OSError, SyntaxError, struct.error, MemoryError, ...
    except Exception as error:
        raise PictureError(f"{path}: damaged, or of an unknown kind: {type(error).__name__}: {error}") from error


def _opened(content: bytes, path: Path) -> Image.Image:
    is_heif = content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS
    if is_heif:
        with suppress(ImportError):
            from pillow_heif import register_heif_opener  # type: ignore[import-not-found]

            register_heif_opener()
    try:
        with warnings.catch_warnings():
            # `_decoded` has a limit of its own.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(content))
    except Image.DecompressionBombError:
        raise PictureError(f"{path}: more than {MOST_PIXELS} pixels; scale it down") from None
    except UnidentifiedImageError:
        if is_heif:
            way_out = "save it as JPEG, or: pip install pillow-heif"
            raise PictureError(f"{path}: a HEIC picture, which needs another package to be read; {way_out}") from None
        raise PictureError(f"{path}: not a picture of a known kind") from None


def _decoded(image: Image.Image, path: Path) -> Picture:
    width, height = image.size
    if min(width, height) < SMALLEST_SIDE:
        raise PictureError(f"{path}: {width} x {height} pixels; allowed: {SMALLEST_SIDE} pixels a side and more")
    if width * height > MOST_PIXELS:
        raise PictureError(f"{path}: {width} x {height} pixels, more than {MOST_PIXELS}; scale it down")
    remarks = []
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # phones put previews into a JPEG's further pictures
        remarks.append(f"the first of its {frames} pictures is used")
    image.load()
    try:
        focal, upright = _focal(image), ImageOps.exif_transpose(image)
    except SyntaxError:  # Pillow's, for another header
        focal, upright = None, image
        remarks.append("its EXIF data cannot be read and are ignored")
    factor = -(-max(width, height) // WORKING_SIDE)
    rgba, more = _to_srgb(upright, path)
    remarks += more
    if factor > 1:
        rgba = rgba.reduce(factor)
    return Picture(path, np.asarray(rgba), upright.size, focal, tuple(remarks))


def _focal(image: Image.Image) -> float | None:
    """Focal length in pixels, from the length "in 35 mm" that cameras record; None where there is none."""
    try:
        recorded: Any = image.getexif().get_ifd(_EXIF_IFD).get(_FOCAL_IN_35MM)
        millimetres = float(recorded or 0)
    except (TypeError, ValueError, ZeroDivisionError, OSError):
        return None
    return millimetres / _FILM_MM * math.hypot(*image.size) if 4 <= millimetres <= 2000 else None


def _to_srgb(image: Image.Image, path: Path) -> tuple[Image.Image, list[str]]:
    """The picture as 8-bit RGBA, and sentences about the conversion.

    Raises `PictureError` for values that are no grey levels or RGB of 8 or 16 bits.
    """
    remarks = list(_about(image))
    if image.mode in _DEEP_MODES:
        values = np.asarray(image).astype(np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise PictureError(f"{path}: pixels from {values.min():g} to {values.max():g}; allowed: 8 or 16 bits")
        profile = image.info.get("icc_profile")
        image = Image.fromarray(np.rint(values / 257).astype(np.uint8))
        image.info["icc_profile"] = profile
    if image.mode in ("F", "LAB", "HSV", "YCbCr"):
        raise PictureError(f"{path}: pixels of mode {image.mode}; save it as 8-bit RGB")
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    colours = _without_profile(image)
    if colours is None:
        remarks.append("its colour profile cannot be read and is ignored")
        colours = image.convert("RGBA").convert("RGB")
    colours.putalpha(255 if alpha is None else alpha)
    return colours, remarks


def _about(image: Image.Image) -> Iterator[str]:
    if image.mode in _DEEP_MODES:
        yield "16-bit grey values are reduced to 8 bits"
    elif image.mode == "CMYK":
        yield "CMYK colours are converted to RGB"


def _without_profile(image: Image.Image) -> Image.Image | None:
    """RGB in sRGB, converted from the embedded profile (phones record Display P3); None for an unreadable profile."""
    profile, mode = image.info.get("icc_profile"), _PROFILED_MODES.get(image.mode)
    rgb = image.convert("RGBA").convert("RGB")
    if not profile or mode is None:
        return rgb
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        plain = rgb if mode == "RGB" else image.convert(mode)
        converted = ImageCms.profileToProfile(plain, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return converted
