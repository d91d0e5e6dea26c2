import json
import re
import shutil

import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

from jobs.config import TrialConfig
from jobs.reconstructor import build_reconstructor
from model.methods.pixelnerf.reconstructor import PixelNerfReconstructor
from model.official import PUBLISHED, OfficialPredictor, official_state_dict, pixelnerf_state_dict
from model.weights import MissingWeightsError, WeightStore
from results.records.frozen_plans import freeze
from results.records.plan import Plan, PlannedTrial
from sweep.cli import app
from sweep.commands.evaluate import _means_by_category
from tests.homes import finish
from tests.model.methods.pixelnerf.scenery import small_options

LPIPS = {"vgg16.safetensors", "vgg16.json"}


@pytest.fixture
def checkpoint(tiny, weights, tmp_path):
    """A small published file."""
    sections = tiny()
    config = TrialConfig.model_validate({name: sections[name] for name in ("data", "model")})
    predictor = build_reconstructor(config, {}, weights)
    published = OfficialPredictor(predictor.backbone, predictor.head, PUBLISHED["chairs"])
    path = tmp_path / "model_latest.pth"
    torch.save({"model_state_dict": official_state_dict(published), "iteration": 7}, path)
    return path


@pytest.fixture
def pixelnerf(tmp_path):
    """A small published PixelNeRF."""
    path = tmp_path / "pixel_nerf_latest"
    torch.save(pixelnerf_state_dict(PixelNerfReconstructor(small_options())), path)
    return path


@pytest.fixture
def run(checkpoint, home, tiny):
    """A function: further arguments -> the result of `splatsweep evaluate` on tiny chairs."""
    options = [f"data.options.{key}={value}" for key, value in tiny()["data"]["options"].items()]
    settings = [part for option in [*options, "base.eval.objects=2"] for part in ("--set", option)]
    environment = {"COLUMNS": "160", "TERM": "dumb", "SPLATSWEEP_HOME": str(home)}

    def invoke(*arguments, checkpoint=checkpoint):
        command = ["evaluate", "--checkpoint", str(checkpoint), "--dataset", "chairs", *settings, *arguments]
        return CliRunner().invoke(app, command, env=environment)

    return invoke


def test_a_published_file_leaves_means_and_measurements(run, home):
    result = run()
    assert result.exit_code == 0, result.output + repr(result.exception)
    (record,) = home.glob("official/*/result.json")
    content = json.loads(record.read_text())
    line = re.search(r"^novel\s+(\S+)\s+(\S+)\s+(\S+)", result.output, re.MULTILINE)
    assert float(line[1]) == pytest.approx(content["metrics"]["novel/psnr"], abs=1e-3)
    assert float(line[3]) == pytest.approx(content["metrics"]["novel/lpips"], abs=1e-3)
    measured = pd.read_parquet(record.with_name("per_object.parquet"))
    novel = measured[(measured["view_kind"] == "novel") & (measured["metric"] == "psnr")]["value"]
    assert len(novel) == 2
    assert novel.mean() == pytest.approx(content["metrics"]["novel/psnr"])
    assert str(record.parent) in result.output
    assert json.loads(run("--json").stdout) == content


def test_a_stored_network_is_evaluated_by_its_name(run, checkpoint, weights, tmp_path, monkeypatch):
    shutil.copytree(weights.folder, tmp_path / "weights", ignore=lambda _, names: {*names} - LPIPS)
    monkeypatch.setenv("SPLATSWEEP_WEIGHTS", str(tmp_path / "weights"))
    WeightStore(tmp_path / "weights").adopt("network:theirs", checkpoint)
    assert json.loads(run("--json", checkpoint="network:theirs").stdout)["metrics"] == pytest.approx(
        json.loads(run("--json").stdout)["metrics"]
    )
    assert isinstance(run(checkpoint="network:none").exception, MissingWeightsError)


def test_several_categories_have_means_each(tmp_path):
    objects = [("a", "chair"), ("b", "stool"), ("c", "stool")]
    rows = [
        (name, category, kind, metric, number + offset)
        for number, (name, category) in enumerate(objects)
        for kind in ("conditioned", "novel")
        for metric, offset in (("psnr", 20.0 if kind == "novel" else 90.0), ("ssim", 0.5))
    ]
    table = pd.DataFrame(rows, columns=["object", "category", "view_kind", "metric", "value"])
    table.to_parquet(tmp_path / "per_object.parquet")
    assert _means_by_category(tmp_path) == {
        "novel, chair (1)": {"psnr": 20.0, "ssim": 0.5},
        "novel, stool (2)": {"psnr": 21.5, "ssim": 2.0},
    }
    table[table["category"] == "stool"].to_parquet(tmp_path / "per_object.parquet")
    assert _means_by_category(tmp_path) == {}


def test_a_pixelnerf_is_recognised_and_the_settings_determine_its_size(run, home, pixelnerf):
    few = "model.coarse_samples=4", "model.importance_samples=2", "model.depth_samples=2"
    settings = [
        part for setting in ("data.resolution=16", "model.first_pool=false", *few) for part in ("--set", setting)
    ]
    result = run(*settings, checkpoint=pixelnerf)
    assert result.exit_code == 0, result.output + repr(result.exception)
    (record,) = home.glob("official/*/config.json")
    model = json.loads(record.read_text())["model"]
    assert model["name"] == "pixelnerf"
    assert model["pixel_point"] == "corner"
    assert (model["coarse_samples"], model["hidden"]) == (4, 16)
    assert "did you mean 'hidden'" in str(run("--set", "model.hiden=16", checkpoint=pixelnerf).exception)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("eval.lpisp=vgg", "did you mean"),
        ("eval.objects=many", "--set eval.objects.*many"),
        ("eval.objects", "expected KEY=VALUE"),
        ("train.stages.7.lr=1", "reached by index"),
        ("model.base_dim=16", "of another shape"),
    ],
)
def test_mistakes_in_settings_are_named(run, setting, message):
    result = run("--set", setting)
    assert result.exit_code == 1
    assert re.search(message, str(result.exception))


def test_an_unknown_dataset_is_named(checkpoint, home):
    command = ["evaluate", "--checkpoint", str(checkpoint), "--dataset", "chars", "--home", str(home)]
    error = str(CliRunner().invoke(app, command).exception)
    assert "--dataset" in error
    assert "did you mean 'chairs'" in error


def test_it_explains_itself_with_an_example():
    help_text = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "160", "TERM": "dumb"}).output
    assert "splatsweep evaluate --checkpoint" in re.sub(r"\s+", " ", help_text)


def test_a_sweep_is_evaluated_anew_and_trains_nothing(home, tiny, tmp_path, monkeypatch):
    content = {
        "name": "tiny",
        "base": tiny(eval={"objects": 1}),
        "trials": {"plain": {}, "other": {"train.batch_size": 1}},
    }
    sweep = tmp_path / "sweep.yaml"
    content = json.loads(json.dumps(content)) | {"run": {"executor": "inline"}}
    sweep.write_text(yaml.safe_dump(content, sort_keys=False))
    environment = {"COLUMNS": "160", "TERM": "dumb", "SPLATSWEEP_HOME": str(home)}

    def invoke(*arguments):
        result = CliRunner().invoke(app, [*arguments], env=environment)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return result.output

    invoke("run", str(sweep), "--only", "plain")
    monkeypatch.setattr("jobs.training.draw_batch", None)
    val = ("--set", "base.eval.split=val")
    trials = json.loads(invoke("plan", str(sweep), "--json", *val))["trials"]
    assert [trial["status"] for trial in trials] == ["to be evaluated", "pending"]
    output = invoke("evaluate", str(sweep), *val)
    assert "1 to run, 1 of them trained before and to be evaluated" in output
    assert "Nothing to train." in output
    trials = json.loads(invoke("plan", str(sweep), "--json", *val))["trials"]
    assert [trial["status"] for trial in trials] == ["finished", "pending"]
    judged = pd.read_parquet(home / "trials" / trials[0]["key"] / "per_object.parquet")
    assert set(judged["split"]) == {"val"}
    (training,) = (home / "trainings").iterdir()

    (training / "weights.safetensors").write_bytes(b"damaged")  # it is not trained anew
    assert "0 to run" in invoke("evaluate", str(sweep), *val, "--set", "base.eval.objects=2")
    assert (training / "weights.safetensors").read_bytes() == b"damaged"


def test_conflicting_arguments_are_one_error(tmp_path):
    for arguments in ([], [str(tmp_path), "--checkpoint", "a"], ["--checkpoint", "a"]):
        result = CliRunner().invoke(app, ["evaluate", *arguments])
        assert "give a sweep file, or --dataset with --checkpoint or with --trial" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "x"], "--only means nothing for --checkpoint"),
        (["--seed", "1"], "--seed means nothing for --checkpoint"),
    ],
)
def test_options_without_a_meaning_are_refused(run, arguments, message):
    result = run(*arguments)
    assert isinstance(result.exception, ValueError)
    assert str(result.exception) == message


def test_a_trial_that_cannot_be_measured_keeps_no_other_from_it(tmp_path, monkeypatch):
    file, home = tmp_path / "s.yaml", tmp_path / "home"
    file.write_text("name: s\ntrials: {baseline: {}, large: {model.base_dim: 64}}\n")
    keys = {"large": "0" * 16, "baseline": "1" * 16}
    trials = tuple(PlannedTrial(key, (name,), 0, {"seed": 0}, "pending") for name, key in keys.items())
    freeze(Plan("s", "2026-03-01T12:00:00+00:00", trials, ()), home)
    for key in keys.values():
        finish(home, key)

    def measure(_home, key, _device):
        if key == keys["large"]:
            raise torch.OutOfMemoryError("out of memory")
        return {"parameters": 2e6, "predict_ms": 3.0, "render_ms": 4.0}

    monkeypatch.setattr("jobs.cost.measure_finished", measure)
    result = CliRunner().invoke(app, ["evaluate", str(file), "--costs", "--home", str(home)])
    assert result.exit_code == 1, result.output + repr(result.exception)
    assert "large seed 0: not measured: out of memory" in result.output
    assert "baseline seed 0: 2.00 M parameters, 3.0 ms a prediction, 4.0 ms a render" in result.output
    assert "Report: " in result.output
    misspelt = ["--only", "baseline", "--only", "lagre"]
    refused = CliRunner().invoke(app, ["evaluate", str(file), "--costs", "--home", str(home), *misspelt])
    assert "no finished trial of s to measure is called 'lagre'" in str(refused.exception)
