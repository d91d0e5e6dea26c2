"""Photographs of all kinds become upright 8-bit sRGB; files that are none are refused with the reason."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from jobs.photos.picture import WORKING_SIDE, PictureError, picture_files, read_picture


def two_halves(width: int = 20, height: int = 12) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    return image


def test_the_camera_was_held_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    exif.get_ifd(0x8769)[0xA405] = 28  # mm, for a diagonal of 43.27 mm
    two_halves(40, 30).save(tmp_path / "a.jpg", exif=exif, quality=95)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.size == (30, 40)
    assert picture.rgba.shape == (40, 30, 4)
    assert picture.rgba[2, 12, 0] > 200  # red on top
    assert picture.rgba[-3, 12, 2] > 200
    assert picture.focal == pytest.approx(28 / 43.267 * 50, rel=1e-4)


def test_exif_data_that_are_none_are_ignored(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.png", exif=b"Exif\0\0of another kind")
    picture = read_picture(tmp_path / "a.png")
    assert picture.size == (20, 12)
    assert picture.focal is None
    assert picture.remarks == ("its EXIF data cannot be read and are ignored",)


def test_transparency_is_kept(tmp_path: Path) -> None:
    image = two_halves().convert("RGBA")
    image.putalpha(Image.fromarray(np.full((12, 20), 77, np.uint8)))
    image.save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.is_transparent
    assert (picture.rgba[..., 3] == 77).all()
    assert picture.focal is None


def test_cmyk_and_sixteen_bits_are_converted_with_a_remark(tmp_path: Path) -> None:
    two_halves().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.rgba[6, 2, 0] > 200 > 60 > picture.rgba[6, 2, 2]
    assert "CMYK" in picture.remarks[0]
    Image.fromarray(np.full((9, 9), 0x8000, np.uint16)).save(tmp_path / "b.png")
    deep = read_picture(tmp_path / "b.png")
    assert deep.rgba[4, 4].tolist() == [128, 128, 128, 255]
    assert "16-bit" in deep.remarks[0]


def test_the_first_picture_of_an_animation_is_used_with_a_remark(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (20, 12), "green")])
    picture = read_picture(tmp_path / "a.gif")
    assert picture.rgba[6, 2, 0] > 200
    assert picture.remarks == ("the first of its 2 pictures is used",)


def test_a_colour_profile_is_converted_and_a_damaged_one_ignored(tmp_path: Path) -> None:
    flat = Image.new("RGB", (10, 10), (120, 90, 60))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    flat.save(tmp_path / "plain.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert np.abs(read_picture(tmp_path / "plain.png").rgba[0, 0, :3].astype(int) - (120, 90, 60)).max() <= 1
    flat.save(tmp_path / "odd.png", icc_profile=profile.tobytes())
    flat.save(tmp_path / "damaged.png", icc_profile=b"no profile")
    for name in ("odd", "damaged"):
        picture = read_picture(tmp_path / f"{name}.png")
        assert picture.rgba[0, 0].tolist() == [120, 90, 60, 255]
        assert picture.remarks == ("its colour profile cannot be read and is ignored",)


def exchanged_primaries() -> bytes:
    """The profile of sRGB, with red and blue exchanged in its table of tags."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = (profile.index(tag, 128) for tag in (b"rXYZ", b"bXYZ"))
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_of_every_mode_are_converted(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (10, 10), (204, 102, 51)).convert(mode).save(path, icc_profile=exchanged_primaries())
    picture = read_picture(path)
    assert np.abs(picture.rgba[0, 0].astype(int) - (51, 102, 204, 255)).max() <= 2
    assert picture.remarks == ()


def linear_grey() -> bytes:
    """The profile of grey values that are proportional to light."""
    curve = b"curv" + struct.pack(">IIHH", 0, 1, 256, 0)  # one exponent, times 256
    white = b"XYZ " + struct.pack(">Iiii", 0, 63190, 65536, 54061)
    tags = struct.pack(">I4sII4sII", 2, b"kTRC", 156, 14, b"wtpt", 172, 20)
    facts = struct.pack(">I4sI4s4s4s", 192, b"none", 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    rest = bytes(12) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061) + bytes(48)
    return facts + rest + tags + curve + white


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_values_of_every_depth_are_converted(mode: str, tmp_path: Path) -> None:
    values = np.full((9, 9), 55 * 257, np.uint16) if mode == "I;16" else np.full((9, 9), 55, np.uint8)
    image = Image.fromarray(values)
    if mode == "LA":
        image.putalpha(77)
    image.save(tmp_path / "a.png", icc_profile=linear_grey())
    assert Image.open(tmp_path / "a.png").mode == mode
    picture = read_picture(tmp_path / "a.png")
    assert picture.rgba[0, 0].tolist() == pytest.approx([128, 128, 128, 77 if mode == "LA" else 255], abs=1)


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    two_halves(2 * WORKING_SIDE + 10, 60).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.size == (2 * WORKING_SIDE + 10, 60)
    assert picture.rgba.shape[:2] == (20, (2 * WORKING_SIDE + 12) // 3)


def as_tiff(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"only text\n", "not a picture of a known kind"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(40), "pillow-heif|damaged"),
        (as_tiff(np.zeros((9, 9), np.float32)), "pixels of mode F; save it as 8-bit RGB"),
        (as_tiff(np.full((9, 9), 70_000, np.int32)), "pixels from 70000 to 70000; allowed: 8 or 16 bits"),
    ],
)
def test_files_that_are_no_photographs(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=rf"a\.jpg: (a HEIC picture.*)?({message})"):
        read_picture(path)


def test_a_truncated_and_a_tiny_picture(tmp_path: Path) -> None:
    two_halves(200, 200).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PictureError, match=r"a\.jpg: damaged"):
        read_picture(tmp_path / "a.jpg")
    Image.new("RGB", (1, 1)).save(tmp_path / "b.png")
    with pytest.raises(PictureError, match=r"b\.png: 1 x 1 pixels; allowed: 8 pixels a side"):
        read_picture(tmp_path / "b.png")


def test_a_bomb_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_halves(100, 100).save(tmp_path / "a.png")
    monkeypatch.setattr("jobs.photos.picture.MOST_PIXELS", 9_999)
    with pytest.raises(PictureError, match="100 x 100 pixels, more than 9999; scale it down"):
        read_picture(tmp_path / "a.png")


def test_a_photograph_of_very_many_pixels_is_read_or_refused_in_words(tmp_path: Path, monkeypatch, recwarn) -> None:
    two_halves(100, 100).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_001)  # above it Pillow warns, and above its double it refuses
    assert read_picture(tmp_path / "a.png").size == (100, 100)
    assert not recwarn
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4_999)
    with pytest.raises(PictureError, match=r"a\.png: more than \d+ pixels; scale it down"):
        read_picture(tmp_path / "a.png")


def test_files_and_folders(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.JPG", "a.png", "notes.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "._a.png").write_bytes(b"of macOS")
    assert [path.name for path in picture_files([folder, folder / "a.png"])] == ["a.png", "b.JPG"]
    with pytest.raises(PictureError, match="there is no such file or folder"):
        picture_files([tmp_path / "none.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match="the folder holds no picture"):
        picture_files([tmp_path / "empty"])
