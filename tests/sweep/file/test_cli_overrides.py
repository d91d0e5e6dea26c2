from typing import Any

import pytest

from sweep.file.cli_overrides import assign
from sweep.file.yaml_reader import Document, parse

FILE = """
name: a
base: {train: {batch_size: 8}, data.resolution: 32}
trials: {"dino v1.5": {depth.model: none}, plain: }
grid:
  - axes: {depth.model: [none]}
seeds: [0, 1]
"""


def _assigned(*overrides: str) -> Document:
    document = parse(FILE, "s.yaml")
    assign(document, overrides)
    return document


@pytest.mark.parametrize(
    ("override", "section", "expected"),
    [
        ("seeds=[3, 4]", "seeds", [3, 4]),
        ("seeds.1=7", "seeds", [0, 7]),
        ("name=b", "name", "b"),
        ("run.executor=inline", "run", {"executor": "inline"}),
        ("base.train.batch_size=4", "base", {"train": {}, "data.resolution": 32, "train.batch_size": 4}),
        ("base.data.resolution=64", "base", {"train": {"batch_size": 8}, "data.resolution": 64}),
        ("trials.plain.seed=1e-5", "trials", {"dino v1.5": {"depth.model": "none"}, "plain": {"seed": 1e-5}}),
        ("trials.dino v1.5.depth.model=oracle", "trials", {"dino v1.5": {"depth.model": "oracle"}, "plain": None}),
        ("grid.0.axes.depth.model=[oracle]", "grid", [{"axes": {"depth.model": ["oracle"]}}]),
    ],
)
def test_values_are_set_at_their_key(override: str, section: str, expected: Any) -> None:
    document = _assigned(override)
    assert document.mistakes == []
    assert document.value[section] == expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("grid.0.when.d.fusion.d.model", {"grid": [{"when": {"d.fusion": {"d.model": [1]}}}]}),
        ("grid.0.when.d.fusion.d.other", {"grid": [{"when": {"d.fusion": {"d.model": [0], "d.other": [1]}}}]}),
        ("search.space.t.size.low", {"search": {"space": {"t.size": {"low": [1]}}}}),
        ("search.space.d.model", {"search": {"space": {"t.size": {"low": 2}, "d.model": [1]}}}),
        ("search.space.when", {"search": {"space": {"t.size": {"low": 2}, "when": [1]}}}),
        ("baseline.d.fusion", {"baseline": {"d.model": 0, "d.fusion": [1]}}),
    ],
)
def test_names_of_axes_have_dots(key: str, expected: dict[str, Any]) -> None:
    document = parse(
        "{grid: [{when: {d.fusion: {d.model: [0]}}}], search: {space: {t.size: {low: 2}}}, baseline: {d.model: 0}}", "s"
    )
    whole = dict(document.value)
    assign(document, [f"{key}=[1]"])
    assert document.mistakes == []
    assert document.value == whole | expected


def test_what_was_set_is_placed_on_the_command_line() -> None:
    document = _assigned("base.train.batch_size=4")
    place = document.place(("base", "train.batch_size"))
    assert (place.file, place.line, place.column) == ("--set base.train.batch_size", None, None)
    assert document.place(("base", "data.resolution")).file == "s.yaml"


def test_of_two_for_one_key_the_later_holds() -> None:
    assert _assigned("seeds=[1]", "seeds=[2]").value["seeds"] == [2]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds", "--set seeds: must have the form KEY=VALUE; got 'seeds'"),
        ("=1", "must have the form KEY=VALUE"),
        ("seeds=[1", "--set seeds: not valid YAML"),
        ("seeds={a: 1, a: 2}", "given twice"),
        ("seeds.2=1", "has 2 elements, reached by index; got '2'; allowed: 0, 1"),
        ("name.x=1", "--set name.x: name: has no keys, so 'x' does not exist"),
        ("trials.plane.seed=1", "no such trial; got 'plane'; allowed: dino v1.5, plain; did you mean 'plain'?"),
    ],
)
def test_keys_that_do_not_exist_are_reported(override: str, message: str) -> None:
    document = _assigned(override)
    [mistake] = document.mistakes
    assert message in str(mistake)
    assert mistake.line is None
    assert document.value == parse(FILE, "s.yaml").value


@pytest.mark.parametrize("key", ["train.batch_size", "base.train.batch_size"])
def test_a_key_of_a_configuration_stands_in_base(key: str) -> None:
    document = _assigned(f"{key}=4")
    assert document.mistakes == []
    assert document.value["base"] == {"train": {}, "data.resolution": 32, "train.batch_size": 4}


def test_a_whole_section_of_a_configuration_stands_in_base() -> None:
    assert _assigned("train={batch_size: 2}").value["base"]["train"] == {"batch_size": 2}
