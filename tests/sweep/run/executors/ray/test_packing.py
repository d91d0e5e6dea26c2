"""Shares of a GPU follow measured memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.config import TrialConfig
from model.methods.blank import BlankOptions
from sweep.run.executors.ray.packing import CONTEXT_BYTES, Packing, Use, memory_limit, whole_part

GIB = 1 << 30
CONFIG, OTHER = TrialConfig(seed=1), TrialConfig(seed=2)


def packing(share: float, folder: Path) -> Packing:
    """A packing in which the seed determines a trial's shape."""
    return Packing(share, lambda config: str(config.seed), folder / "cache" / "gpu-memory.json")


@pytest.mark.parametrize(
    ("share", "part"), [(0, 0), (0.1, 0.1), (0.25, 0.25), (0.26, 1 / 3), (0.34, 0.5), (0.6, 1), (2, 1)]
)
def test_shares_fill_a_gpu(share: float, part: float) -> None:
    assert whole_part(share) == pytest.approx(part)


def test_a_third_that_was_too_little_becomes_a_whole(tmp_path: Path) -> None:
    shares = packing(1 / 3, tmp_path)
    shares.ran_out(CONFIG, 1 / 3)
    assert shares.share_of(CONFIG) == 1.0


def test_a_trial_that_ran_out_gets_more_until_it_has_a_whole_gpu(tmp_path: Path) -> None:
    shares = packing(0.25, tmp_path)
    seen = [shares.share_of(CONFIG)]
    for _ in range(2):
        shares.ran_out(CONFIG, seen[-1])
        seen.append(shares.share_of(CONFIG))
    assert seen == [0.25, 0.5, 1.0]
    assert shares.share_of(OTHER) == 0.25, "of another shape"


def test_trials_get_what_others_of_their_shape_were_measured_to_need(tmp_path: Path) -> None:
    shares = packing(0.25, tmp_path)
    shares.used(CONFIG, Use(peak_bytes=30 * GIB, total_bytes=80 * GIB))
    assert shares.share_of(CONFIG) == 0.5
    shares.used(CONFIG, Use(peak_bytes=20 * GIB, total_bytes=80 * GIB))
    assert shares.share_of(CONFIG) == 0.5, "never less than another one needed"
    shares.used(OTHER, Use(peak_bytes=2 * GIB, total_bytes=80 * GIB))
    assert shares.share_of(OTHER) == 0.25, "never less than the file says"


def test_the_share_that_memory_requires_has_a_margin_and_the_context() -> None:
    assert Use(10 * GIB, 80 * GIB).share == pytest.approx((11 * GIB + CONTEXT_BYTES) / (80 * GIB))


def test_what_was_learned_outlives_the_run(tmp_path: Path) -> None:
    packing(0.25, tmp_path).ran_out(CONFIG, 0.25)
    assert packing(0.25, tmp_path).share_of(CONFIG) == 0.5
    (memory,) = tmp_path.rglob("*.json")
    for damaged in ("{damaged", "[]", memory.read_text().replace("0.5", "null")):
        memory.write_text(damaged)
        assert packing(0.25, tmp_path).share_of(CONFIG) == 0.25


@pytest.mark.parametrize("share", [0.0, 1.0, 2.0])
def test_whole_gpus_and_none_stay_as_they_are(share: float, tmp_path: Path) -> None:
    shares = packing(share, tmp_path)
    assert not shares.is_shared
    shares.used(CONFIG, Use(70 * GIB, 80 * GIB))
    assert not list(tmp_path.rglob("*.json"))
    packing(0.25, tmp_path).ran_out(CONFIG, 0.25)
    assert packing(share, tmp_path).share_of(CONFIG) == share, "what was learned is of shared GPUs"


def test_a_row_without_training_that_ran_out_gets_more_as_well(tmp_path: Path) -> None:
    shares = packing(0.25, tmp_path)
    control = TrialConfig(model=BlankOptions(), seed=1)
    shares.ran_out(control, shares.share_of(control))
    assert shares.share_of(control) == 0.5, "or it would be put back without end"


def test_torch_is_held_to_its_share_without_the_context() -> None:
    total = 80 * GIB
    assert memory_limit(0.25, total) * total == pytest.approx(20 * GIB - CONTEXT_BYTES)
    assert 4 * (memory_limit(0.25, total) * total + CONTEXT_BYTES) <= total + 1
