import gzip
import json
import shutil

import numpy as np
import pytest
import trimesh
from PIL import Image

from jobs.data.importers.base import ImportFailedError
from jobs.data.importers.co3d import Co3d
from jobs.data.importers.co3d_raw import HALF_EXTENT, normalise, pixels_of_ndc
from jobs.data.importers.crops import square_around
from jobs.data.inspect import check
from jobs.data.prepare import prepare, store_path
from jobs.data.store import Store

NAMES = ["110_1_2", "111_3_4", "112_5_6", "113_7_8"]


@pytest.fixture
def preprocessed(layouts, tmp_path):
    layouts["co3d_preprocessed"].write(tmp_path / "gs")
    return tmp_path / "gs"


@pytest.fixture
def raw(layouts, tmp_path):
    layouts["co3d_raw"].write(tmp_path / "co3d")
    return tmp_path / "co3d"


@pytest.fixture
def import_raw(layouts, tmp_path):
    def run(source, **options):
        return layouts["co3d_raw"].prepare(source, tmp_path / "home", **{"normalised": False, "depth": False} | options)

    return run


def rewrite(path, change):
    """Changes an annotation file."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        content = json.load(stream)
    change(content)
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        json.dump(content, stream)


def splits(store) -> dict[str, str]:
    return dict(zip(store.objects["object"], store.objects["split"], strict=True))


# ---- both layouts


@pytest.mark.parametrize("name", NAMES)
def test_a_point_is_where_the_preprocessed_cameras_see_it(layouts, preprocessed, tmp_path, assert_seen, name):
    assert_seen(layouts["co3d_preprocessed"].prepare(preprocessed, tmp_path), name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [128, 80])
def test_a_point_is_where_the_raw_cameras_see_it(import_raw, raw, assert_seen, name, size):
    assert_seen(import_raw(raw, image_size=size), name)


@pytest.mark.parametrize("kind", ["co3d_preprocessed", "co3d_raw"])
def test_splits_and_facts(layouts, request, tmp_path, kind):
    source = request.getfixturevalue(kind.removeprefix("co3d_"))
    store = layouts[kind].prepare(source, tmp_path, normalised=False)
    assert splits(store) == dict(zip(NAMES, ["train", "train", "val", "test"], strict=True))
    assert set(store.objects["category"]) == {"hydrant"}
    assert (store.manifest.near, store.manifest.far, store.manifest.bounds_from_origin) == (-2, 2, True)
    assert store.manifest.background == (0, 0, 0)
    assert store.manifest.options["normalised"] is False
    assert store.manifest.evaluation == {"source_frames": [0, 30]}
    assert [problem for problem in check(store) if "input views" not in problem and "source frame" not in problem] == []


def test_the_origins_distance_is_in_the_datasets_frame(layouts, preprocessed, tmp_path):
    store = layouts["co3d_preprocessed"].prepare(preprocessed, tmp_path)
    distances = store.views(np.array([[2, 0, 1]]), 64).origin_distance[0]
    for frame, distance in zip((2, 0, 1), distances.tolist(), strict=True):
        with np.load(preprocessed / "co3d_hydrant_for_gs/train/camera_Rs.npz") as rotations:
            rotation = rotations["110_1_2"][frame]
        with np.load(preprocessed / "co3d_hydrant_for_gs/train/camera_Ts.npz") as translations:
            centre = -translations["110_1_2"][frame] @ np.linalg.inv(rotation)
        axis = np.array([0, 0, 1]) @ np.linalg.inv(rotation)  # the camera's z axis, in the world
        assert distance == pytest.approx(-centre @ axis, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bad.txt", "111_3_4\n\n  999_unknown  \n"),
        ("bad.json", '["111_3_4", "999_unknown"]'),
        ("bad.json", '{"hydrant": ["111_3_4"], "teddybear": ["112_5_6"]}'),
    ],
)
def test_excluded_sequences_are_left_out_and_recorded(preprocessed, tmp_path, name, content):
    lists = [tmp_path / name, tmp_path / "more.txt"]
    lists[0].write_text(content)
    lists[1].write_text("112_5_6\n")
    path = prepare(
        "co3d", {"layout": "preprocessed"}, tmp_path, workers=1, source=preprocessed, files={"exclude": lists}
    )
    store = Store.open(path)
    assert list(store.objects["object"]) == ["110_1_2", "113_7_8"]
    assert [file.content for file in store.manifest.files["exclude"]] == [content, "112_5_6\n"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "bad.txt",
            "34_1403_4393\n",
            "none of its 1 sequences, first '34_1403_4393', is among the 4 of category 'hydrant'",
        ),
        ("bad.json", '"110_1_2"', "not a list of sequences"),
        ("bad.json", "{", r"damaged, or no .json file \(JSONDecodeError"),
    ],
)
def test_lists_of_something_else_are_refused(preprocessed, tmp_path, name, content, reason):
    (tmp_path / name).write_text(content)
    files = {"exclude": [tmp_path / name]}
    with pytest.raises(ValueError, match=f"{name}: {reason}"):
        prepare("co3d", {"layout": "preprocessed"}, tmp_path, workers=1, source=preprocessed, files=files)


# ---- preprocessed


def test_masks_are_found_again(layouts, preprocessed, tmp_path):
    store = layouts["co3d_preprocessed"].prepare(preprocessed, tmp_path)
    for image, mask in zip(store.images, store.mask, strict=True):
        np.testing.assert_array_equal(mask, np.where(image.any(axis=0), 255, 0))


def test_soft_masks_are_found_again(layouts, preprocessed, tmp_path):
    folder = preprocessed / "co3d_hydrant_for_gs/train/110_1_2"
    full = np.load(folder / "images_full.npy")
    share = np.linspace(0, 1, 128, dtype=np.float32)
    np.save(folder / "images_fg.npy", full * share)
    store = layouts["co3d_preprocessed"].prepare(preprocessed, tmp_path)
    np.testing.assert_allclose(store.mask[0][5], np.rint(share * 255), atol=1)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        (
            "images_fg.npy",
            np.zeros((3, 3, 64, 64)),
            r"images_fg.npy: the array is float64 \(3, 3, 64, 64\), not .* 128",
        ),
        (
            "images_full.npy",
            np.full((3, 3, 128, 128), 200.0),
            r"images_full.npy: float64 from 200.0 to 200.0, not 0 to 1",
        ),
        ("focal_lengths.npy", np.zeros((3, 1, 2)), r"focal_lengths.npy: a focal length of 0"),
        ("focal_lengths.npy", np.full((2, 1, 2), 2.0), r"focal_lengths.npy: the array is float64 \(2, 1, 2\)"),
    ],
)
def test_damaged_sequences_are_left_out_with_their_reason(
    layouts, preprocessed, tmp_path, monkeypatch, file, content, reason
):
    np.save(preprocessed / "co3d_hydrant_for_gs/train/110_1_2" / file, content)
    with pytest.raises(ImportFailedError, match=rf"110_1_2/{reason}"):
        layouts["co3d_preprocessed"].prepare(preprocessed, tmp_path)
    monkeypatch.setattr(Co3d, "max_skipped_share", 0.3)
    assert NAMES[0] not in splits(layouts["co3d_preprocessed"].prepare(preprocessed, tmp_path))


def test_cameras_that_are_not_numbers_are_named(layouts, preprocessed, tmp_path):
    path = preprocessed / "co3d_hydrant_for_gs/test/camera_Rs.npz"
    np.savez(path, **{"113_7_8": np.full((3, 3, 3), np.nan)})
    with pytest.raises(ImportFailedError, match=r"test/camera_Rs.npz: a value of 113_7_8 is not finite"):
        layouts["co3d_preprocessed"].prepare(preprocessed, tmp_path)


def test_depth_is_no_option_of_the_preprocessed_layout(layouts, preprocessed, tmp_path):
    with pytest.raises(ValueError, match="preprocessed sequences have no depth maps"):
        layouts["co3d_preprocessed"].prepare(preprocessed, tmp_path, depth=True)


# ---- raw


def test_frames_without_camera_or_mask_are_left_out_and_reported(import_raw, raw):
    store = import_raw(raw)
    assert store.objects["num_frames"].tolist() == [3, 3, 3, 3]
    (remark,) = (remark for remark in store.manifest.remarks if "left out" in remark.text)
    assert (remark.object, remark.text[:14]) == ("111_3_4", "2 of 5 frames ")


def test_frames_are_sorted_by_number(import_raw, raw):
    store = import_raw(raw)  # the annotations are written last to first
    expected = [np.linalg.norm(centre) for centre in ([1.4, 0.3, 0.5], [-0.6, 1.5, 0.9], [-1.2, -1.1, 0.4])]
    np.testing.assert_allclose(np.linalg.norm(store.world_to_camera[:3, :3, 3], axis=1), expected, rtol=1e-5)


def test_backgrounds_are_black_under_soft_masks(import_raw, raw):
    store = import_raw(raw)
    colour = store.images.max(axis=1)
    assert (colour <= store.mask).all()
    assert (store.mask == 255).any()
    assert (colour[store.mask == 0] == 0).all()


def test_the_crop_is_the_largest_square_around_the_principal_point(import_raw, raw):
    store = import_raw(raw)
    half = 240 - 132.0  # the nearest border is the right one
    np.testing.assert_allclose(store.focal, np.tile(np.array([250, 260.0]) * 128 / (2 * half), (12, 1)), rtol=1e-6)
    np.testing.assert_allclose(store.principal, 64)
    assert square_around(np.array([132.0, 141.0]), (240, 300)) == (24, 33, 240, 249)
    assert square_around(np.array([132.0, 298.0]), (240, 300)) is None
    assert square_around(np.array([-5.0, 141.0]), (240, 300)) is None


def test_both_kinds_of_ndc(tmp_path):
    assert pixels_of_ndc("ndc_isotropic", (240, 300), tmp_path).tolist() == [120, 120]
    assert pixels_of_ndc(None, (240, 300), tmp_path).tolist() == [120, 150]
    assert pixels_of_ndc("ndc_norm_image_bounds", (240, 300), tmp_path).tolist() == [120, 150]
    with pytest.raises(ValueError, match=r"'pixels'; allowed: ndc_isotropic, ndc_norm_image_bounds"):
        pixels_of_ndc("pixels", (240, 300), tmp_path)


def test_depth_is_camera_z_where_it_is_known(import_raw, raw):
    store = import_raw(raw, depth=True)
    for frame in (0, 2, 7):
        known = store.depth[frame] > 0
        assert 0 < known.mean() < 0.1, "only where the depth mask says so"
        seen = store.world_to_camera[frame] @ [0.21, -0.13, 0.17, 1]
        np.testing.assert_allclose(store.depth[frame][known], seen[2], rtol=2e-3)  # of float16


def test_normalised_sequences_fit_around_the_origin(import_raw, raw):
    plain, normal = import_raw(raw, depth=True), import_raw(raw, normalised=True, depth=True)
    assert plain.path != normal.path
    assert normal.manifest.options["normalised"] is True
    cloud = np.asarray(trimesh.load(raw / "hydrant/110_1_2/pointcloud.ply").vertices)
    scale = np.median(normal.depth[0][normal.depth[0] > 0] / plain.depth[0][plain.depth[0] > 0])
    np.testing.assert_array_equal(plain.images, normal.images)
    for before, after in zip(plain.world_to_camera[:3], normal.world_to_camera[:3], strict=True):
        seen = cloud @ before[:3, :3].T + before[:3, 3]  # the cloud in front of the camera, then in the new world
        world = (seen * scale - after[:3, 3]) @ after[:3, :3]
        np.testing.assert_allclose(world[:, :2].mean(axis=0), 0, atol=2e-3)  # depth is of float16
        assert world[:, 2].min() + world[:, 2].max() == pytest.approx(0, abs=2e-3)
        assert np.abs(world).max() == pytest.approx(HALF_EXTENT, rel=2e-3)


def test_normalisation_turns_upright_and_scales_to_the_cube():
    generator = np.random.default_rng(0)
    up = np.array([0.3, 0.8, -0.52]) / np.linalg.norm([0.3, 0.8, -0.52])
    aside = np.cross(up, [1, 0, 0]) / np.linalg.norm(np.cross(up, [1, 0, 0]))
    points = generator.normal(size=(500, 3)) * [1, 2, 0.5] + [4, 5, 6]
    poses = []
    for angle in np.linspace(0, 5, 12):
        outward = np.cos(angle) * aside + np.sin(angle) * np.cross(up, aside) + 0.3 * up
        forward = -outward / np.linalg.norm(outward)
        right = np.cross(forward, up) / np.linalg.norm(np.cross(forward, up))
        pose = np.eye(4)
        pose[:3, :3] = [right, np.cross(forward, right), forward]
        pose[:3, 3] = -pose[:3, :3] @ (points.mean(axis=0) + 9 * outward)
        poses.append(pose)
    moved, scale = normalise(np.stack(poses), points)
    assert np.linalg.det(moved[:, :3, :3]) == pytest.approx(1)
    world = (poses[3][:3, :3] @ points.T + poses[3][:3, 3:]) * scale  # in the frame of camera 3
    world = moved[3, :3, :3].T @ (world - moved[3, :3, 3:])
    assert np.abs(world).max() == pytest.approx(HALF_EXTENT)
    np.testing.assert_allclose(world[:2].mean(axis=1), 0, atol=1e-9)
    assert world[2].min() + world[2].max() == pytest.approx(0, abs=1e-9)
    heads = -moved[:, 1, :3]
    assert (heads[:, 2] > 0.9).all(), "up is z"
    np.testing.assert_allclose(moved[:, 0, 2], 0, atol=1e-9)  # cameras are level


def test_a_sequence_in_two_splits_is_only_evaluated_on(import_raw, raw):
    path = raw / "hydrant/set_lists/set_lists_fewview_dev.json"
    lists = json.loads(path.read_text())
    lists["train"].append(["113_7_8", 0, "hydrant/x.jpg"])
    path.write_text(json.dumps(lists))
    store = import_raw(raw)
    assert splits(store)["113_7_8"] == "test"
    assert len(store.objects) == 4


@pytest.mark.parametrize("where", ["", "hydrant"])
def test_either_folder_may_be_named(import_raw, raw, where):
    assert len(import_raw(raw / where).objects) == 4


def spoil(entries, **changes):
    entry = next(e for e in entries if (e["sequence_name"], e["frame_number"]) == ("110_1_2", 1))
    for path, value in changes.items():
        *parents, last = path.split("__")
        inner = entry
        for parent in parents:
            inner = inner[parent]
        inner[last] = value


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"viewpoint__R": [[1, 0, 0]]}, r"viewpoint R is \[\[1, 0, 0\]\], not \(3, 3\) numbers"),
        ({"viewpoint__R": [[2, 0, 0], [0, 1, 0], [0, 0, 1]]}, "the pose is not a rotation"),
        ({"viewpoint__T": [0, None, 0]}, "viewpoint T is"),
        ({"viewpoint__focal_length": [1.0, float("nan")]}, "viewpoint focal_length is"),
        ({"viewpoint__focal_length": [-1.0, 1.0]}, "a focal length of"),
        ({"viewpoint__principal_point": [3.0, 0.0]}, "near or beyond the border"),
        ({"viewpoint__intrinsics_format": "pixels"}, "intrinsics_format 'pixels'"),
        ({"viewpoint": [1]}, "frame 1 is malformed: TypeError"),
        ({"image": {"size": [1, 1]}}, "frame 1 is malformed: KeyError: 'path'"),
        ({"image__path": "../../../etc/passwd"}, r"the path '../../../etc/passwd' leads out of"),
        ({"mask__path": "/etc/passwd"}, r"the path '/etc/passwd' leads out of"),
        ({"mask__path": 7}, "7 is not a path"),
        ({"image__path": "hydrant/gone.jpg"}, "hydrant/gone.jpg: there is no such file"),
        ({"depth__scale_adjustment": "1.x"}, "frame 1 is malformed: ValueError: could not convert"),
    ],
)
def test_malformed_annotations_are_named(import_raw, raw, monkeypatch, changes, reason):
    rewrite(raw / "hydrant/frame_annotations.jgz", lambda entries: spoil(entries, **changes))
    with pytest.raises(ImportFailedError, match=rf"110_1_2: .*{reason}"):
        import_raw(raw, depth=True)
    monkeypatch.setattr(Co3d, "max_skipped_share", 0.3)
    assert NAMES[0] not in splits(import_raw(raw, depth=True))


def test_a_sequence_without_point_cloud_cannot_be_normalised(import_raw, raw):
    rewrite(raw / "hydrant/sequence_annotations.jgz", lambda entries: entries[0].update(point_cloud=None))
    assert len(import_raw(raw).objects) == 4
    with pytest.raises(ImportFailedError, match=r"110_1_2: .*no point cloud"):
        import_raw(raw, normalised=True)


@pytest.mark.parametrize("content", ["{}", '{"train": [["a"]]}', '{"train": 3}', '{"train": [["a", 1e999, ""]]}', "[]"])
def test_a_set_list_that_is_none_is_refused(import_raw, raw, content):
    (raw / "hydrant/set_lists/set_lists_fewview_dev.json").write_text(content)
    with pytest.raises(ValueError, match=r"set_lists_fewview_dev.json: not lists|holds no object"):
        import_raw(raw)


def test_a_gzip_bomb_is_refused(import_raw, raw, monkeypatch):
    monkeypatch.setattr("jobs.data.importers.files.MAX_TEXT_BYTES", 2**20)
    with gzip.open(raw / "hydrant/frame_annotations.jgz", "wb") as stream:
        for _ in range(64):
            stream.write(b" " * 2**20)
    with pytest.raises(ValueError, match=r"frame_annotations.jgz: expands to more than"):
        import_raw(raw)


@pytest.mark.parametrize("kind", ["bits", "booleans", "palette", "sixteen bits", "cut out"])
def test_masks_mean_the_same_however_they_are_saved(import_raw, raw, kind):
    save = {
        "bytes": lambda mask: Image.fromarray(mask * np.uint8(255)),
        "bits": Image.fromarray,
        "booleans": lambda mask: Image.fromarray(mask.astype(np.uint8)),
        "palette": coloured,
        "sixteen bits": lambda mask: Image.fromarray(mask.astype(np.uint16) * 65535),
        "cut out": lambda mask: Image.fromarray(np.dstack([np.zeros_like(mask)] * 3 + [mask]).astype(np.uint8) * 255),
    }
    found = []
    for way in ("bytes", kind):
        for path in (raw / "hydrant").glob("*/masks/*.png"):
            save[way](np.asarray(Image.open(path)) > 127).save(path)
        store = import_raw(raw)
        found.append(np.array(store.mask))
        shutil.rmtree(store.path)
    assert found[0].any()
    np.testing.assert_array_equal(found[1], found[0])


def coloured(mask):
    """A mask in black and dark red, as annotation tools save it."""
    picture = Image.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 128, 0, 0])
    return picture


def test_normalisation_is_the_published_one():
    """Cameras on a circle around a cloud with most points low: the centre of its extent becomes the origin."""
    cloud = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 5.0]])
    poses = []
    for angle in np.linspace(0.3, 2.0, 6):  # not all around, so the x axes have a mean
        forward = -np.array([np.cos(angle), np.sin(angle), 0.0])
        right = np.cross(forward, [0, 0, 1.0])
        pose = np.eye(4)
        pose[:3, :3] = [right, np.cross(forward, right), forward]
        pose[:3, 3] = -pose[:3, :3] @ (-9 * forward)
        poses.append(pose)
    moved, scale = normalise(np.stack(poses), cloud)
    assert scale == pytest.approx(HALF_EXTENT / 2.5)
    centres = -np.einsum("nji,nj->ni", moved[:, :3, :3], moved[:, :3, 3])
    np.testing.assert_allclose(centres[:, 2], -2.5 * scale, atol=1e-9)  # cameras stand at the cloud's lower end
    np.testing.assert_allclose(np.linalg.norm(centres[:, :2], axis=1), 9 * scale)
    np.testing.assert_allclose(moved[:, 0, 2], 0, atol=1e-9)  # and are level


def test_raw_sequences_normalised_otherwise_before_are_imported_anew(tmp_path):
    """Stores at the paths of the previous version are used only where the import is unchanged."""
    assert store_path("co3d", {}, tmp_path).name == "co3d-5895ee05"
    assert store_path("co3d", {"layout": "preprocessed", "normalised": True}, tmp_path).name == "co3d-835b0b19"
    assert store_path("co3d", {"normalised": True}, tmp_path).name != "co3d-171b370d"


def test_frames_without_foreground_keep_their_place_and_are_no_fault(import_raw, raw):
    """The published evaluation counts them as frames, and does not evaluate them."""
    mask = raw / "hydrant/112_5_6/masks/frame000002.png"
    Image.fromarray(np.zeros((300, 240), np.uint8)).save(mask)
    store = import_raw(raw)
    row = store.objects.set_index("object").loc["112_5_6"]
    assert row["num_frames"] == 3
    assert not store.images[row["first_frame"] + 1].any()
    problems = [problem for problem in check(store) if "input views" not in problem and "source frame" not in problem]
    assert problems == []
    remarks = [remark.text for remark in store.manifest.remarks if remark.object == "112_5_6"]
    assert remarks[0].startswith("1 of 3 pictures show nothing (first frame 1)")


def test_a_mask_without_mass_is_empty(import_raw, raw):
    def without_mass(entries):
        for entry in entries:
            if (entry["sequence_name"], entry["frame_number"]) == ("112_5_6", 1):
                entry["mask"]["mass"] = 0.5

    rewrite(raw / "hydrant/frame_annotations.jgz", without_mass)
    store = import_raw(raw)
    first = int(store.objects.set_index("object").loc["112_5_6"]["first_frame"])
    assert [bool(mask.any()) for mask in store.mask[first : first + 3]] == [True, False, True]


@pytest.mark.parametrize("name", NAMES)
def test_a_point_is_where_the_raw_cameras_see_it_by_the_published_steps(import_raw, raw, assert_seen, name):
    store = import_raw(raw, resampling="published")
    assert store.manifest.options["resampling"] == "published"
    assert_seen(store, name)
    assert (store.images.max(axis=1) <= store.mask.astype(int) + 1).all()
