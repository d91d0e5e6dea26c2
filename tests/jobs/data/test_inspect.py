from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.data.inspect import check
from jobs.data.prepare import prepare
from jobs.data.store import Store

OPTIONS = {"train": 2, "val": 1, "test": 1, "views": 4, "image_size": 32, "supersampling": 1}


@pytest.fixture
def path(tmp_path) -> Path:
    return prepare("chairs", OPTIONS, tmp_path, workers=1)


def problems_after(path: Path, name: str, change) -> list[str]:
    """The problems that `check` finds after `change` altered an array, without the checksum's, which is first."""
    array = np.load(path / f"{name}.npy")
    change(array)
    np.save(path / f"{name}.npy", array)
    problems = check(Store.open(path))
    assert "checksum" in problems[0]
    return problems[1:]


def test_a_good_store_has_no_problems(path):
    assert check(Store.open(path)) == []


def test_depth_of_another_scale_is_found(path):
    def stretch(depth):
        depth[8:12] *= 1.3

    found = problems_after(path, "depth", stretch)
    assert found == ["object 'chair_00002': frames 0 and 1 disagree on where its surface is"]


def test_a_geometry_in_two_splits_is_found(path):
    objects = pd.read_parquet(path / "objects.parquet")
    objects.loc[3, "geometry"] = "chair_00000"
    objects.to_parquet(path / "objects.parquet", index=False)
    problems = check(Store.open(path))
    assert problems[1:] == ["geometry 'chair_00000' is in the splits test, train: chair_00000, chair_00003"]


def test_a_stretched_or_mirrored_camera_is_found(path):
    def stretch(cameras):
        cameras[5, :3, :3] *= 1.01

    def mirror(cameras):
        cameras[5, :3, :3] = cameras[6, :3, :3] * [[-1], [1], [1]]

    for change in (stretch, mirror):
        assert (
            "object 'chair_00001': the camera of frame 1 is not" in problems_after(path, "world_to_camera", change)[0]
        )


def test_cameras_in_other_axes_are_found(path):
    def to_opengl(cameras):  # x right, y up, z backward: a rigid motion, but not ours
        cameras[4:8] = np.diag([1, -1, -1, 1]) @ cameras[4:8]

    def transpose(cameras):
        cameras[4:8, :3, :3] = cameras[4:8, :3, :3].transpose(0, 2, 1)

    original = np.load(path / "world_to_camera.npy")
    for change in (to_opengl, transpose):
        np.save(path / "world_to_camera.npy", original)
        found = problems_after(path, "world_to_camera", change)
        assert found
        assert all(problem.startswith("object 'chair_00001'") for problem in found)


def test_intrinsics_of_another_size_are_found(path):
    def halve(principal):
        principal[4:8] /= 2

    assert problems_after(path, "principal", halve)[0].startswith("object 'chair_00001'")


def test_an_empty_picture_is_found(path):
    def blank(images):
        images[2] = 255

    assert problems_after(path, "images", blank) == ["object 'chair_00000': the image of frame 2 is empty"]


def test_an_empty_mask_is_found(path):
    def blank(masks):
        masks[0] = 0

    assert problems_after(path, "mask", blank) == ["object 'chair_00000': the mask of frame 0 is empty"]


def test_a_scale_that_does_not_fit_the_bounds_is_found(path):
    def enlarge(cameras):
        cameras[4:8, :3, 3] *= 3

    (found, *_) = problems_after(path, "world_to_camera", enlarge)
    assert found.startswith("object 'chair_00001': frame 0 has it at a depth of 5.")
    assert found.endswith("which is not within 1.25 and 2.75")


@pytest.mark.parametrize(("name", "value"), [("focal", 0), ("focal", np.nan), ("principal", 33), ("principal", -1)])
def test_impossible_intrinsics_are_found(path, name, value):
    def spoil(array):
        array[6, 0] = value

    expected = "object 'chair_00001': frame 2 has a focal length or principal point that cannot be"
    assert problems_after(path, name, spoil) == [expected]


def test_wrong_cameras_are_found_without_masks_too(path):
    for name in ("mask", "depth"):
        (path / f"{name}.npy").unlink()
    unmasked = check(Store.open(path))
    assert len(unmasked) == 1, "only the checksum"

    def to_opengl(cameras):
        cameras[4:8] = np.diag([1, -1, -1, 1]) @ cameras[4:8]

    found = problems_after(path, "world_to_camera", to_opengl)
    assert found
    assert all(problem.startswith("object 'chair_00001'") for problem in found)


def test_objects_that_the_protocol_does_not_fit_are_found(path):
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"source_frame": 0', '"source_frame": 4'))
    problems = check(Store.open(path))
    assert [problem.split(":")[0] for problem in problems[1:]] == ["object 'chair_00002'", "object 'chair_00003'"]
    assert "source frame 4" in problems[1]
