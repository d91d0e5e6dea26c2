"""Trials that are trained in a second, as a plan has them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from jobs.config import TrialConfig
from jobs.trial import Runtime, run_trial
from results.records.plan import PlannedTrial
from tests.conftest import tiny_configuration


def trained(home: Path, name: str = "mine", **sections: Any) -> PlannedTrial:
    """A finished trial of a home; `sections` are those of `tiny_configuration`."""
    config = TrialConfig.model_validate(tiny_configuration(**sections))
    result = run_trial(config, home, Runtime(threads=1))
    return PlannedTrial(result.key, (name,), 0, config.identity(), "finished", training=result.training)


def trained_without_features(home: Path) -> PlannedTrial:
    """A finished trial with context, in a home that no longer has its features."""
    trial = trained(home, depth={"model": "oracle_noisy", "fusion": "input"})
    shutil.rmtree(home / "cache" / "features")
    return trial
