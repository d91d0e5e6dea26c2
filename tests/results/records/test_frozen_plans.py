"""The frozen plan as results read it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from results.errors import ResultsError
from results.records.frozen_plans import freeze, read_earlier_plans, read_plan, read_plans
from results.records.plan import Plan, PlannedTrial


def write(home: Path, content: object) -> None:
    path = home / "sweeps" / "study" / "plan.json"
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def trial(key: str, name: str) -> dict[str, object]:
    return {"key": key, "name": name, "names": [name], "seed": 0, "config": {}, "status": "pending"}


def test_a_sweep_without_a_plan_names_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"'study' has not been planned.*splatsweep run"):
        read_plan("study", tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", {"sweep": "study"}, {"trials": [{"key": "a"}]}])
def test_a_file_that_is_no_plan_is_refused_by_name(tmp_path: Path, content: object) -> None:
    write(tmp_path, content)
    with pytest.raises(ResultsError, match=r"plan\.json"):
        read_plan("study", tmp_path)


def test_controls_follow_the_trials_and_a_repeated_key_counts_once(tmp_path: Path) -> None:
    content = {
        "sweep": "study",
        "created": "2026-03-01T12:00:00+00:00",
        "trials": [trial("a", "first"), trial("b", "second"), trial("a", "again")],
        "controls": [trial("x", "blank")],
    }
    write(tmp_path, content)
    plan = read_plan("study", tmp_path)
    assert [(t.name, t.control) for t in (*plan.trials, *plan.controls)] == [
        ("first", False),
        ("second", False),
        ("blank", True),
    ]


def whole(*trials: object, **more: object) -> dict[str, object]:
    return {"sweep": "study", "created": "2026-03-01T12:00:00+00:00", "trials": list(trials), "controls": [], **more}


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        "a",
        [],
        {},
        {"key": "b"},
        trial("b", "bad") | {"key": 7},
        trial("b", "bad") | {"key": "../b"},
        trial("b", "bad") | {"names": [None]},
        trial("b", "bad") | {"seed": "first"},
        trial("b", "bad") | {"config": None},
        trial("b", "bad") | {"config": {"train": {"stages": [{"lr": 1}]}}},
        trial("b", "bad") | {"status": "perfect"},
    ],
)
def test_one_bad_trial_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: object) -> None:
    write(tmp_path, whole(trial("a", "good"), damaged, trial("c", "too")))
    assert [t.name for t in read_plan("study", tmp_path).trials] == ["good", "too"]
    assert "trial 2" in caplog.text
    assert str(tmp_path / "sweeps" / "study" / "plan.json") in caplog.text
    assert "plan the sweep again" in caplog.text


@pytest.mark.parametrize("search", [7, {}, {"study": "s", "open": [], "missing": []}])
def test_a_damaged_search_costs_no_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture, search: object) -> None:
    write(tmp_path, whole(trial("a", "good"), search=search))
    plan = read_plan("study", tmp_path)
    assert (plan.search, [t.name for t in plan.trials]) == (None, ["good"])
    assert "search" in caplog.text


@pytest.mark.parametrize(
    "member", [{"training": 3}, {"training": ["t"]}, {"training": "../t"}, {"missing": [1]}, {"proposals": ["x"]}]
)
def test_a_member_of_another_kind_leaves_its_trial_out(tmp_path: Path, caplog, member: dict[str, object]) -> None:
    write(tmp_path, whole(trial("a", "first"), trial("b", "second") | member))
    assert [t.key for t in read_plan("study", tmp_path).trials] == ["a"]
    assert "trial 2 is none of this version" in caplog.text


SEARCH = {"study": "s", "metric": "novel_psnr", "direction": "maximize", "wanted": 3, "open": [1], "missing": []}
RULING = {"row": "tv", "state": "open", "seeds": 1, "wanted": 3, "difference": 0.1}
PRIMARY = {"metric": "novel_psnr", "trials": 4, "finished": 0}
SEEDS = {"at_least": 2, "at_most": 4, "metric": "m", "alpha": 0.05, "baseline": "b", "rulings": [RULING], "former": []}


@pytest.mark.parametrize(
    ("section", "problem", "sound", "member"),
    [
        *(
            ("search", "its search is none of this version", SEARCH, member)
            for member in ({"wanted": "x"}, {"open": ["x"]}, {"missing": [2]}, {"metric": None})
        ),
        *(
            ("primary", "its primary metric is none of this version", PRIMARY, member)
            for member in ({"metric": None}, {"trials": "4"}, {"finished": None}, {"since": "today"})
        ),
        *(
            ("seeds", "its seeds are none of this version", SEEDS, member)
            for member in (
                {"at_least": "x"},
                {"baseline": 1},
                {"rulings": [RULING | {"low": "x"}]},
                {"rulings": [RULING | {"state": "good"}]},
            )
        ),
    ],
)
def test_a_section_with_a_member_of_another_kind_is_not_shown(
    tmp_path: Path, caplog, section: str, problem: str, sound: dict, member: dict
) -> None:
    write(tmp_path, whole(trial("a", "first"), **{section: sound}))
    assert getattr(read_plan("study", tmp_path), section) is not None
    damaged = json.dumps(whole(trial("a", "f"), **{section: sound | member}))
    (tmp_path / "sweeps" / "study" / "plan.json").write_text(damaged)
    assert getattr(read_plan("study", tmp_path), section) is None
    assert problem in caplog.text


def test_a_damaged_plan_hides_no_other(tmp_path: Path, caplog) -> None:
    write(tmp_path, whole(trial("a", "first")))
    folder = tmp_path / "sweeps" / "study" / "plans"
    folder.mkdir()
    (folder / "2026-01-01T000000.json").write_text("{")
    (folder / "2026-01-02T000000.json").write_text(json.dumps(whole(trial("b", "second"))))
    (tmp_path / "sweeps" / "other").mkdir()
    (tmp_path / "sweeps" / "other" / "plan.json").write_text("[]")
    assert [plan.trials[0].key for plan in read_plans(tmp_path)] == ["a"]
    assert [plan.trials[0].key for plan in read_earlier_plans(tmp_path)] == ["b"]
    assert "2026-01-01T000000.json cannot be used: not JSON" in caplog.text
    assert "other/plan.json cannot be used: a JSON object is expected" in caplog.text


def test_every_state_of_a_trial_is_read_back(tmp_path: Path) -> None:
    states = ["pending", "running", "finished", "failed", "interrupted", "pruned", "blocked", "to be evaluated"]
    write(tmp_path, whole(*(trial(f"k{n}", f"t{n}") | {"status": state} for n, state in enumerate(states))))
    assert [t.status for t in read_plan("study", tmp_path).trials] == states
    former = whole(trial("a", "a") | {"status": "to be judged"})
    (tmp_path / "sweeps" / "study" / "plan.json").write_text(json.dumps(former))
    assert read_plan("study", tmp_path).trials[0].status == "to be evaluated", "as earlier versions wrote it"


@pytest.mark.parametrize("axes", [{"depth.model": "model"}, None, 7])
def test_the_axes_are_read_back_and_damaged_ones_cost_nothing(tmp_path: Path, axes: object) -> None:
    write(tmp_path, whole(trial("a", "good"), axes=axes))
    plan = read_plan("study", tmp_path)
    assert plan.axes == (axes if isinstance(axes, dict) else {})
    assert json.loads(plan.to_json()).get("axes", {}) == plan.axes


def test_a_plan_that_only_its_time_tells_from_the_former_one_is_not_written(tmp_path: Path) -> None:
    first = Plan("s", "2026-11-26T10:00:00+00:00", (PlannedTrial("a0", ("baseline",), 0, {}, "pending"),), ())
    path = freeze(first, tmp_path)
    before = path.stat().st_ino
    freeze(replace(first, created="2026-11-26T11:00:00+00:00"), tmp_path)
    assert (path.stat().st_ino, read_plan("s", tmp_path).created) == (before, first.created)
    (trial,) = first.trials
    ended = replace(first, created="2026-11-26T12:00:00+00:00", trials=(replace(trial, status="finished"),))
    freeze(ended, tmp_path)
    assert read_plan("s", tmp_path) == ended
