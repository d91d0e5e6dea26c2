"""The settings that trials have in common, and those in which they differ."""

from __future__ import annotations

from results.load import read_evidence
from results.provenance import configurations, split_common, tags


def test_split_common() -> None:
    common, differing = split_common([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 2, "c": 4}])
    assert common == {"a": 1}
    assert differing == ["b", "c"]
    assert split_common([]) == ({}, [])


def test_a_setting_that_some_trials_lack_is_not_common() -> None:
    assert split_common([{"a": None}, {}]) == ({}, ["a"])


def test_configurations_leave_out_seeds_and_trivial_rows(study, sweep) -> None:
    found = configurations(read_evidence(sweep, study.home))
    assert [record.planned.key for record, _ in found] == ["a0", "a1", "b0", "b1", "c0"]
    assert found[2][1] == {"data.name": "chairs", "data.resolution": 16, "depth.model": "oracle"}


def test_tags_describe_the_origin_of_a_run_not_its_identity(study, sweep) -> None:
    found = {record.planned.key: values for record, values in tags(read_evidence(sweep, study.home))}
    assert found["a0"] == {"git.commit": "0123abc"}
    assert found["c0"] == {}
