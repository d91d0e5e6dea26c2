"""Writes pictures as an MP4 by the program ffmpeg, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from torch import Tensor

from jobs.pixels import as_pictures

#: a second of pictures
RATE = 8
_TIMEOUT_S = 120


class VideoError(RuntimeError):
    """ffmpeg failed; the message is its own."""


def find_ffmpeg() -> str | None:
    """Path of ffmpeg: the one on PATH, or that of the package imageio-ffmpeg; None where there is neither."""
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe  # type: ignore[import-not-found]
    except ImportError:
        return None
    try:
        return str(get_ffmpeg_exe())
    except RuntimeError:  # the package without its program
        return None


def save_video(images: Tensor, path: Path, ffmpeg: str) -> None:
    """Pictures (V, 3, H, W) in [0, 1] as an MP4 that browsers play.  Raises `VideoError` where ffmpeg fails."""
    pixels = as_pictures(images)
    _, height, width, _ = pixels.shape
    command = [
        *(ffmpeg, "-loglevel", "error", "-y"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(RATE), "-i", "-"),
        # Players need even sides and this pixel format.
        *("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-movflags", "+faststart"),
        str(path.absolute()),  # `12:30.mp4` would name a protocol
    ]
    try:
        done = subprocess.run(command, input=pixels.tobytes(), capture_output=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        path.unlink(missing_ok=True)
        raise VideoError(f"{path}: ffmpeg failed: {error}") from error
    if done.returncode:
        path.unlink(missing_ok=True)
        reason = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise VideoError(f"{path}: ffmpeg failed: {reason[-1]}")
