"""Short forms of dotted keys."""

from __future__ import annotations

import pytest

from results.records.short_keys import short_keys


@pytest.mark.parametrize(
    ("keys", "short"),
    [
        (["depth.model", "depth.fusion"], ["model", "fusion"]),
        (["semantic.fusion", "depth.fusion"], ["semantic.fusion", "depth.fusion"]),
        (["train.stages.0.lr", "train.stages.1.lr"], ["stages.0.lr", "stages.1.lr"]),
        (["train.stages.*.losses.tv"], ["tv"]),
        (["train.stages.*", "seed"], ["stages.*", "seed"]),
        (["model.name", "data.name", "depth.model"], ["model.name", "data.name", "model"]),
    ],
)
def test_keys_are_shortened_while_unique(keys: list[str], short: list[str]) -> None:
    assert list(short_keys(keys).values()) == short
