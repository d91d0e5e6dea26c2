"""The arithmetic that a trial records (backend, execution, precision, device), with every `auto` resolved."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jobs import environment
from jobs.config import TrialConfig
from jobs.environment import arithmetic_of, drawing_backend, training_environment, trial_environment
from model.rasterizers import gsplat, inria, triton
from model.rasterizers.backend import Capabilities
from model.rasterizers.packages import BackendUnavailableError
from results.records.arithmetic import Arithmetic
from results.records.trial_folder import ENVIRONMENT_FILENAME

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ON_CPU = Arithmetic(backend="cpu", execution="eager", precision="float32", device="cpu")
ON_GPU = Arithmetic(backend="gsplat", execution="eager", precision="tf32", device="cuda")


@pytest.fixture
def installed_gsplat(monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace(__version__="1.5.3"))
    monkeypatch.setattr(gsplat, "is_available", lambda: True)


def config(**sections) -> TrialConfig:
    return TrialConfig.model_validate(sections)


def test_a_cpu_computes_in_float32_with_our_kernels():
    for precision in ("float32", "tf32", "bf16"):
        assert arithmetic_of(config(train={"precision": precision}), CPU) == ON_CPU


@pytest.mark.usefixtures("installed_gsplat")
def test_a_gpu_computes_as_configured_with_the_backend_that_auto_stands_for():
    assert arithmetic_of(config(), CUDA) == ON_GPU
    found = arithmetic_of(config(train={"precision": "bf16"}, render={"backend": "inria"}), CUDA, "compiled")
    assert found == Arithmetic(backend="inria", execution="compiled", precision="bf16", device="cuda")


@pytest.mark.usefixtures("installed_gsplat")
def test_auto_stands_for_a_rasteriser_that_can_antialias(monkeypatch):
    older = Capabilities(devices=("cuda",), antialiasing=False, inverse_depth=False, generation="older generation")
    monkeypatch.setattr(gsplat, "capabilities", lambda: older)
    for backend in (inria, triton):
        monkeypatch.setattr(backend, "is_available", lambda: False)
    assert drawing_backend(config(), CUDA) == "gsplat"
    with pytest.raises(BackendUnavailableError):
        drawing_backend(config(render={"antialiasing": True}), CUDA)


def test_a_method_without_gaussians_has_no_rasteriser():
    stages = [{"iterations": 1, "lr": 1e-3, "losses": {"l2": 1.0}}]
    found = arithmetic_of(config(model={"name": "pixelnerf"}, train={"stages": stages}), CUDA)
    assert found == Arithmetic(backend=None, execution="eager", precision="tf32", device="cuda")


def test_a_gpu_without_a_rasteriser_is_refused(monkeypatch):
    for backend in (gsplat, inria, triton):
        monkeypatch.setattr(backend, "PACKAGE", "a_package_that_is_nowhere")
    with pytest.raises(BackendUnavailableError, match="pip install 'gsplat"):
        arithmetic_of(config(), CUDA)


def test_a_control_computes_nothing():
    assert arithmetic_of(config(model={"name": "blank"}), CPU) is None


def begin(folder: Path, arithmetic: Arithmetic, commit: str, monkeypatch, host: str = "here") -> dict[str, Any]:
    """Writes the environment of a process on a commit; "" means outside a checkout."""
    git = {"commit": commit, "dirty": False} if commit else {}
    monkeypatch.setattr(environment, "describe_environment", lambda: {"git": git, "host": host})
    found = training_environment(folder, arithmetic)
    (folder / ENVIRONMENT_FILENAME).write_text(json.dumps(found))
    return found


def leave_checkpoint(folder: Path) -> None:
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "10.json").touch()


def test_code_outside_a_checkout_has_the_commit_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv(environment.COMMIT_VARIABLE, raising=False)
    assert environment.git_state(tmp_path) == {}
    assert environment.git_variable(tmp_path) == {}
    for value, is_dirty in (("0a1b", False), ("0a1b-dirty", True)):
        monkeypatch.setenv(environment.COMMIT_VARIABLE, f"{value} ")
        assert environment.git_state(tmp_path) == {"commit": "0a1b", "dirty": is_dirty}
        assert environment.git_variable(tmp_path) == {environment.COMMIT_VARIABLE: value}
    (tmp_path / "code.py").touch()
    installed = tmp_path / ".venv" / "jobs"  # in the environment of a project that is a checkout itself
    installed.mkdir(parents=True)
    (installed / "code.py").touch()
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "code.py"], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    committed = environment.git_state(tmp_path)
    assert committed["commit"] != "0a1b"
    assert not committed["dirty"], "untracked files are no changes of the code"
    (tmp_path / "code.py").write_text("changed")
    assert environment.git_state(tmp_path) == committed | {"dirty": True}
    assert environment.git_state(installed)["commit"] == "0a1b"
    monkeypatch.setenv("PATH", "")  # git is not installed
    assert environment.git_state(tmp_path) == {"commit": "0a1b", "dirty": True}


def test_packages_are_recorded_with_their_versions(monkeypatch):
    monkeypatch.setattr(environment, "_PACKAGES", ("torch", "a-package-that-is-nowhere"))
    found = environment.describe_environment.__wrapped__()["packages"]
    assert found == {"torch": metadata.version("torch"), "a-package-that-is-nowhere": None}


def test_earlier_processes_that_left_a_checkpoint_are_kept(tmp_path, monkeypatch):
    begin(tmp_path, ON_CPU, "a", monkeypatch)
    (tmp_path / "checkpoints").mkdir()
    found = begin(tmp_path, ON_GPU, "b", monkeypatch)  # nothing was trained on the CPU
    assert found == {"git": {"commit": "b", "dirty": False}, "host": "here", "arithmetic": [ON_GPU.as_json()]}
    leave_checkpoint(tmp_path)
    begin(tmp_path, ON_GPU, "b", monkeypatch)
    found = begin(tmp_path, ON_CPU, "c", monkeypatch)
    assert found["arithmetic"] == [ON_GPU.as_json(), ON_CPU.as_json()]
    assert [git["commit"] for git in found["earlier_commits"]] == ["b"]
    begin(tmp_path, ON_CPU, "c", monkeypatch)
    found = begin(tmp_path, ON_CPU, "", monkeypatch)
    assert found["arithmetic"] == [ON_GPU.as_json(), ON_CPU.as_json()]
    assert [git["commit"] for git in found["earlier_commits"]] == ["b", "c"]
    assert begin(tmp_path, ON_CPU, "", monkeypatch) == found
    found = begin(tmp_path, ON_GPU, "b", monkeypatch)
    assert found["arithmetic"] == [ON_GPU.as_json(), ON_CPU.as_json(), ON_GPU.as_json()]


@pytest.mark.parametrize("content", ["{}", None])
def test_a_version_that_recorded_nothing_starts_now(content, tmp_path, monkeypatch):
    if content is not None:
        (tmp_path / ENVIRONMENT_FILENAME).write_text(content)
    leave_checkpoint(tmp_path)
    found = begin(tmp_path, ON_CPU, "a", monkeypatch)
    assert (found["arithmetic"], "earlier_commits" in found) == ([ON_CPU.as_json()], False)


def test_an_evaluation_by_another_process_stands_beside_the_training(tmp_path, monkeypatch):
    trained = begin(tmp_path, Arithmetic("cpu", "compiled", "float32", "cpu"), "a", monkeypatch)
    assert trial_environment(trained, config(), CPU) == trained
    moved = trained | {"arithmetic": [ON_GPU.as_json(), ON_CPU.as_json()]}
    assert trial_environment(moved, config(), CPU) == moved
    here = trial_environment(trained, config(render={"backend": "reference"}), CPU)
    assert here["evaluation"]["arithmetic"] == [{"backend": "reference", "device": "cpu"}]
    unrecorded = {name: value for name, value in trained.items() if name != "arithmetic"}
    assert "evaluation" in trial_environment(unrecorded, config(), CPU)
    begin(tmp_path, ON_CPU, "b", monkeypatch, host="there")
    found = trial_environment(trained, config(), CPU)
    drawing = {"backend": "cpu", "device": "cpu"}
    evaluation = {"git": {"commit": "b", "dirty": False}, "host": "there", "arithmetic": [drawing]}
    assert found == trained | {"evaluation": evaluation}
    reference = trial_environment(trained, config(render={"backend": "reference"}), CPU)
    assert reference["evaluation"]["arithmetic"] == [drawing | {"backend": "reference"}]
