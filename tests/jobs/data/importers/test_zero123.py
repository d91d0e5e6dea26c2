"""Objaverse and Google Scanned Objects, whose renders have the same format."""

import json

import numpy as np
import pytest
from PIL import Image

from jobs.data.importers.base import Importer, ImportFailedError
from jobs.data.inspect import check
from jobs.data.prepare import prepare, store_path
from jobs.data.sampling import evaluation_frames
from jobs.data.store import Store


@pytest.fixture
def objaverse(layouts, tmp_path):
    layouts["objaverse"].write(tmp_path / "views")
    return tmp_path / "views"


@pytest.fixture
def gso(layouts, tmp_path):
    layouts["gso"].write(tmp_path / "scans")
    return tmp_path / "scans"


@pytest.mark.parametrize("name", ["objaverse", "gso"])
@pytest.mark.parametrize("size", [128, 96])
def test_a_point_is_where_the_cameras_see_it(layouts, request, tmp_path, assert_seen, name, size):
    """The scene is scaled so that the source camera, whichever it is, is at distance 2 from the origin."""
    store = layouts[name].prepare(request.getfixturevalue(name), tmp_path, image_size=size)
    assert_seen(store, store.objects["object"][0], source_distance=2.0)


def test_objaverse_is_split_by_its_list(layouts, objaverse, tmp_path):
    store = layouts["objaverse"].prepare(objaverse, tmp_path)
    assert store.objects["object"].tolist() == ["9f0b", "1c2d", "77aa"], "in the list's order; none that is not in it"
    assert store.objects["split"].tolist() == ["train", "train", "val"]
    assert (store.manifest.near, store.manifest.far, store.manifest.source_distance) == (0.8, 3.2, 2.0)
    assert 2 * np.degrees(np.arctan(64 / store.focal[0, 0])) == pytest.approx(49.13434, abs=1e-4)
    assert check(store) == []


def test_gso_is_for_testing_only_and_names_may_be_any(layouts, gso, tmp_path):
    store = layouts["gso"].prepare(gso, tmp_path)
    assert store.manifest.counts == {"train": 0, "val": 0, "test": 2}
    assert store.objects["object"].tolist() == ["Big_Dot", "Schäferhund_青い"]
    (row, _) = store.objects.itertuples()
    assert evaluation_frames(row, store.manifest.evaluation)[0] == row.first_frame
    assert check(store) == []


def test_pictures_are_shrunk_then_put_on_white(layouts, objaverse, tmp_path):
    half = np.zeros((256, 256, 4), np.uint8)
    half[..., :3], half[:, 101:, 3] = (40, 80, 120), 255  # the edge is within a pixel of the small picture
    half[:, :101, :3] = 0  # black where it is transparent
    Image.fromarray(half).save(objaverse / "9f0b" / "001.png")
    store = layouts["objaverse"].prepare(objaverse, tmp_path)
    np.testing.assert_array_equal(store.images[1, :, 7, 49:52].T, [[255, 255, 255], [147, 167, 187], [40, 80, 120]])
    assert store.mask[1, 7, 49:52].tolist() == [0, 128, 255]


def test_pictures_may_be_shrunk_as_the_published_loader_does(layouts, objaverse, tmp_path):
    direct = layouts["objaverse"].prepare(objaverse, tmp_path)
    published = layouts["objaverse"].prepare(objaverse, tmp_path, resampling="published")
    assert published.manifest.options["resampling"] == "published"
    with Image.open(objaverse / "9f0b" / "000.png") as picture:
        small = np.asarray(picture.resize((128, 128), Image.Resampling.LANCZOS)) / 255.0
    expected = 255 * (small[..., :3] * small[..., 3:] + 1 - small[..., 3:])
    np.testing.assert_allclose(published.images[0], expected.transpose(2, 0, 1), atol=0.501)
    assert (direct.images[0] != published.images[0]).any()


def test_stores_made_before_there_was_a_choice_of_resampling_are_found(tmp_path):
    """Stores at the path of the previous version, which had only the option `image_size`."""
    assert store_path("objaverse", {}, tmp_path).name == "objaverse-3b4433c1"
    assert store_path("objaverse", {"resampling": "direct"}, tmp_path).name == "objaverse-3b4433c1"
    assert store_path("objaverse", {"resampling": "published"}, tmp_path).name != "objaverse-3b4433c1"


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_transparency_of_any_kind_cuts_out(layouts, objaverse, tmp_path, mode):
    path = objaverse / "9f0b" / "000.png"
    shape = np.zeros((256, 256), np.uint8)
    shape[100:156, 100:156] = 255
    if mode == "LA":
        Image.fromarray(np.dstack([shape // 2, shape]), "LA").save(path)
    else:
        picture = Image.fromarray(shape // 255, "P")
        picture.putpalette([0, 255, 0, 127, 127, 127])
        picture.save(path, transparency=0)
    store = layouts["objaverse"].prepare(objaverse, tmp_path)
    assert store.images[0, :, 64, 64].tolist() == [127, 127, 127]
    assert store.images[0, :, 5, 5].tolist() == [255, 255, 255]
    assert store.mask[0, [5, 64], [5, 64]].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "001.png").unlink(), "1c2d: 001.png missing beside 2 pictures"),
        (lambda folder: (folder / "002.npy").unlink(), "1c2d: 002.npy missing beside 3 pictures"),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "1c2d: no pictures"),
        (lambda folder: np.save(folder / "000.npy", np.zeros((4, 4))), r"000.npy: the array is float64 \(4, 4\)"),
        (lambda folder: np.save(folder / "000.npy", np.eye(3, 4)), "000.npy: the camera is at the origin"),
        (lambda folder: np.save(folder / "000.npy", np.full((3, 4), np.inf)), "000.npy: .* not finite"),
        (lambda folder: np.save(folder / "000.npy", np.array([{}] * 3)), "000.npy: damaged, .*Python objects"),
        (lambda folder: Image.new("RGB", (256, 256)).save(folder / "002.png"), "002.png: pixels of RGB without alpha"),
        (
            lambda folder: Image.new("RGBA", (256, 200)).save(folder / "002.png"),
            "002.png: 256 x 200 .* square",
        ),
        (lambda folder: Image.new("RGBA", (64, 64)).save(folder / "002.png"), "002.png: 64 x 64 .* 128 px at least"),
    ],
)
def test_a_broken_object_is_left_out_with_its_reason(layouts, objaverse, tmp_path, monkeypatch, damage, reason):
    damage(objaverse / "1c2d")
    with pytest.raises(ImportFailedError, match=reason):
        layouts["objaverse"].prepare(objaverse, tmp_path)
    monkeypatch.setattr(Importer, "max_skipped_share", 0.4)
    store = layouts["objaverse"].prepare(objaverse, tmp_path)
    assert store.objects["object"].tolist() == ["9f0b", "77aa"], "and no other takes its place"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"a": 1}', "not a JSON list of uids"),
        ("[1, 2]", "not a JSON list of uids"),
        ('["../1c2d"]', r"the path '../1c2d' leads out of"),
        ('["/etc"]', r"the path '/etc' leads out of"),
        ("[" * 100_000, r"damaged, or no .json file \(RecursionError"),
    ],
)
def test_a_list_that_is_none_is_refused(layouts, objaverse, tmp_path, content, reason):
    (objaverse / "lvis-annotations-filtered.json").write_text(content)
    with pytest.raises(ValueError, match=rf"lvis-annotations-filtered.json: {reason}"):
        layouts["objaverse"].prepare(objaverse, tmp_path)


def test_another_list_may_be_named(objaverse, tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps(["77aa", "unlisted"]))
    store = Store.open(prepare("objaverse", {}, tmp_path, workers=1, source=objaverse, files={"objects": [mine]}))
    assert store.objects["object"].tolist() == ["77aa", "unlisted"]
