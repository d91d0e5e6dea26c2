import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from jobs.data.store import FORMAT_VERSION, Frames, Store, StoreError, relative_to_first
from jobs.data.writer import StoreWriter

SIZE = 16
FACTS = {
    "importer": "test",
    "options": {"views": 3},
    "source": "made here",
    "licence": "none",
    "near": 0.5,
    "far": 4.0,
    "background": (1.0, 0.5, 0.0),
    "evaluation": {"source_frame": 0},
}


def rigid(generator: np.random.Generator) -> np.ndarray:
    """A random rigid motion (4, 4) that keeps points near the origin in front of the camera."""
    rotation, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    rotation *= np.linalg.det(rotation)
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = rotation, [0.1, -0.2, 3.0]
    return motion


def make_frames(seed: int, count: int = 3) -> Frames:
    generator = np.random.default_rng(seed)
    depth = generator.uniform(1, 3, (count, SIZE, SIZE)).astype(np.float32)
    depth[generator.uniform(size=depth.shape) < 0.4] = 0
    return Frames(
        images=generator.integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8),
        world_to_camera=np.stack([rigid(generator) for _ in range(count)]),
        focal=generator.uniform(15, 20, (count, 2)),
        principal=generator.uniform(7, 9, (count, 2)),
        mask=((depth > 0) * 255).astype(np.uint8),
        depth=depth,
    )


def write(path, capacity=9, **changes):
    with StoreWriter(path, capacity, "this") as writer:
        for seed, split in enumerate(("train", "train", "test")):
            writer.append(make_frames(seed), name=f"o{seed}", split=split, category="c", geometry=f"g{seed}")
        writer.finish(**(FACTS | changes))
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "store")


@pytest.fixture
def store(path) -> Store:
    return Store.open(path)


def project(camera: np.ndarray, focal: np.ndarray, principal: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Pixel coordinates of a world point."""
    seen = camera[:3, :3] @ point + camera[:3, 3]
    return seen[:2] / seen[2] * focal + principal


def test_what_was_written_is_read(store):
    for seed in range(3):
        written, here = make_frames(seed), slice(3 * seed, 3 * seed + 3)
        for name, array in written.arrays().items():
            np.testing.assert_allclose(getattr(store, name)[here], array, rtol=1e-6)
    assert list(store.objects["first_frame"]) == [0, 3, 6]
    assert store.manifest.counts == {"train": 2, "val": 0, "test": 1}
    assert store.manifest.options == {"views": 3}
    assert store.resolution == SIZE


def test_arrays_are_mapped_not_loaded(store):
    assert isinstance(store.images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.images[0] = 0


def test_mask_and_depth_are_optional(tmp_path):
    with StoreWriter(tmp_path / "plain", 3, "this") as writer:
        frames = replace(make_frames(0), mask=None, depth=None)
        writer.append(frames, name="o", split="train", category="c", geometry="g")
        writer.finish(**FACTS)
    store = Store.open(tmp_path / "plain")
    assert store.mask is None
    assert store.views(np.array([[0]]), SIZE).depth is None


def test_the_fingerprint_follows_everything_a_trial_sees(tmp_path, store):
    assert Store.open(write(tmp_path / "again")).fingerprint == store.fingerprint
    same = write(tmp_path / "renamed", licence="another", options={})
    assert Store.open(same).fingerprint == store.fingerprint
    file = {"name": "a.txt", "sha256": "1" * 64, "content": "o7"}
    for change in (
        {"near": 0.6},
        {"background": (0.0, 0.0, 0.0)},
        {"evaluation": {"source_frame": 1}},
        {"bounds_from_origin": True},
        {"source_distance": 2.0},
        {"files": {"exclude": [file]}},
    ):
        changed = write(tmp_path / f"changed {next(iter(change))}", **change)
        assert Store.open(changed).fingerprint != store.fingerprint


def test_a_recipe_identifies_the_arrays_in_place_of_their_content(tmp_path, store):
    made = Store.open(write(tmp_path / "made", recipe={"revision": 1}))
    assert made.checksum == store.checksum
    assert made.compute_checksum() == made.checksum
    assert made.fingerprint not in {store.fingerprint, made.checksum}
    for name, change in {"revision": {"recipe": {"revision": 2}}, "near": {"near": 0.6}}.items():
        changed = Store.open(write(tmp_path / name, **({"recipe": {"revision": 1}} | change)))
        assert changed.fingerprint != made.fingerprint


def test_one_altered_byte_changes_the_checksum(path, store):
    assert store.compute_checksum() == store.checksum == store.fingerprint
    images = np.load(path / "images.npy", mmap_mode="r+")
    images[5, 1, 3, 2] ^= 1
    images.flush()
    assert Store.open(path).compute_checksum() != store.checksum


def test_errors_name_the_problem(path, tmp_path):
    with pytest.raises(StoreError, match="has no manifest"):
        Store.open(tmp_path / "nowhere")
    manifest = path / "manifest.json"
    values = json.loads(manifest.read_text())
    cases = [
        ("{", "damaged"),
        ("[]", "damaged"),
        ("[" * 100_000, "damaged"),
        (json.dumps(values | {"format_version": FORMAT_VERSION + 1}), "format version"),
        (json.dumps({k: v for k, v in values.items() if k != "format_version"}), "lacks 'format_version'"),
        (json.dumps(values | {"near": "close"}), "near"),
        (json.dumps({k: v for k, v in values.items() if k != "fingerprint"}), "fingerprint"),
    ]
    for text, message in cases:
        manifest.write_text(text)
        with pytest.raises(StoreError, match=message):
            Store.open(path)


@pytest.mark.parametrize("name", ["images.npy", "focal.npy", "objects.parquet"])
def test_a_missing_or_truncated_file_is_named(path, name):
    file = path / name
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match=name):
        Store.open(path)
    file.unlink()
    with pytest.raises(StoreError, match=name):
        Store.open(path)


def test_an_array_with_a_damaged_header_is_named(path):
    file = path / "focal.npy"
    file.write_bytes(file.read_bytes().replace(b"{'descr'", b"({'desc", 1))
    with pytest.raises(StoreError, match=r"focal\.npy is missing or damaged"):
        Store.open(path)


def test_arrays_of_unequal_length_are_refused(path):
    np.save(path / "focal.npy", np.load(path / "focal.npy")[:-1])
    with pytest.raises(StoreError, match=r"focal.npy is .*: it holds \(8, 2\) of float32, not \(9, 2\)"):
        Store.open(path)


def test_arrays_of_another_shape_are_refused(path):
    np.save(path / "depth.npy", np.load(path / "depth.npy")[:, :8])
    with pytest.raises(StoreError, match=r"depth.npy is .*: it holds \(9, 8, 16\) of float32, not \(9, 16, 16\)"):
        Store.open(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("images", lambda array: array / np.float32(255)),
        ("images", lambda array: array[0, 0, 0, 0]),
        ("images", lambda array: array.astype("S1")),
        ("mask", lambda array: array.astype(bool)),
        ("depth", lambda array: array.astype(">f4")),
        ("world_to_camera", lambda array: array.astype(np.float64)),
        ("focal", lambda array: array.astype(np.int64)),
    ],
)
def test_arrays_of_another_type_are_refused(path, name, change):
    np.save(path / f"{name}.npy", change(np.load(path / f"{name}.npy")))
    reason = rf"{name}\.npy is missing or damaged: it holds .*; delete {path} and prepare it again"
    with pytest.raises(StoreError, match=reason):
        Store.open(path)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("first_frame", 1, "frames that follow one another"),
        ("num_frames", -3, "frames that follow one another"),
        ("num_frames", 2.5, r"2\.5 in its column num_frames, not int"),
        ("split", "train-a", "its splits include train-a; allowed: train, val, test"),
        ("object", 7, "7 in its column object, not str"),
    ],
)
def test_a_table_of_objects_that_cannot_be_is_refused(path, column, value, reason):
    objects = pd.read_parquet(path / "objects.parquet")
    objects[column] = [value] * len(objects)
    objects.to_parquet(path / "objects.parquet", index=False)
    with pytest.raises(StoreError, match=rf"objects\.parquet is missing or damaged: .*{reason}"):
        Store.open(path)


def test_views_have_shapes_ranges_and_facts(store):
    views = store.views(np.array([[0, 2], [7, 6]]), SIZE)
    assert views.images.shape == (2, 2, 3, SIZE, SIZE)
    assert views.images.dtype == torch.float32
    np.testing.assert_allclose(views.images[1, 0].numpy(), store.images[7] / 255.0, rtol=1e-6)
    assert views.depth.shape == (2, 2, 1, SIZE, SIZE)
    assert views.near.tolist() == [0.5, 0.5]
    assert views.far.tolist() == [4.0, 4.0]
    assert views.background.tolist() == [[1.0, 0.5, 0.0]] * 2
    assert views.frames.tolist() == [[0, 2], [7, 6]]
    assert (views.cameras.height, views.cameras.width) == (SIZE, SIZE)


def test_the_first_camera_becomes_the_identity(store):
    frames = np.array([[4, 3, 5], [8, 6, 7]])
    relative = store.views(frames, SIZE).cameras.world_to_camera.numpy()
    np.testing.assert_array_equal(relative[:, 0], np.stack([np.eye(4, dtype=np.float32)] * 2))
    # A point seen from view i through the frame of view 0 is where the store's own cameras put it.
    point = np.array([0.2, -0.1, 0.3, 1.0])
    for row, views in zip(frames, relative, strict=True):
        in_first = store.world_to_camera[row[0]] @ point
        for frame, camera in zip(row, views, strict=True):
            np.testing.assert_allclose(camera @ in_first, store.world_to_camera[frame] @ point, atol=1e-5)


def test_relative_to_first_is_composition_with_the_inverse():
    generator = np.random.default_rng(0)
    cameras = np.stack([rigid(generator) for _ in range(4)])[None]
    relative = relative_to_first(cameras)
    np.testing.assert_allclose(relative[0, 2] @ cameras[0, 0], cameras[0, 2], atol=1e-6)


@pytest.mark.parametrize("resolution", [8, 4])
def test_smaller_images_are_block_means(store, resolution):
    factor = SIZE // resolution
    views = store.views(np.array([[0, 1]]), resolution)
    for view in range(2):
        for row, column in ((0, 0), (1, 2), (resolution - 1, resolution - 1)):
            block = np.s_[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            mean = store.images[view][:, *block].reshape(3, -1).mean(axis=1) / 255
            np.testing.assert_allclose(views.images[0, view, :, row, column].numpy(), mean, rtol=1e-6)
            depth = store.depth[view][block]
            surface = depth[depth > 0]
            expected = surface.mean() if len(surface) else 0.0
            assert views.depth[0, view, 0, row, column].item() == pytest.approx(expected, rel=1e-6)


def test_smaller_cameras_see_points_at_the_scaled_place(store):
    frames, point = np.array([[3, 4]]), np.array([0.3, 0.2, 2.5])
    full, small = (store.views(frames, size).cameras for size in (SIZE, 4))
    for view in range(2):
        places = [
            project(*(t[0, view].numpy() for t in (c.world_to_camera, c.focal, c.principal)), point)
            for c in (full, small)
        ]
        np.testing.assert_allclose(places[1] * 4, places[0], rtol=1e-5)


@pytest.mark.parametrize("resolution", [12, 7, 1])
def test_sizes_that_do_not_divide_are_means_by_area(store, resolution):
    views, ratio = store.views(np.array([[4]]), resolution), SIZE / resolution
    # Every pixel is cut into so many pieces that each lies in one small pixel.
    fine = np.repeat(np.repeat(store.images[4], resolution, axis=1), resolution, axis=2) / 255.0
    cells = fine.reshape(3, resolution, SIZE, resolution, SIZE)
    np.testing.assert_allclose(views.images[0, 0].numpy(), cells.mean(axis=(2, 4)), rtol=1e-6)
    depth = np.repeat(np.repeat(store.depth[4], resolution, axis=0), resolution, axis=1).astype(np.float64)
    blocks = depth.reshape(resolution, SIZE, resolution, SIZE)
    expected = blocks.sum(axis=(1, 3)) / np.maximum((blocks > 0).sum(axis=(1, 3)), 1)
    np.testing.assert_allclose(views.depth[0, 0, 0].numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(views.cameras.focal[0, 0].numpy() * ratio, store.focal[4], rtol=1e-6)
    np.testing.assert_allclose(views.cameras.principal[0, 0].numpy() * ratio, store.principal[4], rtol=1e-6)


@pytest.mark.parametrize("resolution", [32, 17, 0])
def test_other_resolutions_are_refused(store, resolution):
    with pytest.raises(ValueError, match=rf"resolution {resolution} .*allowed: 1 to 16"):
        store.views(np.array([[0]]), resolution)


@pytest.mark.parametrize("frame", [-1, 9])
def test_frames_outside_the_store_are_refused(store, frame):
    with pytest.raises(ValueError, match=r"not all within 0\.\.8"):
        store.views(np.array([[0, frame]]), SIZE)


def test_an_empty_split_is_refused(store):
    assert list(store.split("train")["object"]) == ["o0", "o1"]
    with pytest.raises(ValueError, match="'val'; it has: test, train"):
        store.split("val")


def test_bounds_from_the_origin_include_its_distance(tmp_path, store):
    assert store.views(np.array([[0, 2]]), SIZE).origin_distance is None
    around = Store.open(write(tmp_path / "around", bounds_from_origin=True, near=-2.0, far=2.0))
    frames = np.array([[0, 2], [7, 6]])
    views = around.views(frames, 8)
    for row, distances in zip(frames, views.origin_distance.numpy(), strict=True):
        for frame, distance in zip(row, distances, strict=True):
            rotation, translation = around.world_to_camera[frame][:3, :3], around.world_to_camera[frame][:3, 3]
            centre = -rotation.T @ translation
            assert distance == pytest.approx(-centre @ rotation[2], rel=1e-5)


@pytest.mark.parametrize("manifest", [{}, {"source_distance": 2.0}])
def test_the_origin_is_known_in_the_frame_of_the_first_camera(tmp_path, manifest):
    store = Store.open(write(tmp_path / "store", **manifest))
    frames = np.array([[4, 3, 5], [8, 6, 7]])
    views = store.views(frames, SIZE)
    for row, origin, cameras in zip(frames, views.origin.numpy(), views.cameras.world_to_camera.numpy(), strict=True):
        factor = 2.0 / np.linalg.norm(store.world_to_camera[row[0], :3, 3]) if manifest else 1.0
        for frame, camera in zip(row, cameras, strict=True):
            seen = (store.world_to_camera[frame] @ [0, 0, 0, 1])[:3] * factor
            np.testing.assert_allclose(camera[:3, :3] @ origin + camera[:3, 3], seen, atol=1e-5)


def test_objects_are_scaled_to_the_source_camera(tmp_path, store):
    scaled = Store.open(write(tmp_path / "scaled", source_distance=2.0))
    frames, point = np.array([[1, 0, 2], [2, 0, 1]]), np.array([0.2, -0.1, 0.3, 1.0])
    plain, views = store.views(frames, SIZE), scaled.views(frames, SIZE)
    rows = zip(frames, views.cameras.world_to_camera.numpy(), views.depth.numpy(), plain.depth.numpy(), strict=True)
    for sources, cameras, depth, before in rows:
        factor = 2.0 / np.linalg.norm(store.world_to_camera[sources[0], :3, 3])
        in_first = (store.world_to_camera[sources[0]] @ point)[:3] * factor
        for frame, camera in zip(sources, cameras, strict=True):
            expected = (store.world_to_camera[frame] @ point)[:3] * factor
            np.testing.assert_allclose(camera[:3, :3] @ in_first + camera[:3, 3], expected, atol=1e-5)
        np.testing.assert_allclose(depth, before * factor, rtol=1e-5)
