"""The arithmetic that a trial records (backend, execution, precision, device), with every `auto` resolved."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from jobs.config import TrialConfig
from jobs.environment import arithmetic_history, arithmetic_of
from model.rasterizers import gsplat, inria, triton
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


def test_a_gpu_without_a_rasteriser_is_refused(monkeypatch):
    for backend in (gsplat, inria, triton):
        monkeypatch.setattr(backend, "PACKAGE", "a_package_that_is_nowhere")
    with pytest.raises(BackendUnavailableError, match="pip install 'gsplat"):
        arithmetic_of(config(), CUDA)


def test_a_control_computes_nothing():
    assert arithmetic_of(config(model={"name": "blank"}), CPU) is None


def test_history_holds_earlier_processes_that_left_a_checkpoint(tmp_path):
    def begun(arithmetic: Arithmetic) -> None:
        entries = arithmetic_history(tmp_path, arithmetic)
        (tmp_path / ENVIRONMENT_FILENAME).write_text(json.dumps({"arithmetic": entries}))

    begun(ON_CPU)
    begun(ON_GPU)  # nothing was trained on the CPU
    assert arithmetic_history(tmp_path, ON_GPU) == [ON_GPU.as_json()]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "10.json").touch()
    begun(ON_GPU)
    begun(ON_CPU)
    assert arithmetic_history(tmp_path, ON_CPU) == [ON_GPU.as_json(), ON_CPU.as_json()]


def test_history_of_a_version_that_recorded_none_starts_now(tmp_path):
    (tmp_path / ENVIRONMENT_FILENAME).write_text("{}")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "10.json").touch()
    assert arithmetic_history(tmp_path, ON_CPU) == [ON_CPU.as_json()]
