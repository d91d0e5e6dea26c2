import numpy as np
import pytest

from jobs.data.importers.base import ImportFailedError
from jobs.data.importers.nmr import Nmr
from jobs.data.prepare import prepare
from jobs.data.sampling import evaluation_frames


@pytest.fixture
def layout(layouts):
    return layouts["nmr"]


@pytest.fixture
def source(layout, tmp_path):
    layout.write(tmp_path / "nmr")
    return tmp_path / "nmr"


@pytest.mark.parametrize("name", ["02958343_029a1", "03001627_030d4"])
def test_a_point_is_where_the_cameras_see_it(layout, source, tmp_path, assert_seen, name):
    assert_seen(layout.prepare(source, tmp_path), name)


def test_splits_categories_and_facts(layout, source, tmp_path):
    store = layout.prepare(source, tmp_path)
    assert store.manifest.counts == {"train": 4, "val": 2, "test": 2}
    assert set(store.objects["category"]) == {"car", "chair"}, "a synset without lists is no part of it"
    assert store.objects["object"].tolist()[:2] == ["02958343_029a1", "02958343_029b2"]
    assert (store.manifest.near, store.manifest.far, store.resolution) == (1.2, 4.0, 64)
    assert 2 * np.degrees(np.arctan(32 / store.focal[0, 0])) == pytest.approx(30, abs=1e-4)
    up = -store.world_to_camera[:, 1, :3].mean(axis=0)
    assert up.argmax() == 2, "the world is z-up"


def test_test_objects_are_seen_from_the_listed_view(layout, source, tmp_path):
    store = layout.prepare(source, tmp_path)
    sources = {}
    for row in store.objects.itertuples():
        sources[row.object] = evaluation_frames(row, store.manifest.evaluation)[0] - row.first_frame
    assert (sources["02958343_029d4"], sources["03001627_030d4"]) == (2, 1)
    assert (sources["02958343_029c3"], sources["03001627_030c3"]) == (0, 0)
    assert store.manifest.files["source_views"][0].content.startswith("02958343 029d4 2")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("02958343 029d4 2\n", r"views.txt: no view of 1 test objects, first '03001627_030d4'"),
        ("02958343 029d4\n", r"views.txt: '02958343 029d4' is not `synset object view`"),
        ("02958343 029d4 -1\n", r"views.txt: '02958343 029d4 -1' is not"),
    ],
)
def test_a_list_of_views_that_does_not_fit_is_refused(layout, source, tmp_path, lines, reason):
    (source / "views.txt").write_text(lines)
    with pytest.raises(ValueError, match=reason):
        layout.prepare(source, tmp_path)


def test_the_list_of_views_may_be_left_out(source, tmp_path):
    prepare("nmr", {}, tmp_path, workers=1, source=source)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"world_mat_1": None, "world_mat_inv_1": None}, r"cameras.npz: world_mat_1 and world_mat_inv_1: missing"),
        ({"world_mat_inv_1": np.zeros((2, 4))}, r"world_mat_inv_1: \(2, 4\), not 3x4 or 4x4"),
        ({"world_mat_inv_2": np.full((4, 4), np.nan)}, r"world_mat_inv_2 is not finite"),
        ({"camera_mat_0": None}, r"camera_mat_0 is missing"),
        ({"camera_mat_0": np.array([[3.7, 0, 0.1], [0, 3.7, 0], [0, 0, 1]])}, r"camera_mat_0 is not a centred"),
        ({"camera_mat_0": np.array([{}])}, r"cameras.npz: camera_mat_0.npy is not"),
    ],
)
def test_damaged_cameras_are_named(layout, source, tmp_path, monkeypatch, change, reason):
    path = source / "03001627" / "030b2" / "cameras.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{name: value for name, value in (arrays | change).items() if value is not None})
    with pytest.raises(ImportFailedError, match=reason):
        layout.prepare(source, tmp_path)
    monkeypatch.setattr(Nmr, "max_skipped_share", 0.2)
    assert [entry.object for entry in layout.prepare(source, tmp_path).manifest.skipped] == ["03001627_030b2"]


def test_a_missing_view_is_named(layout, source, tmp_path):
    (source / "03001627" / "030b2" / "image" / "0001.png").unlink()
    with pytest.raises(ImportFailedError, match=r"030b2/image: 2 pictures, not numbered from 0000 on"):
        layout.prepare(source, tmp_path)


def test_a_listed_object_outside_the_folder_is_refused(layout, source, tmp_path):
    (source / "03001627" / "softras_train.lst").write_text("../../etc\n")
    with pytest.raises(ValueError, match=r"softras_train.lst: the path '../../etc' leads out of"):
        layout.prepare(source, tmp_path)
