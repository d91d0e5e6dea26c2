import json
from importlib import resources
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from model.depth import DEPTH
from model.losses import LOSSES
from sweep.cli import app
from sweep.file.json_schema import sweep_schema
from sweep.file.yaml_reader import parse

PRESETS = sorted(path.name for path in resources.files("sweep.presets").iterdir() if path.name.endswith(".yaml"))


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    schema = sweep_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def _tree(text: str) -> Any:
    return parse(f"name: a\n{text}", "").value


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fits(schema: Draft202012Validator, preset: str) -> None:
    text = (resources.files("sweep.presets") / preset).read_text()
    assert [error.message for error in schema.iter_errors(parse(text, preset).value)] == []


@pytest.mark.parametrize(
    "text",
    [
        "extends: other.yaml\ngrid:\nrun:\n",
        "trials: {a: null, b: {train: {stages.0.lr: 1}, data.options: {any: thing}}}",
        "base: {train.stages.*.losses.tv: 0.1, train.stages.0.losses: {l1: 1, tv: {weight: 1, views: 2}}}",
        "base: {data.options.views: 3, model.channel_mult.0: 2, train.ema: {every: 5}, train.ema.start: 3}",
        "grid: [{axes: {depth: [{model: oracle}], train.ema: [null, {}]}, when: {depth: {train.ema: [null]}}}]",
        "leave_one_out: [depth.model, train.stages.*.losses.tv]\ntables: [auto, mine.yaml]",
        "search: {trials: 3, space: {train.stages.*.losses.tv.weight: {low: 1, high: 2, log: true}}, sampler: gp}",
        "search: {trials: 3, space: {train.batch_size: {low: 1, high: 9, step: 2, int: true}, depth.model: [none]}}",
        "search: {trials: 3, space: {train.batch_size: [1], when: {train.batch_size: {depth.model: [none]}}}}",
        "search: {trials: 3, space: {train.batch_size: {choices: [4, 8]}, depth.model: {choices: [none, oracle]}}}",
        "tags: {year: 2026, share: 0.5, fast: true, machine: a}",
    ],
)
def test_valid_files_match_the_schema(schema: Draft202012Validator, text: str) -> None:
    assert [error.message for error in schema.iter_errors(_tree(text))] == []


@pytest.mark.parametrize(
    "text",
    [
        "sedes: [0]",
        "base: {seed: 3}",
        "base: {depth.model: orcle}",
        "base: {depth.modl: oracle}",
        "base: {depth: {model: orcle}}",
        "base: {depth: {modl: oracle}}",
        "base: {train.stages.*.losses.tvv: 0.1}",
        "base: {train.stages: [{}]}",
        "base: {model.base_dim: 6}",
        "trials: {a: {render.backend: gpu}}",
        "grid: [{axes: {train.batch_size: 4}}]",
        "grid: [{axes: {train.batch_size: []}}]",
        "grid: [{axes: {depth.model: [orcle]}}]",
        "grid: [{}]",
        "leave_one_out: [model.name]",
        "seeds: [-1]",
        "seeds: []",
        "tables: [aut]",
        "run: {executor: rai}",
        "search: {trials: 3}",
        "search: {trials: 3, space: {}}",
        "search: {trials: 3, space: {train.batch_size: 4}}",
        "search: {trials: 3, space: {train.batch_size: [4], when: {train.batch_size: {}}}}",
        "search: {trials: 3, space: {train.batch_size: [4], when: [train.batch_size]}}",
        "search: {trials: 3, space: {train.batchsize: [4]}}",
        "search: {trials: 3, space: {depth.model: [orcle]}}",
        "search: {trials: 3, space: {train.batch_size: {low: 1, hi: 2}}}",
        "search: {trials: 3, space: {train.batch_size: {choices: 4}}}",
        "search: {trials: 3, space: {train.batch_size: {choices: []}}}",
        "search: {trials: 3, space: {depth.model: {choices: [orcle]}}}",
        "tags: {year: [2026]}",
        "search: {trials: 3, space: {train.batch_size: [4]}, sampler: tpee}",
        "tracking: {url: x}",
    ],
)
def test_invalid_files_do_not_match_the_schema(schema: Draft202012Validator, text: str) -> None:
    assert list(schema.iter_errors(_tree(text)))


def test_a_sweep_is_named_so_that_a_folder_can_be(schema: Draft202012Validator) -> None:
    assert schema.is_valid({"name": "a-b.1"})
    assert not schema.is_valid({"name": "a/b"})
    assert not schema.is_valid({})


def test_choices_are_those_of_the_registries() -> None:
    overrides = sweep_schema()["$defs"]["Overrides"]
    assert set(overrides["properties"]["depth.model"]["enum"]) == {"none", *DEPTH}
    assert any(all(name in pattern for name in LOSSES) for pattern in overrides["patternProperties"])


def test_the_command_prints_it() -> None:
    done = CliRunner().invoke(app, ["schema"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == sweep_schema()
