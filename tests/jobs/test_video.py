"""ffmpeg receives raw pictures, and its failures are reported with its own words."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from jobs import video
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
    assert b" -y " in command
    assert b"-pix_fmt rgb24 -s 6x4 -r 8" in command
    assert b"-vf pad=ceil(iw/2)*2:ceil(ih/2)*2 -pix_fmt yuv420p" in command
    assert pixels == bytes(72) + b"\xff\0\0" * 24


def no_program() -> str:
    raise RuntimeError("No ffmpeg exe could be found.")


@pytest.mark.parametrize(
    ("package", "found"),
    [
        (None, None),
        (SimpleNamespace(get_ffmpeg_exe=no_program), None),
        (SimpleNamespace(get_ffmpeg_exe=lambda: "/package/ffmpeg"), "/package/ffmpeg"),
    ],
)
def test_the_program_of_a_package_is_found(package: object, found: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", package)
    assert find_ffmpeg() == found


def test_no_name_is_taken_for_a_protocol_or_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ffmpeg = program(tmp_path, "open('last', 'w').write(arguments[-1])")
    for name in ("12:30.mp4", "-y.mp4"):
        save_video(torch.zeros(1, 3, 2, 2), Path(name), ffmpeg)
        assert (tmp_path / "last").read_text() == str(tmp_path / name)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("print('Warning', 'Unknown encoder', sep='\\n', file=sys.stderr)\nsys.exit(1)", "Unknown encoder"),
        ("sys.exit(3)", "exit code 3"),
        ("import time\ntime.sleep(600)", "Command .* timed out"),
    ],
)
def test_failures_name_the_reason_and_leave_no_file(end: str, reason: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(video, "_TIMEOUT_S", 60 if "exit" in end else 1)
    body = f"open(arguments[-1], 'wb').write(b'part')\n{end}"
    with pytest.raises(VideoError, match=rf"a\.mp4: ffmpeg failed: {reason}"):
        save_video(torch.zeros(1, 3, 2, 2), tmp_path / "a.mp4", program(tmp_path, body))
    assert not (tmp_path / "a.mp4").exists()


def test_a_program_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="ffmpeg failed"):
        save_video(torch.zeros(1, 3, 2, 2), tmp_path / "a.mp4", str(tmp_path / "none"))
