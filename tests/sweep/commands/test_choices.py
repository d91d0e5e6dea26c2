import pytest
from typer.testing import CliRunner

from model.losses import LOSSES
from model.registry import UnknownChoiceError
from sweep.cli import app


def invoke(*arguments):
    return CliRunner().invoke(app, ["choices", *arguments], env={"COLUMNS": "200", "TERM": "dumb"})


def test_every_loss_is_listed_with_what_it_is():
    lines = invoke("train.stages.*.losses").output.splitlines()
    assert [line.split()[0] for line in lines[2:] if line.strip()] == list(LOSSES)
    assert all(len(line.split()) > 2 for line in lines[2:] if line.strip())


def test_options_are_listed_with_their_defaults():
    assert "sigma: 0.05" in invoke("depth.model").output


def test_only_fusions_that_fit_are_listed():
    output = invoke("depth.fusion").output
    assert "xattn_positional" in output
    assert "xattn_tokens" not in output


def test_networks_to_start_from_are_listed_with_how_to_add_one():
    lines = [line.rstrip() for line in invoke("train.start").output.splitlines()]
    assert "splatter_image_cars        Splatter Image, trained on cars" in lines
    added = "a trained network of your own, stored by `splatsweep weights fetch network:NAME --from FILE`"
    assert f"network:NAME               {added}" in lines


@pytest.mark.parametrize(("axis", "hint"), [("depth", "depth.model"), ("loss", "train.stages.*.losses")])
def test_an_unknown_axis_is_refused_with_the_allowed_ones_and_a_hint(axis, hint):
    error = invoke(axis).exception
    assert isinstance(error, UnknownChoiceError)
    assert f"unknown axis {axis!r}; allowed: data.name, depth.fusion, " in str(error)
    assert f"did you mean {hint!r}?" in str(error)


@pytest.mark.parametrize(
    ("axis", "option"),
    [
        ("model.name", "hidden: 512"),
        ("model.name", "pretrained: true"),
        ("model.backbone", "patch_size: 4"),
        ("model.backbone", "head.opacity_bias: -2.0"),
        ("model.backbone", "channel_mult: [1, 2, 2, 2]"),
        ("depth.model", "levels: null"),
        ("semantic.encoder", "name: required"),
    ],
)
def test_options_are_listed_as_a_sweep_file_has_them(axis, option):
    assert option in invoke(axis).output


def test_what_makes_the_choice_is_no_option_of_it():
    assert "backbone: " not in invoke("model.backbone").output.replace("model.backbone", "")


@pytest.mark.parametrize(
    ("axis", "name", "description"),
    [
        ("render.backend", "auto", "on a GPU"),
        ("render.backend", "reference", "plain torch"),
        ("search.sampler", "tpe", "Parzen"),
        ("search.pruner", "median", "median of the others"),
        ("run.executor", "inline", "one after another"),
        ("tables", "costs", "Cost of each trained row"),
    ],
)
def test_rasterisers_samplers_pruners_executors_and_tables_are_listed(axis, name, description):
    (line,) = [line for line in invoke(axis).output.splitlines() if line.startswith(f"{name} ")]
    assert description in line
