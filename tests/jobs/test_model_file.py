"""Networks leave a home in one file, and come back from it with the same numbers."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import save_file
from typer.testing import CliRunner

from jobs.config import TrialConfig
from jobs.mlflow_store import forget
from jobs.model_file import OwnNetwork, export_trial
from jobs.official import OfficialCheckpoint, evaluate_checkpoint, read_network
from jobs.predict import load_reconstructor
from jobs.tracking import TrackedTrial, Tracker
from jobs.trial import Runtime, run_trial
from results.address import default_uri
from results.records.damage import DamagedFileError
from results.records.tags import HASHES
from sweep.cli import app
from tests.conftest import TINY_DATA, tiny_configuration
from tests.jobs.test_predict import photograph


@pytest.fixture(scope="module")
def trained(prepared_home: Path, weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished trial, in a home that tests may add evaluations to."""
    home = tmp_path_factory.mktemp("exported") / "home"
    shutil.copytree(prepared_home, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPLATSWEEP_WEIGHTS", str(weights.folder))
        return run_trial(TrialConfig.model_validate(tiny_configuration()), home, Runtime()).folder


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "model.safetensors"
    export_trial(trained, path)
    return path


def scores(folder: Path) -> dict[str, float]:
    return json.loads((folder / "result.json").read_text())["metrics"]


def evaluated(network: Any, trial: Path) -> dict[str, float]:
    """Scores of a network on the trial's own dataset, evaluated anew."""
    settings = network.settings("chairs")
    settings["data"] |= {"options": TINY_DATA["options"]}
    config = TrialConfig.model_validate(settings | {"eval": {"objects": 2, "metrics": ["psnr", "ssim"]}})
    return evaluate_checkpoint(network, config, trial.parent.parent).metrics


def weights_file(trial: Path) -> Path:
    (path,) = (trial.parent.parent / "trainings").glob("*/weights.safetensors")
    return path


@pytest.mark.parametrize("origin", ["exported", "weights", "trial"])
def test_our_networks_are_evaluated_from_files_as_in_their_trial(trained: Path, exported: Path, origin: str) -> None:
    network = {
        "exported": lambda: read_network(exported),
        "weights": lambda: read_network(weights_file(trained)),
        "trial": lambda: OwnNetwork.of_trial(trained),
    }[origin]()
    assert evaluated(network, trained) == scores(trained)


def test_equal_networks_are_equal_files(trained: Path, exported: Path, tmp_path: Path) -> None:
    for number in range(3):  # the order of two files may be equal by chance
        export_trial(trained, tmp_path / f"{number}.safetensors")
        assert (tmp_path / f"{number}.safetensors").read_bytes() == exported.read_bytes()


def test_a_checkpoint_with_an_optimiser_and_an_average_is_read_as_it_is_evaluated(
    trained: Path, tmp_path: Path
) -> None:
    own = OwnNetwork.of_trial(trained)
    tensors = {f"average.{name}": tensor.contiguous() for name, tensor in own.tensors.items()}
    tensors |= {f"network.{name}": torch.zeros_like(tensor) for name, tensor in own.tensors.items()}
    tensors["optimizer.0.step"] = torch.tensor(3.0)
    (tmp_path / "checkpoints").mkdir()
    save_file(tensors, tmp_path / "checkpoints" / "000000018.safetensors")
    shutil.copy(trained / "config.json", tmp_path / "config.json")
    network = read_network(tmp_path / "checkpoints" / "000000018.safetensors")
    assert network.iteration == 18
    assert evaluated(network, trained) == scores(trained)


def test_the_published_layout_gives_the_same_scores(trained: Path, tmp_path: Path) -> None:
    export_trial(trained, tmp_path / "model.pth")
    network = read_network(tmp_path / "model.pth")
    assert isinstance(network, OfficialCheckpoint)
    assert network.iteration == 18
    assert evaluated(network, trained) == pytest.approx(scores(trained), rel=1e-5)
    state = torch.load(tmp_path / "model.pth", weights_only=True)["model_state_dict"]
    assert "network_with_offset.out.weight" in state


def test_an_export_that_fails_leaves_the_former_file(trained: Path, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"former")

    def interrupted(_, target) -> None:
        with target.open("wb") if isinstance(target, Path) else target as stream:
            stream.write(b"part")
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_trial(trained, path)
    assert path.read_bytes() == b"former"


def test_an_exported_network_takes_photographs_without_its_home(trained, exported, tmp_path) -> None:
    photo = photograph(tmp_path / "photo.png")
    alone = load_reconstructor(tmp_path / "no home", exported, device="cpu")(photo)
    at_home = load_reconstructor(trained.parent.parent, trained.name, device="cpu")(photo)
    assert torch.equal(alone.scene.gaussians.means, at_home.scene.gaussians.means)
    assert alone.by.domain == at_home.by.domain
    assert not (tmp_path / "no home").exists()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"depth": {"model": "constant", "fusion": "xattn_positional"}}, "cannot hold depth.fusion xattn_positional"),
        (
            {"model": {"base_dim": 8, "channel_mult": [1, 2], "attention_resolutions": [8], "gaussians_per_pixel": 2}},
            "cannot hold model.gaussians_per_pixel 2; use .safetensors",
        ),
    ],
)
def test_what_the_published_code_cannot_hold_is_named(tmp_path: Path, sections, message: str) -> None:
    folder = tmp_path / "home" / "trials" / "aa"
    folder.mkdir(parents=True)
    config = TrialConfig.model_validate(tiny_configuration(**sections))
    (folder / "config.json").write_text(json.dumps(config.identity()))
    with pytest.raises(ValueError, match=message):
        export_trial(folder, tmp_path / "model.pth")
    assert not (tmp_path / "model.pth").exists()


def test_other_suffixes_and_trials_without_a_network(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.safetensors or \.pth"):
        export_trial(trained, tmp_path / "model.pt")
    blank = run_trial(TrialConfig.model_validate(tiny_configuration(model={"name": "blank"})), trained.parent.parent)
    with pytest.raises(ValueError, match=r"has no network \(blank\)"):
        export_trial(blank.folder, tmp_path / "model.safetensors")


def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no tensors at all")
    with pytest.raises(ValueError, match="is no safetensors file, or damaged"):
        read_network(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match=r"states no configuration, and .* has no config\.json"):
        read_network(tmp_path / "foreign.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "later.safetensors", {"format": "splatsweep-9"})
    with pytest.raises(ValueError, match=r"has the format 'splatsweep-9'; this version reads splatsweep-1"):
        read_network(tmp_path / "later.safetensors")


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"config": "no JSON"},
        {"config": '{"eyes": 2}'},
        {"config": "{}", "step": "many"},
        {"config": "{}", "domain": "{}"},
        {"config": "{}", "domain": "[]"},
    ],
)
def test_an_exported_file_with_other_metadata_is_named(tmp_path: Path, facts: dict[str, str]) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"format": "splatsweep-1", **facts})
    with pytest.raises(DamagedFileError, match=r"model\.safetensors cannot be used: .* of this version") as caught:
        read_network(path)
    assert "errors.pydantic.dev" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_damaged_weights_are_not_exported(trained: Path, tmp_path: Path, caplog, kept: int) -> None:
    home = tmp_path / "home"
    shutil.copytree(trained.parent.parent, home)
    folder = home / "trials" / trained.name
    weights = weights_file(folder)
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match="has no usable weights, and no checkpoint"):
        export_trial(folder, tmp_path / "model.safetensors")
    assert f"{weights} cannot be used: its SHA-256 is not the one in training.json" in caplog.text
    assert not (tmp_path / "model.safetensors").exists()


def test_settings_that_change_the_network_are_refused(exported: Path) -> None:
    network = OwnNetwork.read(exported)
    config = TrialConfig.model_validate(network.settings("chairs"))
    network.check(config)
    settings = network.settings("chairs")
    wider = TrialConfig.model_validate(settings | {"model": settings["model"] | {"base_dim": 16}})
    with pytest.raises(ValueError, match="--set must not change model"):
        network.check(wider)
    larger = TrialConfig.model_validate(settings | {"data": settings["data"] | {"resolution": 32}})
    with pytest.raises(ValueError, match=r"takes 16 px \(data\.resolution\)"):
        network.check(larger)


def test_the_commands(trained: Path, tmp_path: Path) -> None:
    home = ["--home", str(trained.parent.parent)]
    result = CliRunner().invoke(app, ["export", trained.name[:6], "--out", str(tmp_path / "model.safetensors"), *home])
    assert result.exit_code == 0, result.output
    options = [f"data.options.{name}={value}" for name, value in TINY_DATA["options"].items() if name != "test"]
    settings = [word for option in (*options, "data.options.test=2", "eval.objects=1") for word in ("--set", option)]
    arguments = ["evaluate", "--best", "novel_psnr", "--dataset", "chairs", *settings, "--json", *home]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    from_trial = json.loads(result.output[result.output.index("{") :])
    checkpoint = ["--checkpoint", str(tmp_path / "model.safetensors")]
    result = CliRunner().invoke(app, ["evaluate", *checkpoint, "--dataset", "chairs", *settings, "--json", *home])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["metrics"] == from_trial["metrics"] != scores(trained)
    for wrong in (["--trial", "x"], ["--dataset", "chairs"], ["--trial", "x", "--checkpoint", "y", "--dataset", "z"]):
        result = CliRunner().invoke(app, ["evaluate", *wrong, *home])
        assert "give a sweep file, or --dataset with" in str(result.exception)


def test_the_network_of_a_finished_trial_is_an_artifact_of_its_run(trained: Path) -> None:
    home = trained.parent.parent
    size = weights_file(trained).stat().st_size
    trial = TrackedTrial(trained.name, "baseline", {}, {})
    Tracker(home, None, "small", largest_model=size - 1).sync([trial])
    client = MlflowClient(default_uri(home))
    (run,) = client.search_runs([found.experiment_id for found in client.search_experiments()])
    assert "model.safetensors" not in {file.path for file in client.list_artifacts(run.info.run_id)}
    assert forget(home, [trained.name]) == 1
    Tracker(home, None, "large", largest_model=size).sync([trial])
    (run,) = client.search_runs([found.experiment_id for found in client.search_experiments()])
    path = home / "artifacts" / run.info.run_id / "artifacts" / "model.safetensors"
    network = OwnNetwork.read(path)
    assert json.loads(run.data.tags[HASHES])["model.safetensors"] == network.sha256
    assert evaluated(network, trained) == scores(trained)


@pytest.mark.parametrize("lacks", ["data", "weights"])
def test_a_network_that_cannot_be_written_is_no_artifact(trained: Path, tmp_path: Path, caplog, lacks: str) -> None:
    """A copy of a home's records may lack its data, and recording prepares no dataset."""
    for name in ("trials", "trainings", *(["data"] if lacks != "data" else [])):
        shutil.copytree(trained.parent.parent / name, tmp_path / name)
    if lacks == "weights":
        weights_file(tmp_path / "trials" / trained.name).write_bytes(b"")
    Tracker(tmp_path, None, "copy", largest_model=math.inf).sync([TrackedTrial(trained.name, "baseline", {}, {})])
    client = MlflowClient(default_uri(tmp_path))
    (run,) = client.search_runs([found.experiment_id for found in client.search_experiments()])
    assert (run.info.status, "model.safetensors" in run.data.tags[HASHES]) == ("FINISHED", False)
    assert (tmp_path / "data").exists() == (lacks != "data")
    assert (f"the network of trial {trained.name} is no artifact of its run" in caplog.text) == (lacks == "weights")
