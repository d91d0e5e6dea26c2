import numpy as np
import pytest
import trimesh
from PIL import Image

from jobs.data.importers.base import ImportFailedError
from jobs.data.importers.meshes import Meshes, MeshesOptions
from jobs.data.inspect import check
from jobs.data.meshes.files import read_parts, read_points
from jobs.data.meshes.ray_tracing import Hits
from jobs.data.meshes.textured_mesh import TexturedMesh
from jobs.data.prepare import prepare
from jobs.data.store import Store

OPTIONS = {"views": 4, "image_size": 32, "supersampling": 2, "ambient": 1.0}
#: A picture with red, green (above), blue, yellow (below).
QUARTERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)


def write_obj(folder, name="o", texture="o.png", width=1.0, files=("mtl", "png")) -> None:
    """Writes an upright square of height 1 that faces +z, with y up; the texture's lower left is at (0, 0)."""
    folder.mkdir(parents=True, exist_ok=True)
    obj = f"mtllib {name}.mtl\nusemtl m\n"
    corners = [(0, 0), (width, 0), (width, 1), (0, 1)]
    obj += "".join(f"v {x} {y} 0\n" for x, y in corners)
    obj += "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
    (folder / f"{name}.obj").write_text(obj)
    if "mtl" in files:
        (folder / f"{name}.mtl").write_text(f"newmtl m\nKd 0.0 0.0 0.0\nmap_Kd {texture}\n")
    if "png" in files:
        Image.fromarray(QUARTERS.repeat(16, 0).repeat(16, 1)).save(folder / "o.png")


def write_glb(path, width=1.0) -> None:
    """Writes the same square with an embedded texture, moved by the scene graph."""
    corners = np.array([[0, 0, 0], [width, 0, 0], [width, 1, 0], [0, 1, 0]], float)
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(QUARTERS.repeat(16, 0).repeat(16, 1)), baseColorFactor=[255, 255, 255, 255]
    )
    visual = trimesh.visual.TextureVisuals(uv=corners[:, :2] / [width, 1], material=material)
    mesh = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
    move = trimesh.transformations.translation_matrix([5, 0, 0])
    scene = trimesh.Scene()
    scene.add_geometry(mesh, transform=move)
    scene.export(path)


def import_(folder, home, **options) -> Store:
    return Store.open(prepare("meshes", {**OPTIONS, **options}, home, workers=1, source=folder))


def colour_at(parts, x: float, y: float) -> list[int]:
    """The colour of the square at a point, 0 to 255."""
    mesh = TexturedMesh.join(parts)
    corners = mesh.mesh.vertices[mesh.mesh.faces]  # (2, 3, 3)
    for face, triangle in enumerate(corners):
        weights = np.linalg.solve(np.vstack([triangle[:, :2].T, np.ones(3)]), [x, y, 1])
        if weights.min() >= 0:
            hits = Hits(np.array([[x, y, 0]]), np.array([face]), weights[None])
            return np.rint(mesh.colour(hits)[0] * 255).astype(int).tolist()
    raise AssertionError("beside the square")


def test_textures_of_obj_files_are_upright(tmp_path):
    write_obj(tmp_path)
    parts = read_parts(tmp_path / "o.obj", tmp_path, max_texture=64)
    found = [colour_at(parts, x, y) for x, y in ((0.2, 0.8), (0.8, 0.8), (0.2, 0.2), (0.8, 0.2))]
    assert found == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]]


def test_textures_of_glb_files_are_upright_and_scenes_are_put_together(tmp_path):
    write_glb(tmp_path / "o.glb")
    parts = read_parts(tmp_path / "o.glb", tmp_path, max_texture=64)
    np.testing.assert_allclose(parts[0].mesh.vertices.min(axis=0), [5, 0, 0])
    found = [colour_at(parts, 5 + x, y) for x, y in ((0.2, 0.8), (0.8, 0.8), (0.2, 0.2), (0.8, 0.2))]
    assert found == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]]


def test_large_textures_are_shrunk(tmp_path):
    write_obj(tmp_path)
    (part,) = read_parts(tmp_path / "o.obj", tmp_path, max_texture=4)
    assert part.picture.shape == (4, 4, 3)


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_colours_of_vertices_are_blended(tmp_path, suffix):
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], float)
    mesh = trimesh.Trimesh(corners, [[0, 1, 2]], process=False)
    mesh.visual.vertex_colors = [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]]
    mesh.export(tmp_path / f"m.{suffix}")
    parts = read_parts(tmp_path / f"m.{suffix}", tmp_path, max_texture=64)
    # glTF keeps linear light: a half of it is 188 in sRGB, a quarter 137.
    expected = [188, 137, 137] if suffix == "glb" else [128, 64, 64]
    np.testing.assert_allclose(colour_at(parts, 0.25, 0.25), expected, atol=1)


def test_colours_of_faces_stay_on_their_faces(tmp_path):
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    mesh = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False)
    mesh.visual.face_colors = [[255, 0, 0, 255], [0, 0, 255, 255]]
    mesh.export(tmp_path / "m.ply")
    parts = read_parts(tmp_path / "m.ply", tmp_path, max_texture=64)
    assert colour_at(parts, 0.8, 0.2) == [255, 0, 0]
    assert colour_at(parts, 0.2, 0.8) == [0, 0, 255]


def test_meshes_without_colours_are_grey(tmp_path):
    trimesh.creation.box().export(tmp_path / "m.stl")
    (part,) = read_parts(tmp_path / "m.stl", tmp_path, max_texture=64)
    assert part.picture.tolist() == [[[0.7, 0.7, 0.7]]]


@pytest.fixture
def folder(tmp_path):
    """Three shapes as .obj, one of them twice, and two as .glb."""
    root = tmp_path / "meshes"
    for name, width in {"a": 1.0, "b": 1.0, "c": 0.5, "d": 0.7}.items():
        write_obj(root / "signs" / name, width=width)
        path = root / "signs" / name / "o.obj"
        path.write_text(path.read_text().replace("f 1/1 3/3 4/4", "v 0.5 0.5 0.5\nf 1/1 3/3 4/4\nf 1/1 4/4 5/1"))
    text = (root / "signs" / "c" / "o.obj").read_text()
    (root / "signs" / "c" / "o.obj").write_text(text.replace("v 0.5 0.5 0.5", "v 0.4 0.6 0.9"))
    text = (root / "signs" / "d" / "o.obj").read_text()
    (root / "signs" / "d" / "o.obj").write_text(text.replace("v 0.5 0.5 0.5", "v 0.1 0.9 0.5"))
    for name, turn in (("é", 0.2), ("f", 0.9)):
        mesh = trimesh.creation.box((1, 2, 3))
        mesh.apply_transform(trimesh.transformations.rotation_matrix(turn, [1, 2, 3]))
        mesh.visual.vertex_colors = [250, 120, 10, 255]
        mesh.export(root / f"{name}.glb")
    return root


def test_a_folder_of_obj_and_glb_files(folder, tmp_path):
    store = import_(folder, tmp_path, val_geometries=1, test_geometries=1)
    assert check(store) == []
    assert set(store.objects["object"]) == {f"signs/{name}/o.obj" for name in "abcd"} | {"f.glb", "é.glb"}
    objects = store.objects.set_index("object")
    assert objects["geometry"]["signs/b/o.obj"] == "signs/a/o.obj", "equal shapes are one geometry"
    assert objects["geometry"].nunique() == 5
    assert objects["category"]["signs/a/o.obj"] == "signs"
    assert objects["category"]["f.glb"] == "mesh"
    assert store.manifest.counts["val"] >= 1
    assert store.manifest.counts["test"] >= 1


def test_the_first_look_at_all_files_shows_progress(folder, tmp_path):
    steps = []
    prepare("meshes", OPTIONS, tmp_path, lambda *step: steps.append(step), workers=1, source=folder)
    assert steps[:2] == [(0, 6, "looking at f.glb"), (0, 6, "looking at signs/a/o.obj")]


def test_views_do_not_depend_on_other_files(folder, tmp_path):
    importer = Meshes(MeshesOptions(**OPTIONS, val_geometries=0, test_geometries=0), tmp_path, folder)
    before = {item.name: importer.load(item) for item in importer.items(lambda *_: None)}
    (folder / "f.glb").unlink()
    after = {item.name: importer.load(item) for item in importer.items(lambda *_: None)}
    assert before.keys() - after.keys() == {"f.glb"}
    for name, frames in after.items():
        np.testing.assert_array_equal(frames.images, before[name].images)


def test_options_of_the_pictures(tmp_path):
    write_obj(tmp_path / "m")
    store = import_(tmp_path / "m", tmp_path, val_geometries=0, test_geometries=0, radius=4.0, field_of_view=20.0)
    np.testing.assert_allclose(np.linalg.norm(store.world_to_camera[:, :3, 3], axis=1), 4.0, rtol=1e-6)
    assert store.focal[0, 0] == pytest.approx(16 / np.tan(np.radians(10)))
    surface = store.depth[store.depth > 0]
    assert store.manifest.near < surface.min() < 4 < surface.max() < store.manifest.far
    assert {tuple(colour) for colour in store.images.transpose(0, 2, 3, 1)[store.mask == 255].tolist()} >= {
        (255, 0, 0),
        (0, 0, 255),
    }, "unlit, as ambient is 1"


@pytest.mark.parametrize("up", ["y", "z"])
def test_either_axis_may_point_up(tmp_path, up):
    importer = Meshes(MeshesOptions(**OPTIONS, up=up), tmp_path, tmp_path / "m")
    post = trimesh.creation.box((0.1, 1, 0.1) if up == "y" else (0.1, 0.1, 1))
    (tmp_path / "m").mkdir()
    post.export(tmp_path / "m" / "post.ply")
    vertices = importer._mesh(tmp_path / "m" / "post.ply").mesh.vertices
    assert np.ptp(vertices, axis=0).argmax() == 2


def test_a_known_point_is_where_the_cameras_see_it(tmp_path):
    """A red speck on a frame of thin white posts, whose box is known."""
    speck = trimesh.creation.icosphere(subdivisions=1, radius=0.05)
    speck.apply_translation([0.6, 0.4, -0.3])
    speck.visual.vertex_colors = [255, 0, 0, 255]
    bounds = [trimesh.creation.box((0.01, 0.01, 0.01)) for _ in range(2)]
    for box, sign in zip(bounds, (1, -1), strict=True):
        box.apply_translation([sign, sign, sign])
        box.visual.vertex_colors = [255, 255, 255, 255]
    (tmp_path / "m").mkdir()
    trimesh.util.concatenate([speck, *bounds]).export(tmp_path / "m" / "speck.ply")
    store = import_(tmp_path / "m", tmp_path, image_size=96, val_geometries=0, test_geometries=0)
    # y-up (x, y, z) is (x, -z, y) z-up; the box's half diagonal, 1.005 sqrt 3, becomes the extent of 0.66.
    point = np.array([0.6, 0.3, 0.4]) * 0.66 / (1.005 * np.sqrt(3))
    for image, camera, focal, depth in zip(store.images, store.world_to_camera, store.focal, store.depth, strict=True):
        seen = camera[:3, :3] @ point + camera[:3, 3]
        place = seen[:2] / seen[2] * focal + 48
        red = (image[0] > 100) & (image[1] < 80)
        rows, columns = np.nonzero(red)
        np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], place, atol=0.6)
        assert depth[red].min() == pytest.approx(seen[2], abs=0.03)


def test_textures_may_lie_elsewhere_in_the_folder_but_not_outside(tmp_path):
    root = tmp_path / "m"
    write_obj(root / "a", texture="../textures/t.png", files=("mtl",))
    (root / "textures").mkdir()
    Image.fromarray(QUARTERS).save(root / "textures" / "t.png")
    Image.fromarray(QUARTERS).save(tmp_path / "t.png")
    assert colour_at(read_parts(root / "a" / "o.obj", root, 64), 0.2, 0.8) == [255, 0, 0]
    for texture in ("../../t.png", str(tmp_path / "t.png")):
        write_obj(root / "a", texture=texture, files=("mtl",))
        with pytest.raises(ValueError, match=r"o.obj: the path '.*t.png' leads out of"):
            read_parts(root / "a" / "o.obj", root, 64)


@pytest.mark.parametrize(
    ("files", "reason"), [(("mtl",), r"a/o.png: there is no such file"), (("png",), r"a/o.mtl: there is no such file")]
)
def test_missing_materials_and_textures_are_named(tmp_path, files, reason):
    write_obj(tmp_path / "a", files=files)
    with pytest.raises(ValueError, match=reason):
        read_parts(tmp_path / "a" / "o.obj", tmp_path, 64)


def test_a_texture_that_is_no_picture_is_reported(tmp_path):
    write_obj(tmp_path / "a")
    (tmp_path / "a" / "o.png").write_bytes(b"GIF89a no more")
    with pytest.raises(ValueError, match=r"a/o.png: damaged, or no .png file \(UnidentifiedImageError"):
        read_parts(tmp_path / "a" / "o.obj", tmp_path, 64)


PLY = """ply
format ascii 1.0
comment by hand
element vertex 3
property float x
property float y
property float z
element face 1
property list uchar int vertex_indices
end_header
0 0 0
1 0 0
0 1 0
3 0 1 2
"""


def test_text_is_read_with_comments_empty_lines_and_tabs(tmp_path):
    (tmp_path / "m.ply").write_text(PLY)
    (tmp_path / "m.off").write_text("OFF 3 1 0\n0 0 0\n1 0 0 # here\n\n0 1 0\n3 0 1 2")
    (tmp_path / "m.obj").write_text("v\t0 0\t0\nv\t1\t0\t0\nv\t0\t1\t0\nf\t1\t2\t3\n")
    for name in ("m.ply", "m.off", "m.obj"):
        (part,) = read_parts(tmp_path / name, tmp_path, 64)
        np.testing.assert_array_equal(part.mesh.vertices[part.mesh.faces], [[[0, 0, 0], [1, 0, 0], [0, 1, 0]]])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", r"m.obj"),
        ("m.obj", "v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", r"m.obj: a vertex is not finite"),
        ("m.obj", "v 0\nv 1\nv 2\nf 1 2 3\n", r"m.obj: \(3, 1\) vertices and \(1, 3\) triangles, not of 3"),
        ("m.obj", "", r"m.obj"),
        ("m.ply", "ply\nformat ascii 1.0\nelement vertex 99999999999\n", r"m.ply"),
        ("m.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", r"m.off"),
        ("m.off", "OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n\n3 0 1 2\n", "cut off: 4 of 5 lines of vertices and faces"),
        ("m.ply", PLY.replace("face 1", "face 2"), "cut off: 4 of 5 lines of vertices and faces"),
        ("m.stl", "solid a", r"m.stl"),
        ("m.glb", "glTF", r"m.glb: damaged, or no .glb file \(error: unpack requires a buffer of 20 bytes\)"),
        ("m.off", "OFF\n3 1 0\n1 1 1\n1 1 1\n1 1 1\n3 0 1 2\n", r"no faces with an area"),
    ],
)
def test_damaged_meshes_are_left_out_with_their_reason(folder, tmp_path, monkeypatch, name, content, reason):
    (folder / name).write_text(content)
    with pytest.raises(ImportFailedError, match=reason):
        import_(folder, tmp_path)
    monkeypatch.setattr(Meshes, "max_skipped_share", 0.2)
    store = import_(folder, tmp_path)
    assert [entry.object for entry in store.manifest.skipped] == [name]
    assert len(store.objects) == 6


def test_point_clouds_have_points(tmp_path):
    points = np.random.default_rng(0).normal(size=(7, 3))
    trimesh.PointCloud(points).export(tmp_path / "p.ply")
    np.testing.assert_allclose(np.sort(read_points(tmp_path / "p.ply"), axis=0), np.sort(points, axis=0), atol=1e-6)
    (tmp_path / "e.ply").write_text("ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nend_header\n")
    with pytest.raises(ValueError, match=r"e.ply"):
        read_points(tmp_path / "e.ply")


def test_a_folder_without_meshes_is_refused_as_such(tmp_path):
    (tmp_path / "scans").mkdir()
    with pytest.raises(ValueError, match=r"scans holds no object; needed: meshes in any sub-folders: \.obj"):
        prepare("meshes", OPTIONS, tmp_path / "home", source=tmp_path / "scans")


def test_gltf_with_separate_files_is_named(tmp_path, caplog):
    folder = tmp_path / "models"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "scene.gltf").write_text("{}")
    with pytest.raises(ValueError, match=r"export as \.glb, which holds all in one file: a/scene\.gltf"):
        prepare("meshes", OPTIONS, tmp_path / "home", source=folder)
    write_obj(folder / "b")
    alone = OPTIONS | {"val_geometries": 0, "test_geometries": 0}
    path = prepare("meshes", alone, tmp_path / "home", workers=1, source=folder)
    assert Store.open(path).objects["object"].tolist() == ["b/o.obj"]
    assert "a/scene.gltf" in caplog.text


@pytest.mark.parametrize("changed", ["b/o.obj", "b/o.mtl", "b/o.png"])
def test_every_file_of_a_mesh_is_part_of_the_fingerprint(tmp_path, changed):
    source, alone = tmp_path / "source", {"val_geometries": 0, "test_geometries": 0}
    for name in ("a", "b"):
        write_obj(source / name)
    (source / "b" / "unused.txt").write_text("1")
    before = import_(source, tmp_path / "before", **alone).fingerprint
    (source / "b" / "unused.txt").write_text("2")
    assert import_(source, tmp_path / "same", **alone).fingerprint == before
    if changed.endswith(".png"):
        Image.fromarray(QUARTERS[::-1].repeat(16, 0).repeat(16, 1)).save(source / changed)
    else:
        (source / changed).write_text((source / changed).read_text() + "# another\n")
    assert import_(source, tmp_path / "after", **alone).fingerprint != before


def test_a_texture_that_changed_during_an_interrupted_import_is_read_again(tmp_path):
    source, options = tmp_path / "source", {**OPTIONS, "val_geometries": 0, "test_geometries": 0}
    for name in ("a", "b"):
        write_obj(source / name)

    def interrupt(done, *_):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("meshes", options, tmp_path / "home", interrupt, workers=1, source=source)
    for name in ("a", "b"):
        Image.fromarray(QUARTERS[::-1].repeat(16, 0).repeat(16, 1)).save(source / name / "o.png")
    resumed, anew = (
        Store.open(prepare("meshes", options, tmp_path / home, workers=1, source=source)) for home in ("home", "new")
    )
    assert (resumed.fingerprint, resumed.checksum) == (anew.fingerprint, anew.checksum)
