"""Scores of trials as arrays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from results.costs import costs_of
from results.measurements import Texts
from results.tables.metric_columns import named
from results.tables.scores import Scores


def test_views_of_another_kind_are_in_no_mean(make) -> None:
    novel, conditioned = named("novel_psnr"), named("conditioned_psnr")
    found = make.evidence(make.record("a", 0, {"novel_psnr": [20.0, 22.0], "conditioned_psnr": [30.0, 31.0]}))
    assert Scores.of(found, [novel]).means(["a/0"], novel) == (21.0,)
    both = Scores.of(found, [conditioned, novel])
    assert [both.means(["a/0"], quantity) for quantity in (novel, conditioned)] == [(21.0,), (30.5,)]


def test_differences_are_on_the_objects_that_all_pairs_have(make) -> None:
    psnr = named("novel_psnr")
    values = {("a", 0): [1.0, 2.0, 4.0], ("a", 1): [1.0, 3.0], ("b", 0): [5.0, 7.0, 9.0], ("b", 1): [6.0, 8.0, 9.0]}
    found = make.evidence(*(make.record(*trial, {"novel_psnr": own}) for trial, own in values.items()))
    scores, pairs = Scores.of(found, [psnr]), [("b/0", "a/0"), ("b/1", "a/1"), ("b/2", "a/2"), ("b/0", "other")]
    assert scores.differences(pairs, psnr).tolist() == [[4.0, 5.0], [5.0, 5.0]]
    assert scores.differences(pairs[2:], psnr) is None
    assert scores.crossed(["a/0", "a/1", "a/2"], psnr).tolist() == [[1.0, 2.0], [1.0, 3.0]]
    assert scores.crossed(["a/2"], psnr) is None
    assert scores.means(["a/0", "a/1", "a/2"], psnr) == pytest.approx((7 / 3, 2.0))


def test_objects_of_another_split_are_others_despite_equal_names(make) -> None:
    psnr = named("novel_psnr")
    test, val = (make.record(name, 0, {"novel_psnr": [20.0, 21.0]}) for name in ("test", "val"))
    val = replace(val, per_object=replace(val.per_object, split=Texts.repeated(["val"], [2])))
    assert Scores.of(make.evidence(test, val), [psnr]).differences([("val/0", "test/0")], psnr) is None


def test_costs_differ_whatever_the_pictures(make) -> None:
    small, large = (
        replace(
            make.record(name, 0, {"novel_psnr": [20.0]}, config={"data": {"resolution": side}}),
            costs=costs_of({"predict_ms": float(side)}),
        )
        for name, side in (("small", 64), ("large", 128))
    )
    columns = [named("cost_predict_ms"), named("novel_psnr")]
    scores, pairs = Scores.of(make.evidence(small, large), columns), [("large/0", "small/0")]
    cost, psnr = (scores.differences(pairs, quantity) for quantity in columns)
    assert cost.tolist() == [[64.0]]
    assert psnr is None
