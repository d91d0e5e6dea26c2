"""The best of a search, and what mattered."""

from __future__ import annotations

import re

import pytest

from results.load import TrialRecord
from results.tables.search import Options, build


def searched(make, count: int = 30) -> list[TrialRecord]:
    """Trials whose score depends on the weight and hardly on the other setting."""
    return [
        item
        for index in range(count)
        for item in make.trained(
            f"trial {index}",
            20.0 - abs(index - 20) / 5,
            seeds=1,
            objects=4,
            config={"losses": {"tv": index / 100}, "depth": {"model": "ab"[index % 2]}},
        )
    ]


def test_the_best_come_first_with_their_settings(make) -> None:
    table = build(make.evidence(*searched(make)), Options(best=3))
    assert [row.label for row in table.rows][:1] == ["trial 20"]
    assert {row.label for row in table.rows[1:]} == {"trial 19", "trial 21"}
    by_label = {column.label: index for index, column in enumerate(table.columns)}
    assert table.rows[0].cells[by_label["losses.tv"]].text == "0.2"
    assert table.rows[0].cells[by_label["depth.model"]].text == "a"
    assert "27 other finished configurations not shown." in table.notes


def test_importance_tells_what_mattered_from_what_did_not(make) -> None:
    table = build(make.evidence(*searched(make)), Options())
    (said,) = [note for note in table.notes if "Importance" in note]
    shares = {name: int(share) for name, share in re.findall(r"([\w.]+) (\d+)%", said)}
    assert set(shares) == {"losses.tv", "depth.model"}
    assert shares["losses.tv"] > 80
    assert table.columns[0].label == "losses.tv"


def test_few_trials_say_nothing_of_importance(make) -> None:
    table = build(make.evidence(*searched(make, 5)), Options())
    assert "With 5 finished configurations, nothing can be said of the settings' importance." in table.notes
    assert [column.label for column in table.columns[:2]] == ["losses.tv", "depth.model"]


def test_failed_trials_are_counted(make) -> None:
    table = build(make.evidence(*searched(make, 3), make.record("x", state="failed")), Options())
    assert any(note.startswith("1 configuration without a result") for note in table.notes)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_quantity_says_what_is_best(make, direction: str) -> None:
    value = {"metric": "psnr", "direction": direction}
    table = build(make.evidence(*searched(make)), Options.model_validate({"value": value, "best": 1}))
    assert table.rows[0].label == ("trial 20" if direction == "up" else "trial 0")
