import json
from pathlib import Path

import pytest

from sweep.file.load import Mistake, SweepError, load_sweep
from sweep.plan.grid import expand

PARENT = """\
name: parent
base:
  train: {batch_size: 8, stages: [{iterations: 5, lr: 1e-4, losses: {l2: 1.0}}]}
  depth.model: oracle
trials:
  baseline: {}
  wide: {model.base_dim: 32, model: {num_blocks: 2}}
seeds: [0, 1, 2]
run: {executor: inline, log_every: 7}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "parent.yaml").write_text(PARENT)
    return tmp_path


def _child(folder: Path, text: str) -> Path:
    path = folder / "child.yaml"
    path.write_text(f"name: child\nextends: shared/parent.yaml\n{text}")
    return path


def _mistakes(path: Path, *overrides: str) -> list[Mistake]:
    with pytest.raises(SweepError) as caught:
        load_sweep(path, overrides)
    return caught.value.mistakes


def _places(path: Path, *overrides: str) -> list[tuple[str, int | None, int | None, str]]:
    return [(Path(m.file).name, m.line, m.column, m.path) for m in _mistakes(path, *overrides)]


def test_missing_keys_are_inherited(folder: Path) -> None:
    child, parent = load_sweep(_child(folder, "")), load_sweep(folder / "shared" / "parent.yaml")
    assert child.name == "child"
    assert expand(child) == expand(parent)
    assert child.run == parent.run


def test_mappings_merge_and_all_else_replaces(folder: Path) -> None:
    sweep = load_sweep(_child(folder, "seeds: [7]\nrun: {log_every: 9}\ntrials: {more: {depth.model: none}}\n"))
    assert sweep.seeds == (7,)
    assert (sweep.run.executor, sweep.run.log_every) == ("inline", 9)
    assert list(sweep.trials) == ["baseline", "wide", "more"]


def test_an_empty_section_changes_nothing(folder: Path) -> None:
    assert load_sweep(_child(folder, "base:\nseeds:\n")).seeds == (0, 1, 2)
    trials = dict(expand(load_sweep(_child(folder, "trials:\n  wide:\n  new:\n"))))
    assert trials["wide"].model.base_dim == 32
    assert trials["new"] == trials["baseline"]


@pytest.mark.parametrize("base", ["{train.batch_size: 2}", "{train: {batch_size: 2}}"])
def test_keys_of_a_configuration_merge_however_they_are_written(folder: Path, base: str) -> None:
    sweep = load_sweep(_child(folder, f"base: {base}\ntrials: {{wide: {{model: {{base_dim: 8}}}}}}\nseeds: [0]\n"))
    configs = dict(expand(sweep))
    assert configs["baseline"].train.batch_size == 2
    assert configs["baseline"].train.iterations == 5, "the other keys of the section stay"
    assert (configs["wide"].model.base_dim, configs["wide"].model.num_blocks) == (8, 2)


def test_what_is_set_last_is_on_top_also_of_its_parts(folder: Path) -> None:
    parts = load_sweep(_child(folder, "base: {train.stages.0.lr: 0.5}\nseeds: [0]\n"))
    assert dict(expand(parts))["baseline"].train.stages[0].lr == 0.5
    grandchild = folder / "grandchild.yaml"
    stages = "{train: {stages: [{iterations: 3, lr: 0.25, losses: {l1: 1.0}}]}}"
    grandchild.write_text(f"name: c\nextends: child.yaml\nbase: {stages}\n")
    [stage] = dict(expand(load_sweep(grandchild)))["baseline"].train.stages
    assert (stage.iterations, stage.lr) == (3, 0.25)


def test_mistakes_point_into_the_file_that_makes_them(folder: Path) -> None:
    parent = folder / "shared" / "parent.yaml"
    parent.write_text(PARENT.replace("wide: {", "wide: {render.backend: cpuu, ").replace("log_every: 7", "log_evry: 7"))
    path = _child(folder, "base:\n  train.batch_size: 0\ntrials:\n  wide: {model.num_blocks: -1}\nsedes: [0]\n")
    assert _places(path, "base.model.base_dim=3") == [
        ("child.yaml", 4, 21, "base.train.batch_size"),
        ("child.yaml", 6, 28, "trials.wide.model.num_blocks"),
        ("child.yaml", 7, 1, "sedes"),
        ("parent.yaml", 7, 26, "trials.wide.render.backend"),
        ("parent.yaml", 9, 25, "run.log_evry"),
        ("--set base.model.base_dim", None, None, "base.model.base_dim"),
    ]


def test_a_duplicate_key_is_located_in_its_file(folder: Path) -> None:
    path = _child(folder, "base: {train.batch_size: 2, train: {batch_size: 4}}\n")
    assert _places(path) == [("child.yaml", 3, 37, "base.train.batch_size")]


def test_files_cannot_extend_each_other_in_a_circle(folder: Path) -> None:
    path = _child(folder, "")
    (folder / "shared" / "parent.yaml").write_text("name: p\nextends: ../child.yaml\n")
    [mistake] = _mistakes(path)
    assert (Path(mistake.file).name, mistake.line, mistake.column) == ("parent.yaml", 2, 10)
    assert "child.yaml -> parent.yaml -> child.yaml" in mistake.message
    path.write_text("name: a\nextends: child.yaml\n")
    assert "child.yaml -> child.yaml" in _mistakes(path)[0].message


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("absent.yaml", "there is no such file"),
        ("shared", "there is no such file"),
        (json.dumps("x" * 400), "there is no such file"),
        ('"a\\0b"', "there is no such file"),
        ("5", "must be text; got 5"),
        ("[a.yaml]", "must be text"),
        ("shared/list.yaml", "is no mapping"),
        ("shared/empty.yaml", "is no mapping"),
    ],
)
def test_each_mistake_about_the_other_file(folder: Path, value: str, part: str) -> None:
    (folder / "shared" / "list.yaml").write_text("[1]\n")
    (folder / "shared" / "empty.yaml").write_text("")
    path = folder / "child.yaml"
    path.write_text(f"name: child\nextends: {value}\n")
    [mistake] = _mistakes(path)
    assert part in str(mistake)
    assert (mistake.line, mistake.column, mistake.path) == (2, 10, "extends")


def test_the_other_files_syntax_errors_stand_there(folder: Path) -> None:
    (folder / "shared" / "parent.yaml").write_text("base: [\n")
    assert _places(_child(folder, "")) == [("parent.yaml", 2, 1, "")]


def test_the_command_line_cannot_set_extends(folder: Path) -> None:
    [mistake] = _mistakes(_child(folder, ""), "extends=other.yaml")
    assert "must be set in the file" in mistake.message


def test_tables_are_files_beside_the_file_that_names_them(folder: Path) -> None:
    (folder / "shared" / "mine.yaml").write_text("tables: [{kind: auto, name: mine}]")
    parent = folder / "shared" / "parent.yaml"
    parent.write_text(PARENT + "tables: [auto, mine.yaml]\n")
    expected = ("auto", str(folder / "shared" / "mine.yaml"))
    assert load_sweep(parent).tables == load_sweep(_child(folder, "")).tables == expected
    found = _mistakes(_child(folder, "tables: [mine.yaml, auto, aut]\n"))
    assert [(m.line, m.column, m.path) for m in found] == [(3, 27, "tables.2")]
    [mistake] = _mistakes(_child(folder, "tables: [mine.yaml]\n"))
    assert (mistake.line, mistake.column, mistake.message) == (3, 10, "there is no such file")


def test_mistakes_in_a_table_file_are_found_before_anything_runs(folder: Path) -> None:
    """All of them, each with its place in that file."""
    (folder / "mine.yaml").write_text(TABLE_FILE)
    found = _mistakes(_child(folder, "tables: [auto, mine.yaml]\nseeds: [-1]\n"))
    assert [(Path(m.file).name, m.line, m.column, m.path, m.message, m.nearest) for m in found] == [
        ("child.yaml", 4, 9, "seeds.0", "must be at least 0", None),
        ("mine.yaml", 2, 11, "tables.0.kind", "unknown kind", "rows"),
        ("mine.yaml", 3, 5, "tables.1", "not a mapping of keys to values", None),
        ("mine.yaml", 4, 5, "tables.2.caption", "missing key", None),
        ("mine.yaml", 4, 5, "tables.2.captoin", "unknown key", "caption"),
        ("mine.yaml", 5, 39, "tables.2.columns.1.precision", "must be a whole number", None),
    ]


TABLE_FILE = """tables:
  - kind: rowz
  - pivot
  - captoin: Mine
    columns: [novel_psnr, {precision: two, metric: psnr}]
    name: mine
    sections: [{rows: [{label: a}]}]
"""


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("tables:\n  - [", 2, 6, "not valid YAML"),
        ("- tables", 1, 1, "a table file holds the one key `tables`"),
        ("", 1, 1, "a table file holds the one key `tables`"),
        ("tables:\n  - {kind: auto, kind: pivot}", 2, 18, "this key is given twice"),
        ("tables:\n  - {kind: [auto]}", 2, 12, "unknown kind"),
    ],
)
def test_what_is_wrong_in_a_table_file_is_a_mistake_at_its_place(
    folder: Path, text: str, line: int, column: int, message: str
) -> None:
    (folder / "mine.yaml").write_text(text)
    [mistake] = _mistakes(_child(folder, "tables: [mine.yaml]\n"))
    assert (Path(mistake.file).name, mistake.line, mistake.column) == ("mine.yaml", line, column)
    assert message in mistake.message
