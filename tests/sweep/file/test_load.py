import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.data import DATASETS
from sweep.file.load import Mistake, Sweep, SweepError, load_sweep
from sweep.file.yaml_reader import parse
from sweep.plan.grid import expand

EVERYTHING = """\
name: paper
base:
  data: {name: chairs, resolution: 32, options: {views: 4}}
  train:
    batch_size: 8
    stages:
      - {iterations: 20, lr: 5.0e-5, losses: {l2: 1.0}}
      - {iterations: 10, lr: 5e-6, losses: {l2: 0.99, lpips: 0.01}}
trials:
  baseline: {}
  context: {semantic.encoder: efficientnet_lite0, semantic.fusion: xattn}
grid:
  - axes: {depth.model: [none, oracle], depth.fusion: [input, xattn]}
    exclude: [{depth.model: none, depth.fusion: xattn}]
    zip: []
  - axes: {train.batch_size: [2, 4], train.stages.0.lr: [1e-4, 1e-3]}
    when: {train.stages.0.lr: {train.batch_size: [2]}}
leave_one_out: [train.stages.*.losses.lpips]
seeds: [0, 1, 2]
search:
  space:
    train.stages.0.losses.tv.weight: {low: 1e-4, high: 1, log: true}
    train.batch_size: {low: 2, high: 8, int: true}
    depth.model: [none, oracle]
  trials: 30
  sampler: tpe
tables: [auto]
run: {executor: ray, cpus_per_trial: 1, gpus_per_trial: 0, max_concurrent: null, max_failures: 2}
tracking: {uri: null, experiment: null}
"""


def _load(folder: Path, text: str, *overrides: str) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(text)
    return load_sweep(path, overrides)


def _found(folder: Path, text: str) -> list[Mistake]:
    try:
        _load(folder, text)
    except SweepError as error:
        return error.mistakes
    return []


def _mistakes(folder: Path, text: str, *overrides: str) -> list[Mistake]:
    with pytest.raises(SweepError) as caught:
        _load(folder, text, *overrides)
    return caught.value.mistakes


def test_a_complete_file_is_read(tmp_path: Path) -> None:
    sweep = _load(tmp_path, EVERYTHING)
    assert sweep.seeds == (0, 1, 2)
    assert sweep.trials["baseline"] == {}
    assert sweep.grid[0].axes["depth.model"] == ("none", "oracle")
    assert (sweep.run.executor, sweep.run.log_every, sweep.run.checkpoint_every) == ("ray", 50, 500)


def test_only_the_name_is_required(tmp_path: Path) -> None:
    sweep = _load(tmp_path, "name: a\ngrid:\nrun:\n")
    assert (sweep.seeds, sweep.tables, sweep.grid, sweep.search) == ((0,), ("auto",), (), None)


def test_all_mistakes_are_found_at_once_each_at_its_place(tmp_path: Path) -> None:
    text = """\
name: paper
base:
  data: {name: chars, resolution: 36}
  depth:
    fusion: xattn
  train:
    batch_size: eight
    stages:
      - {iterations: -5, lr: 1e-5, losses: {l2: 1.0, l3: 0.5}}
      - {iterations: 5, losses: {l2: 1.0}}
  modl: {base_dim: 16}
trials:
  a: {semantic.encodr: clip, train.stages.5.lr: 1.0e-3}
  b: {render.backend: cpu, eval: {split: tset}}
sedes: [0]
run: {executor: rai}
"""
    found = {(m.line, m.column): (m.path, m.nearest) for m in _mistakes(tmp_path, text)}
    assert found == {
        (3, 16): ("base.data.name", "chairs"),
        (3, 35): ("base.data.resolution", None),
        (5, 5): ("base.depth.fusion", None),
        (7, 17): ("base.train.batch_size", None),
        (9, 22): ("base.train.stages.0.iterations", None),
        (9, 54): ("base.train.stages.0.losses.l3", "l2"),
        (10, 9): ("base.train.stages.1.lr", None),
        (11, 3): ("base.modl", "model"),
        (13, 7): ("trials.a.semantic.encodr", "encoder"),
        (13, 30): ("trials.a.train.stages.5.lr", None),
        (14, 42): ("trials.b.eval.split", "test"),
        (15, 1): ("sedes", "seeds"),
        (16, 17): ("run.executor", "ray"),
    }


@pytest.mark.parametrize(
    "block", ["5", "{}", "{axes: {depth.model: none}}", "{depth.model: [none]}", "{axes: 3, zip: 4}"]
)
def test_a_malformed_block_of_a_grid_hides_no_mistake_in_others(tmp_path: Path, block: str) -> None:
    text = f"name: a\ngrid: [{{axes: {{depth.modl: [x]}}}}, {block}, {{axes: {{train.batch_size: [0]}}}}]\n"
    paths = [mistake.path for mistake in _mistakes(tmp_path, text)]
    assert {"grid.0.axes.depth.modl", "grid.2.axes.train.batch_size.0"} <= set(paths)
    assert all(path.startswith("grid.1") for path in paths if "depth.modl" not in path and "batch_size" not in path)
    assert len(paths) > 2


@pytest.mark.parametrize(
    "text", ["name: a\nseeds: [-1, x, 1.5]\n", "seeds: [0]\n", "name: a\ntables: [x, y]\ntags: {'a;': 1}\n"]
)
def test_mistakes_elsewhere_hide_none_in_the_configurations(tmp_path: Path, text: str) -> None:
    content = text + "base: {train: {batch_size: 0}}\ntrials: {b: {train.views_per_object: x}}\n"
    paths = [mistake.path for mistake in _mistakes(tmp_path, content)]
    assert {"base.train.batch_size", "trials.b.train.views_per_object"} <= set(paths)
    assert len(paths) > 2


@pytest.mark.parametrize(
    "key",
    [
        "train.batch_size",
        "train.stages.0.iterations",
        "eval.objects",
        "eval.every",
        "data.options.views",
        "data.options.train",
    ],
)
def test_a_number_beyond_all_bounds_is_refused(tmp_path: Path, key: str) -> None:
    text = "name: a\nbase: {train: {stages: [{iterations: 1, lr: 1e-4, losses: {l2: 1}}]}}\n"
    (mistake,) = _mistakes(tmp_path, text, f"base.{key}={10**30}")
    assert "less than or equal to" in str(mistake) or "must be at most" in str(mistake)


@pytest.mark.parametrize("tag", ["/a", "a/", "a//b", "a/../b", "a/./b", ".", "..", "../a", "a;", "mlflow.user"])
def test_a_tag_that_mlflow_refuses_is_a_mistake(tmp_path: Path, tag: str) -> None:
    (mistake,) = _mistakes(tmp_path, f"name: a\ntags: {{'{tag}': x}}\n")
    assert mistake.path.startswith("tags")


def test_a_tag_may_have_parts(tmp_path: Path) -> None:
    sweep = _load(tmp_path, "name: a\ntags: {a/b.c: x, 'a: b': y, .hidden: z}\n")
    assert sweep.tags == {"a/b.c": "x", "a: b": "y", ".hidden": "z"}


def test_a_mistake_is_one_readable_line(tmp_path: Path) -> None:
    [mistake] = _mistakes(tmp_path, "name: a\nbase:\n  data:\n    name: chars\n")
    assert str(mistake) == (
        f"{tmp_path}/sweep.yaml:4:11: base.data.name: unknown dataset; got 'chars'; "
        f"allowed: {', '.join(sorted(DATASETS))}; did you mean 'chairs'?"
    )
    assert (mistake.value, mistake.nearest) == ("chars", "chairs")


def test_a_mistake_in_base_is_reported_once_for_all_trials(tmp_path: Path) -> None:
    text = "name: a\nbase: {train.batch_size: 0}\ntrials: {a: {}, b: {}}\ngrid: [{axes: {train.stages.*.lr: [1, 2]}}]\n"
    assert [m.path for m in _mistakes(tmp_path, text)] == ["base.train.batch_size"]


@pytest.mark.parametrize(
    ("line", "column", "path", "part"),
    [
        ("base: 5", 7, "base", "must be a mapping"),
        ("base: {seed: 1}", 8, "base.seed", "set by `seeds`"),
        ("base: {train: {batch_size: 1}, train.batch_size: 2}", 32, "base.train.batch_size", "set twice"),
        ("base: {train.batch_size: 2.5}", 26, "base.train.batch_size", "must be a whole number; got 2.5"),
        ("base: {train.batch_size: true}", 26, "base.train.batch_size", "must be a whole number; got true"),
        ("base: {train.ema: off}", 19, "base.train.ema", "must be a mapping of keys to values, or null; got 'off'"),
        ("base: {train.ema: on}", 19, "base.train.ema", "must be a mapping of keys to values, {} for its defaults"),
        ("base: {train.ema: true}", 19, "base.train.ema", "must be a mapping of keys to values, {} for its defaults"),
        ("base: {eval.every: 0}", 20, "base.eval.every", "must be greater than 0, or null; got 0"),
        ("base: {train.stages: []}", 22, "base.train.stages", "train.stages is empty, so there is no network to"),
        ("base: {train.start: clip_vit_b32}", 21, "base.train.start", "unknown trained network"),
        (
            "base: {train.stages.*.losses.tv: null}",
            34,
            "base.train.stages.*.losses.tv",
            "must be a weight, or a mapping with",
        ),
        ("base: {train.stages.*.lr: .inf}", 27, "base.train.stages.*.lr", "must be a finite number"),
        ("base: {data.options: {veiws: 3}}", 23, "base.data.options.veiws", "did you mean 'views'"),
        ("base: {model.channel_mult: [1, 1, 1, 1, 1, 1, 1]}", 28, "base.model.channel_mult", "cannot be halved"),
        ("base: {semantic: {preprocess: correct}}", 19, "base.semantic.preprocess", "semantic.encoder is 'none'"),
        (
            "base: {depth: {model: oracle, fusion: concat}}",
            39,
            "base.depth.fusion",
            "the output of this model (map)",
        ),
        ("trials: {blank: {}}", 10, "trials.blank", "reserved for a row"),
        ("trials: {' a': {}}", 10, "trials. a", "printable characters"),
        ("trials: {a: 5}", 13, "trials.a", "must be a mapping"),
        (
            "trials: {a: {train.stages.*.losses.tv: 1, train.stages: [{iterations: 1, lr: 1, losses: {l2: 1}}]}}",
            14,
            "trials.a.train.stages.*.losses.tv",
            "a later key replaces it",
        ),
        (
            "trials: {a: {train.stages.0.losses.tv: 0.1, train.stages.0.losses.tv.weight: 0.2}}",
            14,
            "trials.a.train.stages.0.losses.tv",
            "a later key replaces it",
        ),
        (
            "grid: [{axes: {train.stages.0.lr: [1], train.stages.*.lr: [2, 3]}}]",
            36,
            "grid.0.axes.train.stages.0.lr.0",
            "a later key replaces it",
        ),
        ("grid: [{axes: {}}]", 15, "grid.0.axes", "must have 1 or more entries"),
        ("grid: [{}]", 8, "grid.0.axes", "missing key"),
        ("grid: [{axes: {depth.model: []}}]", 29, "grid.0.axes.depth.model", "must have 1 or more entries"),
        ("grid: [{axes: {depth.modl: [a, b]}}]", 16, "grid.0.axes.depth.modl", "did you mean 'model'"),
        ("grid: [{axes: {depth.model: [none, orcle]}}]", 36, "grid.0.axes.depth.model.1", "did you mean 'oracle'"),
        ("grid: [{axes: {train.batch_size: [4, 8, 4]}}]", 41, "grid.0.axes.train.batch_size.2", "given twice"),
        ("leave_one_out: [depth.model]", 17, "leave_one_out.0", "base has no such component"),
        ("leave_one_out: [train.stages.*.losses.tv]", 17, "leave_one_out.0", "base has no such loss"),
        ("leave_one_out: [dept.model]", 17, "leave_one_out.0", "did you mean 'depth.model'"),
        ("leave_one_out: [train.stages.0.losses.l2]", 17, "leave_one_out.0", "1 or more entries"),
        ("base: {train.stages.0.losses.l2: 0}", 7, "base", "one of the losses must have a weight"),
        ("seeds: []", 8, "seeds", "must have 1 or more entries"),
        ("seeds: [0, 1, 0]", 15, "seeds.2", "given twice"),
        ("seeds: [-1]", 9, "seeds.0", "must be at least 0"),
        ("seeds: 3", 8, "seeds", "must be a list; got 3"),
        ("search: {trials: 5}", 9, "search.space", "missing key"),
        ("trials: {search-0001: {}}", 10, "trials.search-0001", "reserved for trials that a search proposes"),
        ("tables: [pape]", 10, "tables.0", "unknown table"),
        ("run: {cpus_per_trial: 0}", 23, "run.cpus_per_trial", "must be at least 1"),
        ("run: {log_evry: 1}", 7, "run.log_evry", "did you mean 'log_every'"),
        ("tracking: {uri: 5}", 17, "tracking.uri", "must be text"),
        ("tracking: {uri: 'postgres://h/b'}", 17, "tracking.uri", "did you mean 'postgresql://'"),
        ("tracking: {uri: 'sqlite:///mlflow.db'}", 17, "tracking.uri", "must be absolute"),
        ("tracking: {uri: 'http://:5000'}", 17, "tracking.uri", "lacks a host"),
    ],
)
def test_each_kind_of_mistake(tmp_path: Path, line: str, column: int, path: str, part: str) -> None:
    [mistake] = _mistakes(tmp_path, f"name: a\n{line}\n")
    assert part in str(mistake)
    assert (mistake.line, mistake.column) == (2, column)
    assert mistake.path.startswith(path)


@pytest.mark.parametrize(
    ("select", "part"),
    [
        ("{depth.modl: none}", "got 'depth.modl'; allowed: depth.model.*did you mean 'depth.model'"),
        ("{trail: x}", "got 'trail'; allowed: trial, data.*did you mean 'trial'"),
        ("{model.base_dm: 16}", "did you mean 'model.base_dim'"),
        ("{'dpth.*': null, train.lossess: 1}", "did you mean 'depth'"),
    ],
)
@pytest.mark.parametrize(
    ("table", "place"),
    [
        ("kind: rows, sections: [{rows: [{label: a, select: SELECT}]}]", "sections.0.rows.0.select"),
        ("kind: rows, sections: [{rows: [{label: a}]}], baseline: {label: b, select: SELECT}", "baseline.select"),
        ("kind: pivot, select: SELECT", "select"),
    ],
)
def test_tables_select_by_settings_that_trials_can_have(
    tmp_path: Path, select: str, part: str, table: str, place: str
) -> None:
    (tmp_path / "mine.yaml").write_text(f"tables: [{{name: mine, caption: c, {table.replace('SELECT', select)}}}]")
    mistakes = _mistakes(tmp_path, "name: a\ntables: [auto, mine.yaml]\n")
    assert all(m.path == f"tables.0.{place}.{m.value}" and m.file.endswith("mine.yaml") for m in mistakes)
    assert re.search(part, str(mistakes[0]))


def test_the_axes_of_a_pivot_are_settings_that_trials_can_have(tmp_path: Path) -> None:
    pivots = ["name: a, rows: tv, columns: depth.model", "name: b, rows: depth.modl"]
    lines = [f"- {{kind: pivot, {pivot}}}\n" for pivot in pivots]
    (tmp_path / "mine.yaml").write_text("tables:\n" + "".join(lines))
    [mistake] = _mistakes(tmp_path, "name: a\ntables: [mine.yaml]\n")
    assert (mistake.line, mistake.value, mistake.nearest) == (3, "depth.modl", "depth.model")
    assert mistake.message == "an axis is an unknown key"


@pytest.mark.parametrize(
    "select",
    ["{trial: 'a*'}", "{depth.model: none}", "{'train.stages.*.losses.tv': 0.1}", "{model.gaussians_per_pixel: 2}"],
)
def test_tables_may_select_by_what_these_trials_lack(tmp_path: Path, select: str) -> None:
    rows = f"sections: [{{rows: [{{label: a, select: {select}}}]}}]"
    (tmp_path / "mine.yaml").write_text(f"tables: [{{name: mine, caption: c, {rows}}}]")
    (tmp_path / "sweep.yaml").write_text("name: a\ntables: [mine.yaml]\n")
    assert load_sweep(tmp_path / "sweep.yaml").tables == (str(tmp_path / "mine.yaml"),)


def test_two_tables_of_one_name_are_a_mistake_of_the_sweep_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("tables: [{kind: auto, name: auto, caption: c}]")
    [mistake] = _mistakes(tmp_path, "name: a\ntables: [auto, mine.yaml]\n")
    assert "two tables are called 'auto'" in str(mistake)


def test_a_path_with_unprintable_characters_is_shown_as_it_is_written(tmp_path: Path) -> None:
    [mistake] = _mistakes(tmp_path, 'name: a\ntrials: {"b\\e[31m": {}}\n')
    assert "trials.b\\x1b[31m: " in str(mistake)


@pytest.mark.parametrize(
    "line",
    [
        "tracking: {uri: 'postgres://me:secret@h/b'}",
        "tracking: {uri: ['postgresql://me:secret@h/b']}",
        "tracking: 'postgresql://me:secret@h/b'",
        "tracking: {'postgresql://me:secret@h/b': null}",
        f"tracking: {{uri: 'postgres://me:{'very' * 20}secret@h/b'}}",
    ],
)
def test_mistakes_quote_no_password(tmp_path: Path, line: str) -> None:
    [mistake] = _mistakes(tmp_path, f"name: a\n{line}\n")
    assert "me:***@h/b" in str(mistake)
    assert "secret" not in str(mistake)
    assert "very" not in str(mistake)


@pytest.mark.parametrize(
    ("block", "column", "part"),
    [
        ("exclude: [{train.batchsize: 4}]", 16, "not an axis of this block"),
        ("exclude: [{train.batch_size: 5}]", 34, "not a value of this axis; got 5; allowed: 4, 8"),
        ("exclude: [{}]", 15, "must name one or more axes"),
        ("exclude: [{train.batch_size: 4}, {train.batch_size: 8}]", 14, "leaves no point"),
        ("zip: [[train.batch_size, train.views]]", 30, "not an axis of this block"),
        ("zip: [[train.batch_size, train.stages.*.lr]]", 11, "train.batch_size has 2, train.stages.*.lr has 3"),
        ("zip: [[train.batch_size]]", 11, "must name two or more axes"),
        ("when: {train.batchsize: {train.batch_size: 4}}", 12, "not an axis of this block"),
        ("when: {train.batch_size: {train.stages.*.rl: 1e-3}}", 31, "not an axis of this block"),
        ("when: {train.batch_size: {train.stages.*.lr: 1e-2}}", 50, "not a value of this axis; got 0.01"),
        ("when: {train.batch_size: {train.stages.*.lr: [1e-3, 1]}}", 57, "not a value of this axis; got 1;"),
        ("when: {train.batch_size: {train.stages.*.lr: []}}", 50, "must have 1 or more entries"),
        ("when: {train.batch_size: {}}", 30, "must have 1 or more entries"),
        ("when: {train.batch_size: {train.batch_size: 4}}", 12, "an axis cannot depend on itself"),
        ("when: [train.batch_size]", 11, "must be a mapping"),
    ],
)
def test_each_mistake_of_a_block(tmp_path: Path, block: str, column: int, part: str) -> None:
    axes = "axes: {train.batch_size: [4, 8], train.stages.*.lr: [1e-3, 1e-4, 1e-5]}"
    [mistake] = _mistakes(tmp_path, f"name: a\ngrid:\n  - {axes}\n    {block}\n")
    assert part in str(mistake)
    assert (mistake.line, mistake.column) == (4, column)


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("", 1, "the file is empty"),
        ("# nothing\n", 1, "the file is empty"),
        ("- a\n", 1, "a mapping of keys"),
        ("base: {}\n", 1, "name: missing key"),
        ("name: a/b\n", 1, "must be at most 100 letters"),
        ("name: a\nname: b\n", 2, "given twice"),
        ("name: a\nbase: [\n", 3, "not valid YAML"),
    ],
)
def test_files_that_are_no_sweep(tmp_path: Path, text: str, line: int, part: str) -> None:
    [mistake] = _mistakes(tmp_path, text)
    assert part in str(mistake)
    assert mistake.line == line


@pytest.mark.parametrize(
    ("name", "command"),
    [("absent.yaml", "init"), ("quick", "init quick --out quick.yaml"), ("study.yaml", "init study --out study.yaml")],
)
def test_a_missing_file_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SweepError, match=f"{name}: there is no such file; `splatsweep {command}` writes one"):
        load_sweep(Path(name))


def test_a_fusion_is_fine_where_some_trial_has_a_model(tmp_path: Path) -> None:
    on_axis = "name: a\ngrid: [{axes: {depth.model: [none, oracle], depth.fusion: [input, xattn]}}]\n"
    inherited = "name: a\nbase: {depth.fusion: xattn}\ntrials: {a: {}, b: {depth.model: oracle}}\n"
    overridden = "name: a\nbase: {depth: {model: oracle, fusion: xattn}}\ntrials: {a: {depth.model: none}, b: {}}\n"
    for text in (on_axis, inherited, overridden):
        _load(tmp_path, text)


def test_a_fusion_that_only_excluded_points_would_use_has_no_effect(tmp_path: Path) -> None:
    text = """\
name: a
grid:
  - axes: {depth.model: [none, oracle], depth.fusion: [input, xattn]}
    exclude: [{depth.model: oracle, depth.fusion: xattn}]
"""
    [mistake] = _mistakes(tmp_path, text)
    assert (mistake.line, mistake.column, mistake.value) == (3, 63, "xattn")


def test_a_name_can_be_taken_once(tmp_path: Path) -> None:
    text = (
        "name: a\nbase: {depth.model: oracle}\ntrials:\n  full: {train.batch_size: 2}\nleave_one_out: [depth.model]\n"
    )
    [mistake] = _mistakes(tmp_path, text)
    assert "'full' is taken by another trial, of trials.full" in mistake.message
    assert (mistake.line, mistake.column) == (5, 1)


def test_a_grid_beyond_all_bounds_is_refused_at_once(tmp_path: Path) -> None:
    axes = ", ".join(f"train.stages.*.losses.{name}: {list(range(1, 40))}" for name in ("l1", "l2", "tv", "edge"))
    [mistake] = _mistakes(tmp_path, f"name: a\ngrid: [{{axes: {{{axes}}}}}]\n")
    assert "2313441 trials" in mistake.message


def test_values_set_on_the_command_line_are_part_of_the_sweep(tmp_path: Path) -> None:
    sweep = _load(tmp_path, EVERYTHING, "seeds=[7]", "base.train.batch_size=4", "run.executor=inline")
    assert sweep.seeds == (7,)
    assert sweep.base["train.batch_size"] == 4
    assert sweep.run.executor == "inline"


def test_mistakes_on_the_command_line_stand_there(tmp_path: Path) -> None:
    found = _mistakes(tmp_path, EVERYTHING, "base.train.batch_size=none", "runn.executor=ray", "seeds=[1, 1]")
    assert [str(mistake) for mistake in found] == [
        "--set runn.executor: runn: unknown key; got 'runn'; allowed: name, notes, tags, extends, base, trials, grid, "
        "leave_one_out, baseline, primary, seeds, search, tables, run, tracking; did you mean 'run'?",
        "--set seeds: seeds.1: is given twice; got 1",
        "--set base.train.batch_size: base.train.batch_size: must be a whole number; got 'none'",
    ]


_SNIPPETS = st.sampled_from(
    ["", " ", "\n", ":", "[", "]", "{", "}", "-", "*", ".", "0", "null", "x", "&a ", "*a", "!", "'", "#"]
)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_file_loads_or_has_located_mistakes(tmp_path: Path, data: st.DataObject) -> None:
    text = EVERYTHING
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(start + 12, len(text))))
        text = text[:start] + data.draw(_SNIPPETS) + text[stop:]
    placed = [(m.line, m.column) for m in _found(tmp_path, text)]
    assert all(line and column for line, column in placed)


_VALUES = st.sampled_from(
    [None, 0, -1, 1.5, True, "x", "none", "oracle", "*", "", [], {}, [1], [None], [{}], {"a.b": {"c": []}}, 10**30]
)
_KEYS = st.sampled_from(
    ["", "*", "..", "a.b", "seed", "depth.model", "train.stages", "train.stages.*.lr", "axes", "zip", "when", "extends"]
)


def _containers(node: Any) -> list[Any]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    inner = [found for child in children for found in _containers(child)]
    return [node, *inner] if isinstance(node, (dict, list)) else inner


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_value_expands_or_is_a_located_mistake(tmp_path: Path, data: st.DataObject) -> None:
    tree = parse(EVERYTHING, "").value
    for _ in range(data.draw(st.integers(1, 3))):
        node, value = data.draw(st.sampled_from(_containers(tree))), deepcopy(data.draw(_VALUES))
        if isinstance(node, dict):
            node[data.draw(st.sampled_from(list(node)) | _KEYS if node else _KEYS)] = value
        else:
            node[data.draw(st.integers(0, len(node))) :] = [value]
    if data.draw(st.booleans()):
        (tmp_path / "other.yaml").write_text(EVERYTHING)
        tree = {"extends": "other.yaml", **tree}
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps(tree))
    try:
        expand(load_sweep(path))
    except SweepError as error:
        placed = [(m.line, m.column) for m in error.mistakes]
    else:
        placed = [(1, 1)]
    assert placed
    assert all(line and column for line, column in placed)


GRID = "grid: [{axes: {depth.model: [none, oracle, constant], depth.fusion: [input, xattn]}}]\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trials: {vanilla: {}, tv: {train.stages.*.losses.tv: 0.1}}\nbaseline: vanila", "did you mean 'vanilla'"),
        (GRID + "baseline: {depth.model: oracle}", "2 rows have this setting, but it must identify exactly one row"),
        (
            GRID + "baseline: {depth.modl: none}",
            "did you mean 'depth.model'",
        ),
        (GRID + "baseline: {depth.model: zoedepth}", "no row has this setting"),
        (GRID + "baseline: {depth: none}", "selects by an unknown key; got 'depth'; allowed: depth.model, "),
        (GRID + "baseline: {}", "baseline"),
        (
            "trials: {a: {model.channel_mult: [1, 2]}, b: {}}\nbaseline: {model.channel_mult: [1, 2]}",
            "a list in a list that list itself",
        ),
    ],
)
def test_a_baseline_is_one_row(tmp_path, text, expected):
    path = tmp_path / "sweep.yaml"
    path.write_text(f"name: s\n{text}\n")
    with pytest.raises(SweepError, match=expected):
        load_sweep(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("primary: novel_pnsr", "3:10: primary: unknown metric; got 'novel_pnsr'; .*did you mean 'novel_psnr'"),
        ("primary: psnr", "unknown metric; got 'psnr'; allowed: .*novel_psnr"),
        ("primary: novel_dists", "3:10: primary: row 'tv' is not evaluated by it, only by psnr, ssim, lpips"),
        ("primary: novel_dists\nbase: {eval.metrics: [psnr, dists]}", None),
        ("primary: conditioned_ssim", None),
        ("primary:", None),
    ],
)
def test_a_primary_metric_is_one_that_all_rows_are_evaluated_by(tmp_path, text, expected):
    path = tmp_path / "sweep.yaml"
    path.write_text(f"name: s\ntrials: {{tv: {{train.stages.*.losses.tv: 0.1}}}}\n{text}\n")
    if expected is None:
        assert load_sweep(path).primary == (text.split()[1] if " " in text else None)
    else:
        with pytest.raises(SweepError, match=expected):
            load_sweep(path)


@pytest.mark.parametrize("default", ["model.gaussians_per_pixel: 1", "train.keep: last", "model.backbone: unet"])
def test_a_baseline_by_the_default_of_a_key_that_came_later(tmp_path, default):
    key = default.split(":")[0]
    other = {"model.gaussians_per_pixel": "2", "train.keep": "best", "model.backbone": "transformer"}[key]
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"name: s\ntrials: {{a: {{}}, b: {{{key}: {other}}}}}\nbase: {{eval.every: 10}}\nbaseline: {{{default}}}\n"
    )
    assert load_sweep(path).baseline


@pytest.mark.parametrize(
    "baseline", ["vanilla", "{depth.model: oracle, depth.fusion: xattn}", "{depth.model: none, train.ema: null}"]
)
@pytest.mark.parametrize("seeds", ["[0]", "{at_most: 6}"])
def test_a_baseline_by_name_or_setting(tmp_path, baseline, seeds):
    path = tmp_path / "sweep.yaml"
    grid = GRID.replace("none, ", "")
    # Equal trials are one row.
    trials = "{vanilla: {}, the same: {depth.model: none}, averaged: {train.ema: {}}}"
    path.write_text(f"name: s\ntrials: {trials}\n{grid}baseline: {baseline}\nseeds: {seeds}\n")
    assert load_sweep(path).baseline


def test_rows_of_several_methods_share_a_base(tmp_path: Path) -> None:
    """Keys of `base` that a row's method does not have are ignored, and its own keys have their own defaults."""
    text = """\
name: a
base:
  model: {base_dim: 8, input_views: 2, head: {offset_scale: 0.2}}
  train.stages: [{iterations: 3, lr: 0.001, losses: {l2: 1.0}}]
trials:
  baseline: {}
  transformer: {model: {backbone: transformer, width: 32}}
  nerf: {model.name: pixelnerf, model.hidden: 32}
"""
    configs = dict(expand(_load(tmp_path, text)))
    assert configs["baseline"].model.base_dim == 8
    models = {name: config.identity()["model"] for name, config in configs.items()}
    assert models["transformer"]["width"] == 32
    assert models["transformer"]["head"]["offset_scale"] == 0.2
    assert models["nerf"]["hidden"] == 32
    assert models["nerf"]["coarse_samples"] == 64
    assert all(model["input_views"] == 2 for model in models.values())
    assert "base_dim" not in models["nerf"] | models["transformer"]
    assert "backbone" not in models["baseline"]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (
            "base: {model.name: pixelnerf, train.stages: [{iterations: 3, lr: 0.1, losses: {l2: 1, ssim: 1}}]}",
            "base.train.stages.0.losses.ssim",
            "train.stages.0.losses.ssim needs whole views, and model.name pixelnerf is trained on single pixels",
        ),
        (
            "base: {train.stages.*.losses.lpips: 0.1}\ntrials: {a: {model.name: pixelnerf}}",
            "trials.a.model.name",
            "train.stages.0.losses.lpips needs whole views",
        ),
        (
            "base: {model: {name: pixelnerf, base_dim: 8}, train.stages: [{iterations: 3, lr: 0.1, losses: {l2: 1}}]}",
            "base.model.base_dim",
            "has no effect, since no trial that inherits it has a method with this key (it belongs to splatter_image",
        ),
        ("trials: {a: {model: {backbone: transformer, num_blocks: 2}}}", "trials.a.model.num_blocks", "has no effect"),
        ("base: {model.name: splatterimage}", "base.model.name", "did you mean 'splatter_image'"),
        ("base: {model.backbone: resnet}", "base.model.backbone", "allowed: transformer, unet"),
        ("base: {model: {name: pixelnerf, hiden: 8}}", "base.model.hiden", "did you mean 'hidden'"),
        ("base: {model.head.sclae: 1.0}", "base.model.head.sclae", "did you mean 'scale_bias'"),
        ("base: {model.sh_degree: 2}", "base.model.sh_degree", "allowed: 0, 1"),
        (
            "base: {model.backbone: transformer, semantic: {encoder: clip_vit_b32, fusion: concat}}",
            "base.semantic.fusion",
            "enters at the bottleneck, which the network (model.backbone transformer) does not have",
        ),
        (
            "base: {depth: {model: oracle, fusion: film}}\ntrials: {a: {}, b: {data.resolution: 128}}",
            "trials.b.data.resolution",
            "no level has such a side: at data.resolution 128 the U-Net's levels have 128, 64, 32, 16",
        ),
        (
            "base: {train.stages.0.losses.tv: {weight: 0.1, start: 20}}\ntrials: {a: {train.stages.0.iterations: 10}}",
            "trials.a.train.stages.0.iterations",
            "losses.tv.start 20 is not below train.stages.0.iterations 10",
        ),
        (
            "base: {model.name: pixelnerf, render.antialiasing: true, "
            "train.stages: [{iterations: 3, lr: 0.1, losses: {l2: 1}}]}",
            "base.render.antialiasing",
            "has no effect, since model.name is 'pixelnerf' in every trial that inherits it",
        ),
    ],
)
def test_what_a_method_does_not_have_is_named(text: str, place: str, message: str, tmp_path: Path) -> None:
    mistakes = [m for m in _mistakes(tmp_path, f"name: a\n{text}\n") if m.path == place]
    assert mistakes, [str(m) for m in _mistakes(tmp_path, f"name: a\n{text}\n")]
    assert message in str(mistakes[0]), str(mistakes[0])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{name: pixelnrf, hidden: 32, blocks: 3}", "did you mean 'pixelnerf'"),
        ("{name: true, hidden: 32}", "unknown method; got true; allowed: blank"),
        ("{name: [pixelnerf], hidden: 32}", "unknown method; got ["),
        ("{name: {}, width: 32}", "unknown method; got {}"),
        ("{backbone: transformr, width: 32, layers: 3}", "allowed: transformer, unet"),
        ("{backbone: [transformer], width: 32}", "allowed: transformer, unet"),
    ],
)
def test_a_method_that_does_not_exist_is_the_only_mistake(value: str, message: str, tmp_path: Path) -> None:
    (mistake,) = _mistakes(tmp_path, f"name: a\ntrials: {{a: {{}}, b: {{model: {value}}}}}\n")
    assert message in str(mistake)


def test_a_mistake_that_only_some_trials_make_of_base_names_them(tmp_path):
    text = """name: s
base:
  data: {name: chairs, options: {train: 20}}
  train.stages: [{iterations: 9, lr: 0.1, losses: {l2: 1}}]
trials:
  a: {}
  b: {data.name: scans}
  c: {train.stages.*.losses.l2: 0}
  d: {train.stages.*.losses.l2: 0}
"""
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(SweepError) as caught:
        load_sweep(path)
    options, losses = sorted(caught.value.mistakes, key=lambda mistake: mistake.line)
    assert (options.line, losses.line) == (3, 4)
    assert "in trial 'b': scans has no such option" in options.message
    assert "in trial 'c' and 1 more: one of the losses must have a weight" in losses.message


def test_what_does_not_fit_together_in_base_but_in_every_trial_is_no_mistake(tmp_path):
    path = tmp_path / "sweep.yaml"
    base, rows = "train: {stages: []}, data.resolution: 8", "{train.start: network:a, data.resolution: 32}"
    path.write_text(f"name: a\nbase: {{{base}}}\ntrials: {{a: {rows}}}\n")
    assert load_sweep(path).name == "a"
    path.write_text(f"name: a\nbase: {{{base}}}\ntrials: {{a: {rows}, b: {{data.resolution: 32}}}}\n")
    with pytest.raises(SweepError) as caught:
        load_sweep(path)
    (mistake,) = caught.value.mistakes
    assert mistake.message.startswith("in trial 'b': train.stages is empty")


def test_a_mistake_of_base_alone_names_no_trial(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("name: s\nbase: {data: {name: scans, options: {train: 20}}}\ntrials: {a: {}, b: {seed: 3}}\n")
    with pytest.raises(SweepError) as caught:
        load_sweep(path)
    assert not [mistake for mistake in caught.value.mistakes if "in trial" in mistake.message]


def test_an_option_without_a_default_is_asked_for(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("name: s\ntrials: {a: {semantic: {encoder: timm, fusion: film}}}\n")
    with pytest.raises(SweepError, match=r"semantic\.options\.name: timm needs this option"):
        load_sweep(path)
