"""The benchmark of the driver really runs its trials, with our driver and with a bare tuner."""

from __future__ import annotations

import pytest

from sweep.bench import sweep


@pytest.mark.usefixtures("weights")
def test_quick_run_compares_the_driver_with_a_bare_tuner_and_with_a_preset():
    result = sweep.run(quick=True)
    ours, bare, preset = result.rows
    assert (ours["case"], bare["case"]) == ("splatsweep", "bare tuner")
    assert tuple(ours) == tuple(bare)
    assert bare["over bare ms"] == 0
    assert ours["over bare ms"] == pytest.approx(ours["ms a trial"] - bare["ms a trial"])
    for row in (ours, bare):
        assert 0 < row["ms a trial"] <= row["slowest ms"]
        assert row["wall s"] > row["trials"] * sweep.NAP_S
    assert preset["trials"] == 4  # two, and the trivial rows
    assert 0 < preset["between %"] < 100
    assert 0 < preset["beside %"] < 100
    assert preset["both %"] == pytest.approx(preset["between %"] + preset["beside %"])
