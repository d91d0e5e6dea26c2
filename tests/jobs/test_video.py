"""ffmpeg receives raw pictures, and its failures are reported with its own words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from jobs.video import VideoError, find_ffmpeg, save_video


def program(folder: Path, body: str) -> str:
    """An executable with the name ffmpeg: a Python script that sees `arguments` and `pixels`."""
    path = folder / "ffmpeg"
    # Two languages, since the interpreter of a first line cannot have spaces in its path: a shell runs the second line,
    # which is a text in Python.
    start = f"""#!/bin/sh\n'''exec' "{sys.executable}" "$0" "$@"\n' '''\n"""
    path.write_text(f"{start}import sys\narguments, pixels = sys.argv, sys.stdin.buffer.read()\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_pictures_arrive_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "open(arguments[-1], 'wb').write(' '.join(arguments).encode() + b'|' + pixels)")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_ffmpeg()
    assert found == str(tmp_path / "ffmpeg")
    images = torch.zeros(2, 3, 4, 6)
    images[1, 0] = 2.0  # clamped
    save_video(images, tmp_path / "a.mp4", found)
    command, _, pixels = (tmp_path / "a.mp4").read_bytes().partition(b"|")
    assert b"-pix_fmt rgb24 -s 6x4" in command
    assert pixels == bytes(72) + b"\xff\0\0" * 24


def test_no_name_is_taken_for_a_protocol_or_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ffmpeg = program(tmp_path, "open('last', 'w').write(arguments[-1])")
    for name in ("12:30.mp4", "-y.mp4"):
        save_video(torch.zeros(1, 3, 2, 2), Path(name), ffmpeg)
        assert (tmp_path / "last").read_text() == str(tmp_path / name)


def test_failures_name_the_reason_and_leave_no_file(tmp_path: Path) -> None:
    body = "open(arguments[-1], 'wb').write(b'part')\nprint('Unknown encoder', file=sys.stderr)\nsys.exit(1)"
    with pytest.raises(VideoError, match=r"a\.mp4: ffmpeg failed: Unknown encoder"):
        save_video(torch.zeros(1, 3, 2, 2), tmp_path / "a.mp4", program(tmp_path, body))
    assert not (tmp_path / "a.mp4").exists()
    with pytest.raises(VideoError, match="ffmpeg failed"):
        save_video(torch.zeros(1, 3, 2, 2), tmp_path / "a.mp4", str(tmp_path / "none"))
