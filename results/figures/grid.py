"""Picture grid: for every unseen object and view the input, the ground truth, each trial's render and its error."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from results.gallery import Gallery, Pictures

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

#: small renders are enlarged by a whole factor to at least this many pixels
MIN_SIDE = 96
#: Error at which an error map is brightest, for colours in [0, 1], without a blank picture to measure it by.
ERROR_WHITE = 0.25
#: Share of a blank picture's wrong pixels whose error is below the scale of an object's error maps.
_SCALE_QUANTILE = 0.95
#: most lines of a column's heading
_HEADING_LINES = 4
_GAP, _MARGIN, _TEXT, _LINE = 6, 16, 13, 16
_INK, _MUTED, _FRAME, _PAPER = (24, 26, 29), (110, 114, 120), (217, 221, 226), (255, 255, 255)


@dataclass(frozen=True)
class _Layout:
    """Positions of the grid's parts, in pixels of the canvas."""

    left: int
    top: int
    width: int  # of a picture, enlarged
    height: int
    columns: int
    objects: int
    lines: int  # of pictures for one object: its views, each above its errors

    @property
    def size(self) -> tuple[int, int]:
        right, _ = self.corner(self.columns, 0, 0)
        _, bottom = self.corner(0, self.objects, 0)
        return right + _MARGIN, bottom + _MARGIN

    def corner(self, column: int, k: int, line: int) -> tuple[int, int]:
        """Upper left corner of a line's picture of object k."""
        x = self.left + column * (self.width + _GAP)
        y = self.top + k * (self.lines * (self.height + _GAP) + _GAP) + line * (self.height + _GAP)
        return x, y


def draw(gallery: Gallery) -> Image.Image:
    """Rows are objects and their M views, columns the input, the ground truth, then one per trial, errors below."""
    side = gallery.source.shape[-1] * enlargement(*gallery.source.shape[-2:])
    headers = [_wrapped(name, side) for name in ("input", "ground truth", *gallery.renders)]
    ranks = gallery.ranks or ("",) * len(gallery.objects)
    labels = [_clipped(f"{rank} {name}", 2 * MIN_SIDE) for rank, name in zip(ranks, gallery.objects, strict=True)]
    layout = _layout(gallery, headers, labels)
    canvas = Image.new("RGB", layout.size, _PAPER)
    pen = ImageDraw.Draw(canvas)
    for column, lines in enumerate(headers):
        x, y = layout.corner(column, 0, 0)
        for line, text in enumerate(reversed(lines)):
            baseline = y - _GAP - line * _LINE
            pen.text((x + layout.width / 2, baseline), text, fill=_INK, font=label_font(), anchor="md")
    scales = error_scales(gallery)
    for k, label in enumerate(labels):
        x, y = _MARGIN, layout.corner(0, k, 0)[1]
        pen.text((x, y), label, fill=_MUTED, font=label_font())
        canvas.paste(
            enlarged(_inferno(np.linspace(0, 1, MIN_SIDE, dtype=np.float32)[None].repeat(8, 0)), 1), (x, y + 28)
        )
        pen.text((x, y + 40), f"error 0 to {scales[k]:.2f}", fill=_MUTED, font=label_font())
        _paste(canvas, layout, gallery.source[k], layout.corner(0, k, 0))
        for column, pictures in enumerate((gallery.target, *gallery.renders.values()), start=1):
            for m, picture in enumerate(pictures[k]):
                _paste(canvas, layout, picture, layout.corner(column, k, 2 * m))
        for column, pictures in enumerate(gallery.renders.values(), start=2):
            for m, picture in enumerate(error_map(pictures[k], gallery.target[k], scales[k])):
                _paste(canvas, layout, picture, layout.corner(column, k, 2 * m + 1))
    return canvas


def error_map(render: Pictures, target: Pictures, scale: float = ERROR_WHITE) -> Pictures:
    """(..., 3, H, W) twice -> the same shape: mean absolute errors of pixels, black for none, brightest from `scale`.

    Colours are matplotlib's inferno, which is as dark as the error is small, also in grey.
    """
    return _inferno(_errors(render, target) / scale)


def error_scales(gallery: Gallery) -> list[float]:
    """The error at which each object's maps are brightest: that of a blank picture where it is most wrong.

    Each object has its own scale, so that maps of dark and bright objects are not all black or all white.  The scale is
    `ERROR_WHITE` if the gallery has no blank row, or the blank picture is right.
    """
    blank = _blank(gallery)
    if blank is None:
        return [ERROR_WHITE] * len(gallery.objects)
    scales = []
    for render, target in zip(blank, gallery.target, strict=True):
        wrong = (errors := _errors(render, target))[errors > 1 / 255]
        scales.append(float(np.quantile(wrong, _SCALE_QUANTILE)) if wrong.size else ERROR_WHITE)
    return scales


def has_blank(gallery: Gallery) -> bool:
    """Whether the blank row is among the pictures, by which errors are scaled."""
    return _blank(gallery) is not None


def _blank(gallery: Gallery) -> Pictures | None:
    named = ((name, pictures) for name, pictures in gallery.renders.items() if name in gallery.trivial)
    return next((pictures for name, pictures in named if name.split(" ")[0] == "blank"), None)


def _errors(render: Pictures, target: Pictures) -> NDArray[np.float32]:
    """(..., 3, H, W) twice -> (..., H, W): the mean absolute error of a pixel, of colours in [0, 1]."""
    error: NDArray[np.float32] = np.abs(render.astype(np.float32) - target).mean(axis=-3) / 255
    return error


def _inferno(values: NDArray[np.float32]) -> Pictures:
    """(..., H, W) -> (..., 3, H, W)"""
    from matplotlib import colormaps

    return np.moveaxis(colormaps["inferno"](np.minimum(values, 1), bytes=True)[..., :3], -1, -3)


def _layout(gallery: Gallery, headers: list[list[str]], labels: list[str]) -> _Layout:
    objects, views, _, height, width = gallery.target.shape
    scale = enlargement(height, width)
    return _Layout(
        left=_MARGIN + max(map(_width, [*labels, "error 0 to 0.00"])) + 2 * _GAP,
        top=_MARGIN + max(map(len, headers)) * _LINE + _GAP,
        width=width * scale,
        height=height * scale,
        columns=len(headers),
        objects=objects,
        lines=2 * views,
    )


def _paste(canvas: Image.Image, layout: _Layout, picture: Pictures, corner: tuple[int, int]) -> None:
    x, y = corner
    # A frame around the pixels, without which a blank picture would not be visible on the page.
    frame = (x - 1, y - 1, x + layout.width, y + layout.height)
    ImageDraw.Draw(canvas).rectangle(frame, outline=_FRAME)
    canvas.paste(enlarged(picture, layout.width // picture.shape[-1]), corner)


def enlargement(height: int, width: int) -> int:
    """Integer factor that enlarges an image's smaller side to at least `MIN_SIDE` pixels."""
    return -(-MIN_SIDE // min(height, width))


def png(image: Image.Image) -> bytes:
    """The image as PNG."""
    target = io.BytesIO()
    image.save(target, "PNG", optimize=True)
    return target.getvalue()


def data_uri(picture: Pictures) -> str:
    """(3, H, W) uint8 -> a `data:` address of a PNG at its own size."""
    return "data:image/png;base64," + base64.b64encode(png(enlarged(picture, 1))).decode()


def enlarged(picture: Pictures, scale: int) -> Image.Image:
    """A picture (3, H, W), each pixel as scale x scale."""
    pixels = np.moveaxis(picture, 0, -1).repeat(scale, axis=0).repeat(scale, axis=1)
    return Image.fromarray(np.ascontiguousarray(pixels))


@cache
def label_font() -> FreeTypeFont:
    """The font of labels in pictures."""
    # Matplotlib ships DejaVu Sans, which covers far more characters than Pillow's default font.
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", _TEXT)


def _width(text: str) -> int:
    return int(label_font().getlength(text)) + 1


def _clipped(text: str, width: int) -> str:
    """Text on one line that fits, ending in an ellipsis where it was cut."""
    text = " ".join(text.split())
    if _width(text) <= width:
        return text
    while text and _width(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _wrapped(text: str, width: int) -> list[str]:
    """Text in at most `_HEADING_LINES` lines, broken at spaces and, where a word is too long, after punctuation."""
    lines = [""]
    for word in text.replace("_", "_\0").replace("=", "=\0").replace(" ", " \0").split("\0"):
        if lines[-1] and _width((lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word
    if len(lines) > _HEADING_LINES:
        lines[_HEADING_LINES - 1 :] = ["".join(lines[_HEADING_LINES - 1 :])]
    return [_clipped(line, width) for line in lines]
