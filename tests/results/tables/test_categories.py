"""The table `categories`: one metric, averaged over all objects and over those of each category."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from results.table import Table
from results.tables.categories import Options, build

CATEGORIES = ["car", "car", "chair", "car", "chair"]


@pytest.fixture(scope="module")
def table(make) -> Table:
    rows = {"baseline": [20.0, 21.0, 30.0, 22.0, 31.0], "better on chairs": [20.1, 20.9, 33.0, 22.0, 34.2]}
    records = [
        make.record(name, seed, {"novel_psnr": np.array(values) + seed / 100}, categories=CATEGORIES)
        for name, values in rows.items()
        for seed in range(3)
    ]
    return build(make.evidence(*records), Options())


def test_a_column_for_all_objects_and_one_for_each_category(table: Table) -> None:
    assert [column.name for column in table.columns] == ["novel_psnr", "novel_psnr[car]", "novel_psnr[chair]"]
    assert [column.label for column in table.columns] == ["all", "car", "chair"]
    assert table.column_groups == [("Novel views: PSNR", 3)]
    means = [[cell.values[0] for cell in row.cells] for row in table.rows]
    assert means == [pytest.approx([24.8, 21.0, 30.5]), pytest.approx([26.04, 21.0, 33.6])]
    assert table.notes[-1] == "Objects by category: car 3, chair 2."


def test_each_category_is_tested_on_its_objects(table: Table) -> None:
    overall, cars, chairs = (cell.comparison for cell in table.rows[1].cells)
    assert overall.test == "paired, seeds and objects random, 5 objects, 3 seeds"
    assert (cars.difference, chairs.difference) == pytest.approx((0.0, 3.1))
    assert chairs.test == "paired, seeds and objects random, 2 objects, 3 seeds"


def test_columns_have_the_format_and_the_relevant_difference_of_the_value(make) -> None:
    value = {"metric": "x", "direction": "down", "precision": 4, "relevant": 0.5}
    records = [
        item
        for name in ("baseline", "b")
        for item in make.trained(name, 20.0, column="novel_x", categories=["a", "b"] * 10)
    ]
    table = build(make.evidence(*records), Options.model_validate({"value": value}))
    assert [(column.direction, column.precision) for column in table.columns] == [("down", 4)] * 3
    assert {cell.comparison.verdict for cell in table.rows[1].cells} == {"no difference shown"}


def test_trials_of_earlier_versions_have_no_categories(make) -> None:
    records = [make.record("baseline", 0, {"novel_psnr": [20.0, 21.0]}), make.record("failed", state="failed")]
    table = build(make.evidence(*records), Options())
    assert [column.name for column in table.columns] == ["novel_psnr"]
    assert table.notes[-1] == "Objects by category: 2 without one; trials of earlier versions did not record it."


@pytest.mark.parametrize("value", ["cost_train_min", {"metric": "psnr", "category": "car"}])
def test_only_a_score_of_all_objects_has_categories(value: object) -> None:
    with pytest.raises(ValidationError, match="must be a metric on one kind of views, such as novel_psnr, over all"):
        Options.model_validate({"value": value})
