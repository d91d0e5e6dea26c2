"""The trials that `--only` chooses."""

from __future__ import annotations

import dataclasses

import pytest

from sweep.only import choose, is_wanted, required, unmatched
from tests.works import trial_of

NAMES = ("ours [ema]", "ours e", "it's", 'a "b", c', "a*", "ab", "[!x]", "1", "true")
TRIALS = [dataclasses.replace(trial_of(seed), names=(name,)) for seed, name in enumerate(NAMES)]


def names(*only: str) -> list[str]:
    return [trial.name for trial in choose(TRIALS, only)]


def test_every_name_names_its_own_trial_alone() -> None:
    assert [names(name) for name in NAMES] == [[name] for name in NAMES]


def test_other_texts_are_globs() -> None:
    assert names("ours*") == ["ours [ema]", "ours e"]
    assert names("[0-9]") == ["1"]
    assert names("theirs") == []
    assert names() == list(NAMES)
    assert names("1", "ours*", "ab") == ["ours [ema]", "ours e", "ab", "1"]


def test_texts_that_choose_nothing_are_found_beside_others_that_do() -> None:
    assert unmatched(TRIALS, ["1", "theirs", "ours*", "x?"]) == ["theirs", "x?"]
    assert unmatched(TRIALS, []) == []


def test_a_proposals_name_is_compared_alike() -> None:
    assert is_wanted("search-0001", ["ours", "search-*"])
    assert is_wanted("search-0001", [])
    assert not is_wanted("search-0001", ["ours"])


def test_a_text_that_chooses_nothing_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"--only 'ours e\]' matches no trial; allowed: .*did you mean 'ours e'"):
        required(TRIALS, ["1", "ours e]"])
    grid = [dataclasses.replace(trial_of(seed), names=(f"size={seed}",)) for seed in range(400)]
    with pytest.raises(ValueError, match=r"size=0, .* and 380 more; did you mean 'size=399'") as caught:
        required(grid, ["size 399"])
    assert len(str(caught.value)) < 400
    assert required(TRIALS, ["1", "a*"]) == choose(TRIALS, ["1", "a*"])
    assert required([], []) == []
