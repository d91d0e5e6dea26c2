"""The table of trials: correct at 80 columns, running trials first."""

from __future__ import annotations

import io

import pytest

from sweep.run.progress import TrialState
from sweep.run.state_table import failures, state_table
from sweep.terminal import Terminal

STATES = [
    TrialState(
        key="a",
        name="depth.model=midas_small depth.fusion=xattn_positional",
        seed=2,
        status="finished",
        step=30000,
        steps=30000,
        rate=8.1,
        metrics={"train/loss": 0.0123, "val/psnr": 21.17, "novel/psnr": 20.02},
    ),
    TrialState(
        key="b",
        name="ours [ema]",
        seed=0,
        status="running",
        step=12345,
        steps=30000,
        rate=7.9,
        metrics={"train/loss": 0.0234, "val/psnr": 19.5},
    ),
    TrialState(
        key="c",
        name="no [/lpips]",
        seed=1,
        status="failed",
        step=10,
        steps=30000,
        error="NonFiniteError: [loss] is nan\nmore",
    ),
    TrialState(key="d", name="blank", seed=0, status="pending", step=0, steps=0),
]
LEFT = [0.0, 4320.0, 0.0, None]


def drawn(width: int, rows: int | None = None) -> str:
    stream = io.StringIO()
    Terminal(file=stream, width=width).print(state_table(STATES, LEFT, width, rows))
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_table_fits_and_loses_nothing(width: int) -> None:
    lines = drawn(width).splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for words in (
        "ours [ema]",
        "no [/lpips]",
        "running 12345/30000",
        "1 h 12 min",
        "19.50",
        "20.02",
        "21.17",
        "0.0234",
    ):
        assert words in text
    assert ("it/s" in text) == (width >= 100)


def test_scores_stand_under_what_they_are_of() -> None:
    header = drawn(80).splitlines()[:2]
    assert header[0].split()[-2:] == ["val", "test"]
    assert header[1].split()[-2:] == ["PSNR", "PSNR"]
    (running,) = [line for line in drawn(80).splitlines() if line.startswith("ours")]
    assert running.rstrip().endswith("19.50"), "a validation score is not in the test column"
    assert len(running.rstrip()) < len(drawn(80).splitlines()[1].rstrip())


def test_running_trials_are_above_the_fold() -> None:
    lines = drawn(80, rows=1).splitlines()
    assert "ours [ema]" in lines[2]
    assert lines[-1].strip() == "... and 3 more"


def test_why_trials_failed_is_one_line_each() -> None:
    assert failures(STATES) == ["no [/lpips] seed 1 failed: NonFiniteError: [loss] is nan"]
