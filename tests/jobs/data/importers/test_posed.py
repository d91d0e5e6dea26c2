"""`transforms` and `colmap`: every format's cameras project a known point to its pixel."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from jobs.data.importers.base import ImportFailedError, UnreadableObjectError
from jobs.data.importers.colmap import read_images
from jobs.data.importers.files import MAX_TEXT_BYTES
from jobs.data.inspect import check
from jobs.data.prepare import prepare
from jobs.data.store import Store
from tests.jobs.data.conftest import CENTRES, PHOTO, dot_in, opengl, photo, subsample_views, write_colmap_text

#: The point that all cameras of the layouts look at.
LOOKED_AT = np.array([0.05, 0.02, -0.03])


@pytest.fixture(params=["transforms", "colmap"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def source(layouts, kind, tmp_path):
    layouts[kind].write(tmp_path / "source")
    return tmp_path / "source"


def import_(kind, source, home, **options) -> Store:
    return Store.open(prepare(kind, {"image_size": 64, **options}, home, workers=1, source=source))


def assert_point_is_seen(store: Store, name: str, centres=CENTRES, tolerance=0.7) -> None:
    """Asserts it with each view as the source; the scale is 2 / the source camera's distance."""
    row = store.objects.set_index("object").loc[name]
    frames = np.arange(row["first_frame"], row["first_frame"] + row["num_frames"])
    for first in range(len(frames)):
        order = np.roll(np.arange(len(frames)), -first)
        views = store.views(frames[order][None], store.resolution)
        scale = 2 / np.linalg.norm(centres[order[0]] - LOOKED_AT)
        point = subsample_views(centres[order[0]]) * scale
        for view in range(len(order)):
            matrix = views.cameras.world_to_camera[0, view].numpy()
            seen = matrix[:3, :3] @ point + matrix[:3, 3]
            place = seen[:2] / seen[2] * views.cameras.focal[0, view].numpy() + views.cameras.principal[0, view].numpy()
            np.testing.assert_allclose(dot_in(views.images[0, view].numpy()), place, atol=tolerance)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("transforms", n) for n in ("lego", "studio", "ngp")] + [("colmap", n) for n in ("text", "binary")],
)
def test_a_point_is_where_the_cameras_see_it(layouts, kind, name, tmp_path):
    layouts[kind].write(tmp_path / "source")
    store = import_(kind, tmp_path / "source", tmp_path)
    centres = CENTRES[::-1] if name == "studio" else CENTRES  # its frames are written last to first
    assert_point_is_seen(store, name, centres)


def test_objects_are_centred_upright_and_at_one_distance(source, kind, tmp_path):
    store = import_(kind, source, tmp_path)
    for row in store.objects.itertuples():
        poses = store.world_to_camera[row.first_frame : row.first_frame + row.num_frames]
        assert np.linalg.norm(poses[:, :3, 3], axis=1).mean() == pytest.approx(2, rel=1e-5)
        np.testing.assert_allclose(poses[:, :2, 3], 0, atol=1e-5)  # the origin is on every viewing axis
        assert -poses[:, 1, 2].mean() > 0.7, "heads are up"
    assert store.manifest.source_distance == 2.0
    assert 0 < store.manifest.near < 2 < store.manifest.far < 4
    assert check(store) == []


def test_splits_are_drawn_stated_by_folders_or_by_a_file(source, kind, tmp_path):
    names = sorted(path.name for path in source.iterdir())
    drawn = import_(kind, source, tmp_path / "drawn", test_objects=1, val_objects=1)
    assert drawn.manifest.counts == {"train": len(names) - 2, "val": 1, "test": 1}
    with pytest.raises(ValueError, match=rf"has {len(names)} objects"):
        import_(kind, source, tmp_path, test_objects=9)
    (tmp_path / "splits.json").write_text(json.dumps({"train": names[:1], "test": names[1:2]}))
    files = {"splits": [tmp_path / "splits.json"]}
    listed = Store.open(prepare(kind, {"image_size": 64}, tmp_path / "l", workers=1, source=source, files=files))
    assert dict(zip(listed.objects["object"], listed.objects["split"], strict=True)) == {
        names[0]: "train",
        names[1]: "test",
    }
    for content, reason in (
        ({"train": ["nobody"]}, "no object 'nobody'"),
        ({"train": [names[:1]]}, rf"no object \['{names[0]}'\]"),
        ({"train": 3}, "not lists of objects by split"),
        ({"train": names[0]}, "not lists of objects by split"),
        ({"train": []}, "not lists of objects by split"),
    ):
        (tmp_path / "splits.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=reason):
            prepare(kind, {"image_size": 64}, tmp_path / "m", workers=1, source=source, files=files)
    for name, split in zip(names, ("train", "val", "test"), strict=False):
        (tmp_path / "folders" / split).mkdir(parents=True)
        (source / name).rename(tmp_path / "folders" / split / name)
    stated = import_(kind, tmp_path / "folders", tmp_path / "f")
    assert stated.objects["split"].tolist() == ["train", "val", "test"][: len(names)]
    assert stated.objects["object"].tolist() == names


def test_objects_of_one_name_in_several_splits_are_refused(source, kind, tmp_path):
    name = {"transforms": "ngp", "colmap": "text"}[kind]
    folders = tmp_path / "folders"
    for split in ("test", "train"):
        shutil.copytree(source / name, folders / split / name)
    with pytest.raises(ValueError, match=rf"{folders}/test/{name} and {folders}/train/{name} are .* name '{name}'"):
        import_(kind, folders, tmp_path)


def test_the_source_may_be_one_object(source, kind, tmp_path):
    name = {"transforms": "studio", "colmap": "text"}[kind]
    store = import_(kind, source / name, tmp_path)
    assert store.objects["object"].tolist() == [name]
    assert store.manifest.counts == {"train": 0, "val": 0, "test": 1}


def test_cameras_may_stay_as_they_are(source, kind, tmp_path):
    store = import_(kind, source, tmp_path, normalised=False)
    assert store.manifest.source_distance is None
    name = {"transforms": "ngp", "colmap": "text"}[kind]
    first = int(store.objects.set_index("object").loc[name]["first_frame"])
    seen = store.world_to_camera[first] @ [0.21, -0.13, 0.17, 1]
    np.testing.assert_allclose(seen[:3], subsample_views(CENTRES[0]), atol=1e-5)
    assert store.manifest.near < seen[2] < store.manifest.far


def test_surfaces_before_the_near_plane_are_reported(tmp_path):
    """The cameras are 1.3 to 1.9 units from what they look at, and 0.13 to 0.19 in a unit ten times as large."""
    write_colmap_text(tmp_path / "s" / "small", unit=0.1)
    write_colmap_text(tmp_path / "s" / "usual")
    (remark,) = import_("colmap", tmp_path / "s", tmp_path, normalised=False).manifest.remarks
    assert remark.object == "small"
    assert re.match(r"its depth bounds are 0\.\d+ and 0\.\d+ scene units, .* up to 0\.2: leave out option", remark.text)
    assert import_("colmap", tmp_path / "s", tmp_path).manifest.remarks == [], "all are scaled"


def test_transparency_and_masks_leave_the_object_on_white(layouts, tmp_path):
    layouts["transforms"].write(tmp_path / "source")
    store = import_("transforms", tmp_path / "source", tmp_path)
    assert (store.images.transpose(0, 2, 3, 1)[store.mask == 0] == 255).all()
    assert (store.mask == 255).any(axis=(1, 2)).all()


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def ngp(layouts, tmp_path):
    layouts["transforms"].write(tmp_path / "all")
    return (tmp_path / "all" / "ngp").rename(tmp_path / "ngp")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["frames"][1].update(k1=0.1, p2=-0.2), r"distortion \(k1 0.1, p2 -0.2\); undistort"),
        (lambda c: c.update(camera_model="OPENCV_FISHEYE"), "camera_model 'OPENCV_FISHEYE'; allowed"),
        (lambda c: c.update(is_fisheye=True), "is_fisheye True: not a pinhole camera"),
        (lambda c: c["frames"][0].update(file_path="rgb/gone.png"), r"its picture 'rgb/gone.png' is missing"),
        (lambda c: c["frames"][0].update(mask_path="rgb/gone.png"), r"rgb/gone.png: there is no such file"),
        (lambda c: c["frames"][0].update(file_path="../../x.png"), r"leads out of"),
        (lambda c: c["frames"][0].update(w=100), r"0.jpg: 200 x 160 pixels, and its camera is of \(100, 160\)"),
        (lambda c: c["frames"][0].update(fl_x="far"), "could not convert"),
        (
            lambda c: [c["frames"][0].pop(key) for key in ("fl_x", "fl_y")],
            "no focal length: one of fl_x, camera_angle_x",
        ),
        (lambda c: c["frames"][0].update(fl_x=0, camera_angle_x=40.0), "2292 degrees is not between 0 and 180"),
        (lambda c: c["frames"][0].update(transform_matrix=[[1, 2], [3, 4]]), r"is \(2, 2\), not 4 x 4"),
        (lambda c: c["frames"][0].update(transform_matrix=np.diag([1, 2, 1, 1.0]).tolist()), "not a rotation"),
        (lambda c: c["frames"][0].update(cx=1.0), "principal point .* near or beyond its border"),
        (lambda c: c["frames"][0].pop("mask_path"), "0.jpg: neither transparent nor masked"),
        (lambda c: c.update(frames=3), "no list of frames"),
    ],
)
def test_what_is_no_set_of_pinhole_pictures_is_refused_by_name(ngp, tmp_path, change, reason):
    rewrite(ngp / "transforms.json", change)
    with pytest.raises(ImportFailedError, match=reason):
        import_("transforms", ngp, tmp_path)


def test_variants_of_intrinsics_mean_the_same(ngp, tmp_path):
    expected = import_("transforms", ngp, tmp_path / "a")

    def as_angles(content):
        for frame in content["frames"]:
            frame["camera_angle_x"] = 2 * np.arctan(PHOTO["w"] / 2 / frame.pop("fl_x"))
            frame["camera_angle_y"] = 2 * np.arctan(PHOTO["h"] / 2 / frame.pop("fl_y"))

    def as_degrees(content):
        for frame in content["frames"]:
            frame["x_fov"] = np.degrees(frame.pop("camera_angle_x"))
            frame["y_fov"] = np.degrees(frame.pop("camera_angle_y"))

    def as_shared(content):
        content.update({key: content["frames"][0][key] for key in ("x_fov", "y_fov", "cx", "cy", "w", "h")})
        content["frames"] = [
            {k: f[k] for k in ("file_path", "transform_matrix", "mask_path")} for f in content["frames"]
        ]

    for number, change in enumerate((as_angles, as_degrees, as_shared)):
        rewrite(ngp / "transforms.json", change)
        found = import_("transforms", ngp, tmp_path / str(number))
        np.testing.assert_allclose(found.focal, expected.focal, rtol=1e-6)
        np.testing.assert_array_equal(found.images, expected.images)


def test_pictures_of_several_sizes_and_smaller_copies(ngp, tmp_path):
    """A picture at half its camera's size, and one of another camera altogether."""
    photo(ngp / "rgb" / "0.jpg", CENTRES[0], size=(100, 80), scale=0.5)
    Image.open(ngp / "rgb" / "0_mask.png").resize((100, 80)).save(ngp / "rgb" / "0_mask.png")
    assert_point_is_seen(import_("transforms", ngp, tmp_path), "ngp")


def test_lists_of_file_names_choose_the_frames(ngp, tmp_path):
    rewrite(ngp / "transforms.json", lambda c: c.update(test_filenames=["./rgb/2.jpg", "rgb/0.jpg"]))
    assert import_("transforms", ngp, tmp_path).objects["num_frames"].tolist() == [2]


def test_depth_maps_are_scaled_with_the_world(ngp, tmp_path):
    for view, centre in enumerate(CENTRES):
        steps = np.full((160, 200), round(subsample_views(centre)[2] * 1000), np.uint16)
        Image.fromarray(steps).save(ngp / "rgb" / f"{view}_depth.png")
    with pytest.raises(ImportFailedError, match="no depth map is named for it, as by depth_file_path"):
        import_("transforms", ngp, tmp_path, depth=True)
    rewrite(
        ngp / "transforms.json",
        lambda c: [f.update(depth_file_path=f"rgb/{n}_depth.png") for n, f in enumerate(c["frames"])],
    )
    store = import_("transforms", ngp, tmp_path, depth=True)
    scale = 2 / np.mean([np.linalg.norm(centre - LOOKED_AT) for centre in CENTRES])
    for depth, centre in zip(store.depth, CENTRES, strict=True):
        np.testing.assert_allclose(depth, subsample_views(centre)[2] * scale, rtol=2e-3)

    rewrite(ngp / "transforms.json", lambda c: c.update(integer_depth_scale=0.002))
    for home, option in (("stated", {}), ("same", {"depth_unit": 0.002})):
        doubled = import_("transforms", ngp, tmp_path / home, depth=True, **option)
        np.testing.assert_allclose(doubled.depth, 2 * store.depth, rtol=1e-6)
    with pytest.raises(ImportFailedError, match=r"states a depth unit of 0\.002, and option depth_unit is 0\.01"):
        import_("transforms", ngp, tmp_path, depth=True, depth_unit=0.01)
    rewrite(ngp / "transforms.json", lambda c: c.update(integer_depth_scale=0))
    with pytest.raises(ImportFailedError, match="integer_depth_scale is 0, not a positive number"):
        import_("transforms", ngp, tmp_path / "zero", depth=True)


def test_cameras_that_are_no_ring_around_an_object_are_refused(ngp, tmp_path):
    def outward(content):
        for frame in content["frames"]:
            matrix = np.array(frame["transform_matrix"])
            matrix[:3, [0, 2]] *= -1
            frame["transform_matrix"] = matrix.tolist()

    rewrite(ngp / "transforms.json", outward)
    with pytest.raises(ImportFailedError, match=r"3 of 3 cameras look away .* or their matrices are .*inverted"):
        import_("transforms", ngp, tmp_path)

    def parallel(content):
        for number, frame in enumerate(content["frames"]):
            matrix = np.eye(4)
            matrix[0, 3] = number
            frame["transform_matrix"] = matrix.tolist()

    rewrite(ngp / "transforms.json", parallel)
    with pytest.raises(ImportFailedError, match=r"its 3 cameras look in parallel, .* or their matrices are .*inverted"):
        import_("transforms", ngp, tmp_path)
    assert len(import_("transforms", ngp, tmp_path, normalised=False).objects) == 1
    rewrite(ngp / "transforms.json", lambda content: content.update(frames=content["frames"][:1]))
    with pytest.raises(ImportFailedError, match=r"it has a single camera, which .* see option normalised"):
        import_("transforms", ngp, tmp_path)


@pytest.mark.parametrize(
    ("camera", "reason"),
    [
        (
            "1 SIMPLE_RADIAL 200 160 180 104 78 0.01",
            r"SIMPLE_RADIAL with distortion \(k1 0.01\); .*colmap image_undistorter",
        ),
        ("1 OPENCV 200 160 180 190 104 78 0 0 0.1 0", r"OPENCV with distortion \(p1 0.1\); .*image_undistorter"),
        ("1 OPENCV_FISHEYE 200 160 180 190 104 78 0 0 0 0", "OPENCV_FISHEYE is no pinhole camera; .*image_undistorter"),
        ("1 PINHOLE 200 x 180 190 104 78", r"cameras\.txt: damaged, or no .txt file .*invalid literal for int.*'x'"),
        ("1 PINHOLE 200 160 180 190 104", "is no camera; models: SIMPLE_PINHOLE"),
        ("2 PINHOLE 200 160 180 190 104 78", "has camera 1, which is not there"),
        ("1 PINHOLE 300 160 180 190 104 78", r"200 x 160 pixels, and its camera is of \(300, 160\)"),
    ],
)
def test_cameras_of_colmap_that_are_no_pinholes_are_refused_by_name(tmp_path, camera, reason):
    write_colmap_text(tmp_path / "o", camera)
    with pytest.raises(ImportFailedError, match=reason):
        import_("colmap", tmp_path / "o", tmp_path)


@pytest.mark.parametrize("camera", ["1 SIMPLE_PINHOLE 200 160 180 100 80", "1 OPENCV 200 160 180 180 100 80 0 0 0 0"])
def test_cameras_without_distortion_are_pinholes(tmp_path, camera):
    write_colmap_text(tmp_path / "o", camera)
    store = import_("colmap", tmp_path / "o", tmp_path)
    np.testing.assert_allclose(store.focal, 180 * 64 / 160, rtol=1e-6)


def test_a_message_repeats_the_beginning_of_a_line(tmp_path):
    """Without its empty line, a picture's thousands of points stand where the next picture should."""
    write_colmap_text(tmp_path / "o")
    (tmp_path / "o/sparse/0/images.txt").write_text("1 2 3 " + "4" * 20_000 + "\n")
    with pytest.raises(UnreadableObjectError, match=r"images\.txt: '1 2 3 4{94}'\.\.\. is no picture with its pose"):
        read_images(tmp_path / "o/sparse/0")


def test_text_models_may_be_as_large_as_binary_ones(tmp_path):
    """Hundreds of pictures with ten thousand key points each; the file here ends in an empty comment."""
    write_colmap_text(tmp_path / "o")
    with (tmp_path / "o" / "sparse" / "0" / "images.txt").open("a") as stream:
        stream.write("#")
        stream.truncate(MAX_TEXT_BYTES + 1)
    assert import_("colmap", tmp_path / "o", tmp_path).objects["num_frames"].tolist() == [3]


def test_missing_pictures_of_colmap_are_named(tmp_path):
    write_colmap_text(tmp_path / "o")
    (tmp_path / "o" / "images" / "a photo 1.jpg").unlink()
    with pytest.raises(ImportFailedError, match=r"its picture 'a photo 1.jpg' is missing: there is no"):
        import_("colmap", tmp_path / "o", tmp_path)


@pytest.mark.parametrize("place", ["sparse", "colmap/sparse", "distorted/sparse"])
def test_of_several_models_of_an_object_one_is_read(tmp_path, place):
    models = tmp_path / "s" / "o" / place
    write_colmap_text(tmp_path / "s" / "o")
    models.parent.mkdir(exist_ok=True)
    (tmp_path / "s" / "o" / "sparse").rename(models)
    for number in ("2", "10"):
        shutil.copytree(models / "0", models / number)
    for number, count in {"0": 3, "2": 2}.items():
        (remark,) = import_("colmap", tmp_path / "s", tmp_path / number).manifest.remarks
        assert (remark.object, remark.text) == ("o", f"of its {count} models, {number} is read")
        shutil.rmtree(models / number)
    assert import_("colmap", tmp_path / "s", tmp_path / "10").manifest.remarks == []


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_binary_models_that_are_cut_off_are_named(layouts, tmp_path, name):
    layouts["colmap"].write(tmp_path / "s")
    file = tmp_path / "s" / "binary" / "sparse" / "0" / f"{name}.bin"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ImportFailedError, match=rf"binary: .*{name}.bin: cut off"):
        import_("colmap", tmp_path / "s", tmp_path)


def test_points_determine_the_depth_bounds(tmp_path):
    write_colmap_text(tmp_path / "o")
    near = import_("colmap", tmp_path / "o", tmp_path / "a").manifest.near
    (tmp_path / "o" / "sparse" / "0" / "points3D.txt").unlink()
    assert import_("colmap", tmp_path / "o", tmp_path / "b").manifest.near == pytest.approx(1)
    assert 1 < near < 2


@pytest.mark.parametrize("alpha", [False, True])
def test_surroundings_are_reported_unless_they_are_transparent(kind, tmp_path, alpha):
    """Also in PNG, as nerfstudio has the frames of a video."""
    folder, suffix = tmp_path / "s" / "o", ".png"
    if kind == "colmap":
        write_colmap_text(folder)
        shutil.rmtree(folder / "masks")
        model = folder / "sparse" / "0" / "images.txt"
        model.write_text(model.read_text().replace(".jpg", suffix))
        names = [f"images/a photo {view}{suffix}" for view in range(len(CENTRES))]
    else:
        names = [f"{view}{suffix}" for view in range(len(CENTRES))]
        frames = [
            {"file_path": name, "transform_matrix": opengl(centre).tolist()}
            for name, centre in zip(names, CENTRES, strict=True)
        ]
        folder.mkdir(parents=True)
        (folder / "transforms.json").write_text(json.dumps({**PHOTO, "frames": frames}))
    for name, centre in zip(names, CENTRES, strict=True):
        photo(folder / name, centre, alpha=alpha)
    remarks = [remark.text for remark in import_(kind, tmp_path / "s", tmp_path).manifest.remarks]
    assert any("its surroundings are part of the pictures" in text for text in remarks) == (not alpha)


def test_without_masks_the_surroundings_are_kept_and_reported(tmp_path):
    write_colmap_text(tmp_path / "o")
    shutil.rmtree(tmp_path / "o" / "masks")
    store = import_("colmap", tmp_path / "o", tmp_path)
    assert store.mask is None
    assert "surroundings are part of the pictures" in store.manifest.remarks[0].text
    assert_point_is_seen(store, "o")
