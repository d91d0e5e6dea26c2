import errno
import json
import os
from dataclasses import replace

import numpy as np
import pytest

from jobs.data.store import Frames, Store
from jobs.data.writer import JOURNAL, StoreWriter, partial_path
from results.records.disk import DiskFullError

SIZE = 8
FACTS = {
    "importer": "test",
    "options": {},
    "source": "made here",
    "licence": "none",
    "near": 0.5,
    "far": 4.0,
    "background": (1.0, 1.0, 1.0),
    "evaluation": {"source_frame": 0},
}


def make_frames(seed: int, count: int = 3) -> Frames:
    generator = np.random.default_rng(seed)
    return Frames(
        images=generator.integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8),
        world_to_camera=np.tile(np.eye(4), (count, 1, 1)),
        focal=generator.uniform(5, 9, (count, 2)),
        principal=np.full((count, 2), SIZE / 2),
        depth=generator.uniform(1, 2, (count, SIZE, SIZE)),
    )


def add(writer: StoreWriter, *numbers: int) -> None:
    for number in numbers:
        if number == 2:
            writer.skip("o2", "it is damaged")
        else:
            writer.append(make_frames(number), name=f"o{number}", split="train", category="c", geometry=f"g{number}")


def write(path, capacity=18) -> Store:
    with StoreWriter(path, capacity, "this") as writer:
        add(writer, *range(6))
        writer.finish(**FACTS)
    return Store.open(path)


@pytest.fixture
def undisturbed(tmp_path) -> Store:
    return write(tmp_path / "undisturbed")


@pytest.fixture
def interrupted(tmp_path):
    """A store with four of six objects written."""
    path = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt), StoreWriter(path, 18, "this") as writer:  # noqa: PT012
        add(writer, 0, 1, 2, 3)
        raise KeyboardInterrupt
    return path


def test_space_of_skipped_objects_is_freed(undisturbed):
    assert len(undisturbed.images) == 15
    size = 15 * 3 * SIZE * SIZE
    assert size < (undisturbed.path / "images.npy").stat().st_size < size + 256
    assert undisturbed.fingerprint == undisturbed.compute_checksum()
    np.testing.assert_array_equal(undisturbed.images[12:], make_frames(5).images)


def test_nothing_but_the_store_is_left(undisturbed):
    assert [path.name for path in undisturbed.path.parent.iterdir()] == ["undisturbed"]
    assert JOURNAL not in {path.name for path in undisturbed.path.iterdir()}


def test_a_half_written_store_is_invisible_and_resumed(interrupted, undisturbed):
    assert not interrupted.exists()
    with StoreWriter(interrupted, 18, "this") as writer:
        assert writer.done == 4
        assert [entry.object for entry in writer.skipped] == ["o2"]
        add(writer, 4, 5)
        writer.finish(**FACTS)
    store = Store.open(interrupted)
    assert store.fingerprint == undisturbed.fingerprint == store.compute_checksum()
    assert store.manifest == undisturbed.manifest


def test_what_another_import_left_is_not_used(interrupted):
    with StoreWriter(interrupted, 18, "another") as writer:
        assert writer.done == 0
        assert writer.skipped == []


def test_objects_behind_a_damaged_one_are_written_again(interrupted, undisturbed):
    """After a power failure the journal may be ahead of the arrays."""
    images = np.load(partial_path(interrupted) / "images.npy", mmap_mode="r+")
    images[4] = 0  # of o1
    images.flush()
    with StoreWriter(interrupted, 18, "this") as writer:
        assert writer.done == 1
        add(writer, 1, 2, 3, 4, 5)
        writer.finish(**FACTS)
    assert Store.open(interrupted).fingerprint == undisturbed.fingerprint


@pytest.mark.parametrize("kept", [0, 5, 60])
def test_a_truncated_journal_is_used_up_to_the_damage(interrupted, undisturbed, kept):
    journal = partial_path(interrupted) / JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]) + lines[-1][:kept])
    with StoreWriter(interrupted, 18, "this") as writer:
        assert writer.done == 3
        add(writer, 3, 4, 5)
        writer.finish(**FACTS)
    assert Store.open(interrupted).fingerprint == undisturbed.fingerprint


@pytest.mark.parametrize("damage", [b"", b"\0\0\0", b"{}"])
def test_a_useless_journal_starts_afresh(interrupted, damage):
    (partial_path(interrupted) / JOURNAL).write_bytes(damage)
    with StoreWriter(interrupted, 18, "this") as writer:
        assert writer.done == 0


def test_a_missing_array_starts_afresh(interrupted, undisturbed):
    (partial_path(interrupted) / "images.npy").write_bytes(b"")
    with StoreWriter(interrupted, 18, "this") as writer:
        assert writer.done == 0
        add(writer, *range(6))
        writer.finish(**FACTS)
    assert Store.open(interrupted).fingerprint == undisturbed.fingerprint


def test_discarding_leaves_nothing(interrupted):
    with StoreWriter(interrupted, 18, "this") as writer:
        writer.discard()
    assert list(interrupted.parent.glob("*store*")) == []


def test_objects_that_do_not_fit_are_refused_and_leave_no_trace(tmp_path):
    good = make_frames(0)
    bad = {
        "images has shape": replace(good, images=good.images[:, :, :4]),
        "focal has shape": replace(good, focal=good.focal[:2]),
        "not finite": replace(good, focal=good.focal * np.nan),
        "announced": make_frames(0, count=4),
    }
    for message, frames in bad.items():
        with StoreWriter(tmp_path / "store", 3, "this") as writer:
            with pytest.raises(ValueError, match=message):
                writer.append(frames, name="o", split="train", category="c", geometry="g")
            assert writer.done == 0
    with (
        StoreWriter(tmp_path / "store", 3, "this") as writer,
        pytest.raises(ValueError, match=r"'dev'.*allowed: train"),
    ):
        writer.append(good, name="o", split="dev", category="c", geometry="g")


def test_a_store_without_objects_is_refused(tmp_path):
    with StoreWriter(tmp_path / "store", 3, "this") as writer, pytest.raises(ValueError, match="at least one"):
        writer.finish(**FACTS)


def test_the_journal_is_readable_text(interrupted):
    entries = [json.loads(line) for line in (partial_path(interrupted) / JOURNAL).read_text().splitlines()]
    assert entries[0] == {"identity": "this"}
    assert [entry.get("row", entry.get("skipped"))["object"] for entry in entries[1:]] == ["o0", "o1", "o2", "o3"]


def test_objects_whose_source_changed_are_written_again_in_their_place(tmp_path):
    """An import of three objects, then one of four: the second is new, the third changed, the first is gone."""
    path = tmp_path / "store"
    facts = {"split": "train", "category": "c"}
    with StoreWriter(path, 9, "this") as writer:
        for number in (0, 1, 3):
            writer.append(make_frames(number), name=f"o{number}", geometry=f"g{number}", stamp="old", **facts)
        writer.drop_skipped()
    stamps = {"o1": "old", "o2": "new", "o3": "new", "o4": "new"}
    with StoreWriter(path, 12, "this") as writer:
        writer.keep(stamps)
        assert writer.names() == {"o1"}
        for number in (4, 3, 2):
            writer.append(make_frames(10 + number), name=f"o{number}", geometry=f"g{number}", stamp="new", **facts)
        writer.finish(["o1", "o2", "o3", "o4"], **FACTS)
    store = Store.open(path)
    assert store.objects["object"].tolist() == ["o1", "o2", "o3", "o4"]
    assert store.objects["first_frame"].tolist() == [0, 3, 6, 9]
    for row, seed in zip(store.objects.itertuples(), (1, 12, 13, 14), strict=True):
        np.testing.assert_array_equal(
            store.images[row.first_frame : row.first_frame + 3], make_frames(seed).images, err_msg=row.object
        )
    assert store.fingerprint == store.compute_checksum()
    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_what_could_not_be_read_is_tried_again_after_giving_up(interrupted):
    with StoreWriter(interrupted, 18, "this") as writer:
        writer.drop_skipped()
    with StoreWriter(interrupted, 18, "this") as writer:
        assert writer.names() == {"o0", "o1", "o3"}
        assert writer.skipped == []


def test_arrays_may_change_their_shape_once_no_old_object_is_kept(interrupted):
    wide = Frames(
        images=np.zeros((2, 3, 16, 16), np.uint8),
        world_to_camera=np.tile(np.eye(4), (2, 1, 1)),
        focal=np.ones((2, 2)),
        principal=np.ones((2, 2)),
    )
    with StoreWriter(interrupted, 4, "this") as writer:
        writer.keep({"o0": "altered"})
        writer.append(wide, name="o0", split="train", category="c", geometry="g0", stamp="altered")
        writer.finish(["o0"], **FACTS)
    assert Store.open(interrupted).images.shape == (2, 3, 16, 16)


def test_remarks_outlive_an_interruption(tmp_path):
    with StoreWriter(tmp_path / "store", 6, "this") as writer:
        writer.append(
            make_frames(0), name="a", split="train", category="c", geometry="a", remark="1 of 3 pictures show nothing"
        )
    with StoreWriter(tmp_path / "store", 6, "this") as writer:
        writer.append(make_frames(1), name="b", split="train", category="c", geometry="b")
        writer.finish(**FACTS)
    remarks = Store.open(tmp_path / "store").manifest.remarks
    assert [(remark.object, remark.text) for remark in remarks] == [("a", "1 of 3 pictures show nothing")]


class TestAFullDisk:
    """It raises an error; without room, a write to a mapped array would kill the process."""

    def test_is_noticed_at_the_first_object(self, small_disk, undisturbed):
        with pytest.raises(DiskFullError, match="no space left to write"):
            write(small_disk / "store", capacity=10_000)
        assert not list(small_disk.rglob("*.npy")), "the space of an import that cannot run is held"
        assert write(small_disk / "store").fingerprint == undisturbed.fingerprint

    def test_costs_an_import_that_is_extended_no_object(self, small_disk, undisturbed):
        path = small_disk / "store"
        with StoreWriter(path, 6, "this") as writer:
            add(writer, 0, 1, 2)
        with pytest.raises(DiskFullError), StoreWriter(path, 10_000, "this") as writer:
            add(writer, 3)
        with StoreWriter(path, 18, "this") as writer:
            assert writer.done == 3
            add(writer, 3, 4, 5)
            writer.finish(**FACTS)
        assert Store.open(path).fingerprint == undisturbed.fingerprint

    @pytest.mark.parametrize("room", [0, 3500])
    def test_costs_a_store_that_is_reordered_no_object(self, interrupted, monkeypatch, room):
        """Tested for no room, and for room that all arrays but the largest, of depth, would fit into."""
        order = [f"o{number}" for number in (5, 4, 3, 1, 0)]

        def allocate(_handle: int, _start: int, size: int) -> None:
            if size > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with StoreWriter(interrupted, 18, "this") as writer:
            add(writer, 4, 5)
            with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):  # noqa: PT012
                patch.setattr(os, "posix_fallocate", allocate)
                writer.finish(order, **FACTS)
        assert not list(partial_path(interrupted).glob("*.ordered"))
        with StoreWriter(interrupted, 18, "this") as writer:
            assert writer.done == 6
            writer.finish(order, **FACTS)
        np.testing.assert_array_equal(Store.open(interrupted).images[:3], make_frames(5).images)


@pytest.mark.parametrize("reason", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_need_not_allocate_in_advance(tmp_path, undisturbed, monkeypatch, reason):
    def allocate(*_: int) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    assert write(tmp_path / "store").fingerprint == undisturbed.fingerprint
