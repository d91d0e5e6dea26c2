"""The feature file: its values, and its state after its writer was killed or ran beside another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from jobs.feature_file import FeatureFile, ensure_feature_file
from jobs.stop import StopRequestedError
from results.records.disk import DiskFullError
from tests.processes import PATIENCE_S, wait_for

#: The tolerance of values stored in float16.
HALF = 2**-11
FRAMES = np.array([5, 6, 7, 20, 30, 31, 32, 33, 34, 90], np.int64)
GROUP = 3

#: A process that writes the file and records each group that it computes; it is slow from the third on.
WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from jobs.feature_file import ensure_feature_file
path, notes, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
def compute(frames):
    with notes.open("a") as stream:
        stream.write(" ".join(map(str, frames)) + "\\n")
    if len(notes.read_text().splitlines()) > 2:
        time.sleep(pause)
    return np.stack([np.linspace(0, frame, 5, dtype=np.float32) for frame in frames])
frames = np.array([5, 6, 7, 20, 30, 31, 32, 33, 34, 90], np.int64)
ensure_feature_file(path, frames, 3, compute)
"""


def start_writer(path: Path, notes: Path, pause: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(notes), str(pause)])


def features(frames):
    return np.stack([np.linspace(0, frame, 5, dtype=np.float32) for frame in frames])


def read(path):
    file = FeatureFile(path)
    return file.frames, file.values().astype(np.float32) * file.scales[:, None]


def assert_whole(path):
    frames, values = read(path)
    assert np.array_equal(frames, FRAMES)
    np.testing.assert_allclose(values, features(FRAMES), rtol=HALF)


def wait_for_lines(notes, count):
    wait_for(lambda: notes.exists() and len(notes.read_text().splitlines()) >= count, f"{count} lines")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features" / "one.npy"


def test_stored_features_are_read_back(path):
    ensure_feature_file(path, FRAMES, GROUP, features)
    assert_whole(path)
    assert FeatureFile(path).shape == (5,)
    assert FeatureFile(path).values(np.array([[9, 0], [1, 1]])).shape == (2, 2, 5)
    assert not path.with_suffix(".partial").exists()


def test_a_whole_file_is_not_written_again(path):
    ensure_feature_file(path, FRAMES, GROUP, features)
    ensure_feature_file(path, FRAMES, GROUP, lambda _: pytest.fail("computed again"))


@pytest.mark.parametrize("size", [1e-9, 1.0, 3e7])
def test_half_precision_holds_any_range(path, size):
    values = size * np.random.default_rng(0).uniform(0.1, 1, (len(FRAMES), 2, 4, 4)).astype(np.float32)
    ensure_feature_file(path, FRAMES, len(FRAMES), lambda _: values)
    file = FeatureFile(path)
    assert file.values().dtype == np.float16
    kept = file.values().astype(np.float32) * file.scales[:, None, None, None]
    np.testing.assert_allclose(kept, values, rtol=HALF)


def test_nothing_is_nothing(path):
    ensure_feature_file(path, FRAMES, GROUP, lambda frames: np.zeros((len(frames), 3), np.float32))
    file = FeatureFile(path)
    assert (file.values() == 0).all()
    assert np.isfinite(file.scales).all()


def test_what_is_not_finite_is_refused(path):
    def compute(frames):
        return np.where(frames[:, None] == 31, np.nan, 1.0).astype(np.float32)

    with pytest.raises(ValueError, match="frame 31 is not finite"):
        ensure_feature_file(path, FRAMES, GROUP, compute)
    assert not path.exists()


def test_a_killed_writer_is_taken_over_from(path, tmp_path):
    path.parent.mkdir()
    notes = tmp_path / "notes"
    writer = start_writer(path, notes, pause=PATIENCE_S)
    wait_for_lines(notes, 3)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert not path.exists()

    start_writer(path, notes, pause=0).wait(timeout=PATIENCE_S)
    assert_whole(path)
    # It continues with the group that the killed process was computing.
    assert notes.read_text().splitlines() == ["5 6 7", "20 30 31", "32 33 34", "32 33 34", "90"]


def test_a_stop_keeps_the_groups_that_are_done(path):
    answers = iter([False, False, True, True])
    for _ in range(2):
        with pytest.raises(StopRequestedError, match="stopped after 6 of 10 frames of one"):
            ensure_feature_file(path, FRAMES, GROUP, features, lambda: next(answers))
    assert not path.exists()
    left = []
    ensure_feature_file(path, FRAMES, GROUP, lambda frames: left.append(frames) or features(frames))
    assert [list(frames) for frames in left] == [[32, 33, 34], [90]]
    assert_whole(path)


def test_a_disk_that_is_too_small_is_not_filled(small_disk):
    computed = []

    def large(frames):
        computed.append(list(frames))
        return np.ones((len(frames), 60_000), np.float32)

    with pytest.raises(DiskFullError, match=f"the rest of one takes .* GB, and {small_disk} has .* GB free"):
        ensure_feature_file(small_disk / "one.npy", FRAMES, GROUP, large)
    assert computed == [[5, 6, 7]]
    assert (small_disk / "one.partial").stat().st_size == 0


def test_a_disk_that_others_fill_is_that_of_the_features_and_keeps_the_groups_that_are_done(small_disk):
    path, computed = small_disk / "one.npy", []

    def large(frames):
        computed.append(list(frames))
        if len(computed) == 3:
            with suppress(OSError), (small_disk / "other").open("wb", buffering=0) as stream:
                while True:
                    stream.write(bytes(4096))
        return np.ones((len(frames), 30_000), np.float32)

    with pytest.raises(DiskFullError, match=f"no space left to write {path}"):
        ensure_feature_file(path, FRAMES, GROUP, large)
    with pytest.raises(DiskFullError):
        ensure_feature_file(path, FRAMES, GROUP, large)
    assert computed == [[5, 6, 7], [20, 30, 31], [32, 33, 34], [32, 33, 34]]
    (small_disk / "other").unlink()
    ensure_feature_file(path, FRAMES, GROUP, large)
    assert np.array_equal(read(path)[0], FRAMES)


def test_a_stop_reaches_who_waits_for_another_process(path, monkeypatch):
    monkeypatch.setattr("jobs.lock._WAIT_S", 0.01)
    path.parent.mkdir()
    answers, work = iter([False, True]), []
    with (
        FileLock(path.with_suffix(".lock")),
        pytest.raises(StopRequestedError, match="computation of one, which another"),
    ):
        ensure_feature_file(path, FRAMES, GROUP, features, lambda: next(answers), lambda: work.append("waits"))
    ensure_feature_file(path, FRAMES, GROUP, features, on_work=lambda: work.append("computes"))
    ensure_feature_file(path, FRAMES, GROUP, features, on_work=lambda: work.append("reads"))
    assert work == ["waits", "computes"]


@pytest.fixture
def interrupted(path):
    """The partial file of a writer that was stopped before the last of four groups."""

    def compute(frames):
        if 90 in frames:
            raise KeyboardInterrupt
        return features(frames)

    with pytest.raises(KeyboardInterrupt):
        ensure_feature_file(path, FRAMES, GROUP, compute)
    return path.with_suffix(".partial")


@pytest.fixture
def complete(path):
    """Completes the file, which must then be whole, and returns the groups that this computes."""

    def run() -> list[list[int]]:
        asked = []

        def compute(frames):
            asked.append(frames.tolist())
            return features(frames)

        ensure_feature_file(path, FRAMES, GROUP, compute)
        assert_whole(path)
        assert sorted(file.suffix for file in path.parent.iterdir()) == [".lock", ".npy"]
        return asked

    return run


@pytest.mark.usefixtures("interrupted")
def test_what_is_there_already_is_not_computed_again(complete):
    assert complete() == [[90]]


@pytest.mark.parametrize(("kept", "computed"), [(0, 4), (5, 4), (40, 4), (200, 4), (300, 3), (330, 2)])
def test_a_torn_file_is_completed(interrupted, complete, kept, computed):
    """Tested for cuts inside the header, after it, and inside records."""
    whole = interrupted.read_bytes()
    assert kept < len(whole)
    interrupted.write_bytes(whole[:kept])
    assert len(complete()) == computed


def test_a_partial_file_with_a_damaged_header_is_computed_anew(interrupted, complete):
    interrupted.write_bytes(interrupted.read_bytes().replace(b"{'descr'", b"({'desc", 1))
    assert len(complete()) == 4


@pytest.mark.parametrize("kept", [0, 3, 4])
def test_groups_whose_checksums_are_lost_are_computed_again(interrupted, complete, kept):
    checksums = interrupted.with_suffix(".crc")
    checksums.write_bytes(checksums.read_bytes()[:kept])
    assert len(complete()) == 4 - kept // 4


def test_zeros_that_a_power_cut_left_are_not_features(interrupted, complete):
    """They are inside the values of a record, whose frame and scale were written."""
    content = bytearray(interrupted.read_bytes())
    assert any(content[-4:])
    content[-4:] = bytes(4)
    interrupted.write_bytes(content)
    assert complete() == [[32, 33, 34], [90]]


def test_of_two_processes_one_computes(path, tmp_path):
    notes = tmp_path / "notes"
    writers = [start_writer(path, notes, pause=0.3) for _ in range(2)]
    assert [writer.wait(timeout=PATIENCE_S) for writer in writers] == [0, 0]
    assert_whole(path)
    assert notes.read_text().splitlines() == ["5 6 7", "20 30 31", "32 33 34", "90"]


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "header", "archive", "other", "frame", "scale"])
def test_a_damaged_file_is_computed_anew_and_named(tmp_path: Path, caplog, damage: str) -> None:
    path = tmp_path / "features.npy"

    def compute(frames: np.ndarray) -> np.ndarray:
        return np.stack([np.full(3, frame, np.float32) for frame in frames])

    ensure_feature_file(path, FRAMES, GROUP, compute)
    sound = path.read_bytes()
    if damage == "other":
        np.save(path, np.zeros((4, 4)))
    elif damage in ("frame", "scale"):
        records = np.load(path, mmap_mode="r+")
        records[damage][1] = {"frame": 2**40, "scale": np.nan}[damage]
        records.flush()
    else:
        contents = {"empty": b"", "text": b"{}", "cut": sound[:-5], "archive": b"PK\3\4" + sound[4:]}
        contents["header"] = sound.replace(b"{'descr'", b"({'desc", 1)
        path.write_bytes(contents[damage])
    ensure_feature_file(path, FRAMES, GROUP, compute)
    assert path.read_bytes() == sound
    assert "features.npy is damaged" in caplog.text
