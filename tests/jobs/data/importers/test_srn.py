import shutil

import numpy as np
import pytest
from PIL import Image

from jobs.data.importers.base import ImportFailedError
from jobs.data.importers.srn import Srn
from jobs.data.prepare import prepare
from jobs.data.sampling import evaluation_frames
from jobs.data.store import Store


@pytest.fixture
def layout(layouts):
    return layouts["srn_cars"]


@pytest.fixture
def source(layout, tmp_path):
    layout.write(tmp_path / "srn_cars")
    return tmp_path / "srn_cars"


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_a_point_is_where_the_cameras_see_it(layout, source, tmp_path, assert_seen, name):
    assert_seen(layout.prepare(source, tmp_path), name)


def test_splits_bounds_and_intrinsics(layout, source, tmp_path):
    store = layout.prepare(source, tmp_path)
    assert dict(zip(store.objects["object"], store.objects["split"], strict=True)) == {
        "a": "train",
        "b": "train",
        "c": "val",
        "d": "test",
    }
    assert set(store.objects["category"]) == {"car"}
    assert (store.manifest.near, store.manifest.far) == (0.8, 1.8)
    assert store.manifest.background == (1.0, 1.0, 1.0)
    np.testing.assert_allclose(store.focal, 131.25 / 4)  # pictures have 32 px, the intrinsics say 128
    np.testing.assert_allclose(store.principal, 16)
    degrees = 2 * np.degrees(np.arctan(16 / store.focal[0, 0]))
    assert degrees == pytest.approx(51.98949, abs=1e-4)


def test_transparency_is_laid_over_the_background(layout, source, tmp_path):
    store = layout.prepare(source, tmp_path)
    row = store.objects.set_index("object").loc["b"]
    with Image.open(source / "cars_train/b/rgb/000001.png") as picture:
        assert picture.mode == "RGBA"
        colours, alpha = np.split(np.asarray(picture) / 255.0, [3], axis=2)
    expected = np.rint(255 * (colours * alpha + 1 - alpha)).astype(np.uint8)
    np.testing.assert_array_equal(store.images[row["first_frame"] + 1], expected.transpose(2, 0, 1))


@pytest.mark.parametrize("nested", [False, True])
def test_chairs_in_either_layout(source, tmp_path, assert_seen, nested):
    chairs = tmp_path / "srn_chairs"
    chairs.mkdir()
    for split in ("train", "test"):
        inner = chairs / f"chairs_{split}" / f"chairs_2.0_{split}" if nested else chairs / f"chairs_{split}"
        inner.parent.mkdir(exist_ok=True)
        (source / f"cars_{split}").rename(inner)
    store = Store.open(prepare("srn_chairs", {}, tmp_path, workers=1, source=chairs))
    assert store.manifest.counts == {"train": 2, "val": 0, "test": 1}
    assert (store.manifest.near, store.manifest.far) == (1.25, 2.75)
    assert_seen(store, "a")


def test_evaluation_starts_from_the_published_views(layout, tmp_path, source):
    folder = source / "cars_test" / "d"
    for view in range(3, 130):
        for part, suffix in (("rgb", "png"), ("pose", "txt")):
            (folder / part / f"{view:06d}.{suffix}").hardlink_to(folder / part / f"000001.{suffix}")
    store = layout.prepare(source, tmp_path)
    (row,) = store.split("test").itertuples()
    assert (evaluation_frames(row, store.manifest.evaluation) - row.first_frame).tolist()[:3] == [64, 0, 1]
    assert (evaluation_frames(row, store.manifest.evaluation, 2) - row.first_frame).tolist()[:3] == [64, 128, 0]


def damage_pose(folder):
    (folder / "pose" / "000001.txt").unlink()


def damage_pairs(folder):
    (folder / "rgb" / "000000.png").unlink()
    (folder / "pose" / "000002.txt").unlink()


def damage_pictures(folder):
    for part in ("rgb", "pose"):
        shutil.rmtree(folder / part)


def damage_intrinsics(folder):
    (folder / "intrinsics.txt").unlink()


def damage_numbers(folder):
    (folder / "pose" / "000001.txt").write_text(" ".join(["0.5"] * 15))


def damage_rotation(folder):
    (folder / "pose" / "000001.txt").write_text("1.1 0 0 0  0 1 0 0  0 0 1 0  0 0 0 1")


def damage_nan(folder):
    (folder / "pose" / "000001.txt").write_text("nan " * 16)


def damage_shape(folder):
    Image.new("RGB", (32, 30)).save(folder / "rgb" / "000001.png")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_pose, r"cars_train/b: only one of rgb/000001.png and pose/000001.txt is there"),
        (damage_pairs, r"cars_train/b: only one of rgb/000000.png and pose/000000.txt is there"),
        (damage_pictures, r"cars_train/b/rgb: no pictures"),
        (damage_intrinsics, r"b/intrinsics.txt: there is no such file"),
        (damage_numbers, r"b/pose/000001.txt: 15 numbers, not 16"),
        (damage_rotation, r"b/pose/000001.txt: the pose is not a rotation and a translation"),
        (damage_nan, r"b/pose/000001.txt: a number is not finite"),
        (damage_shape, r"b/rgb/000001.png: 32 x 30 pixels, not a square"),
    ],
)
def test_a_damaged_object_is_left_out_with_its_reason(layout, source, tmp_path, monkeypatch, damage, reason):
    damage(source / "cars_train" / "b")
    with pytest.raises(ImportFailedError, match=reason):
        layout.prepare(source, tmp_path)
    monkeypatch.setattr(Srn, "max_skipped_share", 0.3)
    store = layout.prepare(source, tmp_path)
    assert list(store.objects["object"]) == ["a", "c", "d"]
    assert [entry.object for entry in store.manifest.skipped] == ["b"]
