import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.data.importers import files
from jobs.data.importers.base import Importer, UnreadableObjectError
from tests.jobs.data.conftest import LAYOUTS

#: Files of each layout that the test damages in turn; every importer needs all of them.
NEEDED = {
    "srn_cars": ["cars_train/a/intrinsics.txt", "cars_train/a/pose/000001.txt", "cars_train/a/rgb/000001.png"],
    "co3d_preprocessed": [
        "co3d_hydrant_for_gs/train/camera_Rs.npz",
        "co3d_hydrant_for_gs/train/camera_Ts.npz",
        "co3d_hydrant_for_gs/train/110_1_2/images_full.npy",
        "co3d_hydrant_for_gs/train/110_1_2/images_fg.npy",
        "co3d_hydrant_for_gs/train/110_1_2/focal_lengths.npy",
        "co3d_hydrant_for_gs/train/110_1_2/frame_order.txt",
    ],
    "co3d_raw": [
        "hydrant/frame_annotations.jgz",
        "hydrant/sequence_annotations.jgz",
        "hydrant/set_lists/set_lists_fewview_dev.json",
        "hydrant/110_1_2/pointcloud.ply",
        "hydrant/110_1_2/images/frame000002.jpg",
        "hydrant/110_1_2/masks/frame000002.png",
        "hydrant/110_1_2/depths/frame000002.jpg.geometric.png",
        "hydrant/110_1_2/depth_masks/frame000002.png",
    ],
    "nmr": ["02958343/029a1/cameras.npz", "02958343/029a1/image/0001.png", "views.txt"],
    "objaverse": ["lvis-annotations-filtered.json", "9f0b/001.png", "9f0b/001.npy"],
    "gso": ["Big_Dot/render_mvs_25/model/001.png", "Big_Dot/render_mvs_25/model/001.npy"],
    "meshes": ["kind_1/box.glb", "kind_0/box.ply", "kind_1/box.off", "kind_0/box.stl", "kind_1/box.obj"],
}


def emptied(_: bytes) -> bytes:
    return b""


def noise(content: bytes) -> bytes:
    return np.random.default_rng(0).bytes(len(content))


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 3]


def mixed_up(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + b"\xff\0nan" * 9 + content[half:]


def mistake_of(action: Callable[[], object]) -> str | None:
    """The message of the `ValueError` that `action` raises; None where it raises none."""
    try:
        action()
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("damage", [emptied, noise, cut_off, mixed_up])
@pytest.mark.parametrize(("layout", "name"), [(layout, name) for layout in NEEDED for name in NEEDED[layout]])
def test_damaged_files_end_in_an_error_that_names_them(layouts, tmp_path, monkeypatch, layout, name, damage):
    """A file that can still be read in part may also give a valid store.  Nothing else is written."""
    monkeypatch.setattr(Importer, "max_skipped_share", 0.0)
    source, home = tmp_path / "source", tmp_path / "home"
    layouts[layout].write(source)
    file = source / name
    file.write_bytes(damage(file.read_bytes()))
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    message = mistake_of(lambda: layouts[layout].prepare(source, home))
    if message is None:
        assert damage in (cut_off, mixed_up), "nothing of the file makes sense"
    else:
        # A list with too few lines is detected by the arrays that are longer.
        assert file.name in message or (file.name == "frame_order.txt" and "images_fg.npy" in message)
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before
    assert {path.name for path in tmp_path.iterdir()} <= {"source", "home"}


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/passwd", "..", "..\\x", "C:\\x", "C:/x", "", "a\0b", None, 3, ["x"]],
)
def test_paths_stay_inside(tmp_path, path):
    with pytest.raises(UnreadableObjectError, match=r"list.json: .*(leads out of|is not a path)"):
        files.inside(tmp_path, path, Path("list.json"))


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/b", "a/b"), ("./a/../b", "b"), ("ü/..x/é", "ü/..x/é"), ("a\\b", "a/b"), ("9:30/x", "9:30/x")],
)
def test_paths_inside_are_joined(tmp_path, path, expected):
    assert files.inside(tmp_path, path, Path("list.json")) == tmp_path / expected


def test_folders_behind_links_are_searched_once(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for file in (root / "b" / "x.txt", root / "b" / "x.png", elsewhere / "deep" / "y.txt"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (root / "a").symlink_to(root / "b")
    (root / "linked").symlink_to(elsewhere)
    (elsewhere / "circle").symlink_to(root)
    found = sorted(path.relative_to(root).as_posix() for path in files.files_under(root, "*.txt"))
    assert found == ["b/x.txt", "linked/deep/y.txt"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_objects_may_lie_behind_links(layouts, layout, tmp_path):
    source, linked = tmp_path / "source", tmp_path / "linked"
    layouts[layout].write(source)
    linked.mkdir()
    for entry in source.iterdir():
        (linked / entry.name).symlink_to(entry)
    plain, through = (
        layouts[layout].prepare(folder, tmp_path / f"home of {folder.name}") for folder in (source, linked)
    )
    assert through.objects["object"].tolist() == plain.objects["object"].tolist()
    assert through.fingerprint == plain.fingerprint


@pytest.mark.parametrize("layout", LAYOUTS)
def test_companions_of_macos_are_no_files_of_a_dataset(layouts, layout, tmp_path):
    source = tmp_path / "source"
    layouts[layout].write(source)
    plain = layouts[layout].prepare(source, tmp_path / "plain")
    for path in [path for path in source.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    beside = layouts[layout].prepare(source, tmp_path / "beside")
    assert beside.objects["object"].tolist() == plain.objects["object"].tolist()
    assert beside.fingerprint == plain.fingerprint


def zipped(path: Path, content: bytes, name: str = "a.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def array_header(shape: str) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue().replace(b"(3,), }" + b" " * (len(shape) - 4), f"{shape}, }}".encode())


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_TEXT_BYTES", 2**20)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(2**20))
    path = zipped(tmp_path / "a.npz", buffer.getvalue())
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(UnreadableObjectError, match=r"a.npz: a.npy expands to 8388736 bytes"):
        files.read_members(path, {"a": (None,)})


def test_an_array_that_claims_to_be_large_is_not_allocated(tmp_path):
    content = array_header("(99999999999999,)")
    assert b"99999999999999" in content
    with pytest.raises(UnreadableObjectError, match=r"a.npz: a.npy is not \(99999999999999,\)"):
        files.read_members(zipped(tmp_path / "a.npz", content), {"a": (None,)})
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UnreadableObjectError, match=r"a.npy: "):
        files.read_array(tmp_path / "a.npy", (None,))


def test_an_archive_is_no_array(tmp_path):
    with (tmp_path / "a.npy").open("wb") as stream:
        np.savez(stream, a=np.zeros(3))
    with pytest.raises(UnreadableObjectError, match=r"a.npy: "):
        files.read_array(tmp_path / "a.npy", (None,))


def test_members_of_another_kind_are_no_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("b", "text")
    assert files.member_names(tmp_path / "a.npz") == {"a"}


def test_members_that_lead_out_of_the_archive_are_never_written(tmp_path):
    path = zipped(tmp_path / "a.npz", b"x", name="../../b.npy")
    assert files.read_members(path, {"a": (None,)}) == {}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


def test_pickles_are_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([{}]))
    with pytest.raises(UnreadableObjectError, match=r"a.npz"):
        files.read_members(tmp_path / "a.npz", {"a": (None,)})
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UnreadableObjectError, match=r"a.npy: damaged, or no .npy file \(ValueError"):
        files.read_array(tmp_path / "a.npy", (None,))


def test_a_picture_that_claims_to_be_large_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_PIXELS", 99)
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(UnreadableObjectError, match=r"a.png: 10 x 10 pixels, more than 99"):
        files.read_image(tmp_path / "a.png")


def test_gzip_and_plain_json_are_read(tmp_path):
    (tmp_path / "a.json").write_bytes("﻿[1]".encode())
    with gzip.open(tmp_path / "a.jgz", "wt") as stream:
        json.dump({"ü": 1}, stream)
    assert files.read_json(tmp_path / "a.jgz") == {"ü": 1}
    assert files.read_json(tmp_path / "a.json") == [1]


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08", b"plain", gzip.compress(b"[1, 2]", mtime=0)[:-9]])
def test_damaged_gzip_is_named(tmp_path, content):
    (tmp_path / "a.jgz").write_bytes(content)
    with pytest.raises(UnreadableObjectError, match=r"a.jgz: "):
        files.read_json(tmp_path / "a.jgz")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("gone.txt", None, "there is no such file"),
        ("folder.txt", "folder", "is a directory"),
        ("a.json", "{", r"damaged, or no .json file \(JSONDecodeError: Expecting property name .*\)"),
        ("frames", "[", r"damaged, or no such file \(JSONDecodeError: .*\)"),
        ("a.txt", "x" * 5000, r"damaged, or no .txt file \(ValueError: could not convert string to float: 'x+\.\.\.\)"),
    ],
)
def test_why_a_file_cannot_be_read_is_one_short_line(tmp_path, name, content, reason):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    read = files.read_json if content and content[0] in "{[" else lambda path: files.read_floats(path, 1)
    with pytest.raises(UnreadableObjectError) as refused:
        read(path)
    message = str(refused.value)
    assert re.fullmatch(f"{re.escape(str(path))}: {reason}", message)
    assert len(message) < len(str(path)) + 300


def test_depth_bits_are_those_of_a_float16(tmp_path):
    values = np.array([[0.5, 1.25], [3.0, 1000.0]], np.float16)
    Image.fromarray(values.view(np.uint16)).save(tmp_path / "d.png")
    np.testing.assert_array_equal(files.read_depth_bits(tmp_path / "d.png"), values.astype(np.float32))
