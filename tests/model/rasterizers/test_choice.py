"""The choice of a backend: installed packages, their capabilities, and the backend that "auto" selects."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from model.rasterizers import BACKENDS, capabilities, choose, compat, gsplat, inria, triton, why_not
from model.rasterizers.packages import BackendUnavailableError

NEWER = compat.GaussianRasterizationSettings
OLDER = NamedTuple("OlderSettings", list(NEWER.__annotations__.items())[:-1])


@pytest.fixture
def install(monkeypatch):
    """Simulates a machine with a GPU and stand-ins for the given CUDA packages, without the others."""

    def install(**versions) -> None:
        packages = {
            "gsplat": lambda version: SimpleNamespace(__version__=version),
            "inria": lambda settings: SimpleNamespace(GaussianRasterizationSettings=settings),
            "triton": lambda version: SimpleNamespace(__version__=version),
        }
        for name, module in (("gsplat", gsplat), ("inria", inria), ("triton", triton)):
            is_here = name in versions
            monkeypatch.setattr(module, "is_available", lambda is_here=is_here: is_here)
            if is_here:
                monkeypatch.setitem(sys.modules, module.PACKAGE, packages[name](versions[name]))
            else:
                monkeypatch.setattr(module, "PACKAGE", f"{name}_that_is_nowhere")

    return install


def test_tensors_on_the_host_are_drawn_by_our_kernels(install):
    install(gsplat="1.5.3", inria=NEWER)
    assert choose("auto", "cpu", antialiasing=True, inverse_depth=True) == "cpu"


def test_a_name_stands_for_itself(install):
    install()
    assert choose("reference", "cuda") == "reference"
    assert choose("inria", "cuda", antialiasing=True) == "inria"


def test_a_gpu_is_drawn_on_by_gsplat_before_inria(install):
    install(gsplat="1.5.3", inria=NEWER, triton="3.8.0")
    assert choose("auto", "cuda") == "gsplat"


@pytest.mark.parametrize(("capability", "chosen"), [((9, 0), "triton"), ((8, 6), "gsplat"), ((12, 0), "gsplat")])
def test_triton_is_first_on_cards_that_it_was_tested_on(install, monkeypatch, capability, chosen):
    install(gsplat="1.5.3", inria=NEWER, triton="3.8.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: capability)
    assert choose("auto", "cuda") == chosen


def test_triton_draws_where_no_other_backend_can(install):
    install(inria=OLDER, triton="3.8.0")
    assert choose("auto", "cuda") == "inria"
    assert choose("auto", "cuda", antialiasing=True) == "triton"


def test_auto_skips_backends_without_the_requested_features(install):
    install(gsplat="1.4.0", inria=NEWER)
    assert choose("auto", "cuda", antialiasing=True) == "inria"
    install(inria=OLDER)
    assert choose("auto", "cuda") == "inria"
    with pytest.raises(BackendUnavailableError, match=r"older generation.* has no antialiasing.*pip install"):
        choose("auto", "cuda", antialiasing=True)


def test_the_cpu_is_no_silent_way_out_of_a_gpu(install):
    install()
    with pytest.raises(BackendUnavailableError, match="the backend 'cpu' draws it on the host") as refusal:
        choose("auto", "cuda")
    assert "pip install 'gsplat" in str(refusal.value)
    assert inria.COMMIT in str(refusal.value)


@pytest.mark.parametrize(
    ("backend", "device", "wishes", "reason"),
    [
        ("auto", "cuda", {"antialiasing": True}, None),
        ("gsplat", "cuda", {"antialiasing": True, "inverse_depth": True}, None),
        ("inria", "cuda", {}, None),
        ("inria", "cuda", {"antialiasing": True}, "'inria' (older generation) has no antialiasing. Install the newer"),
        ("inria", "cuda", {"inverse_depth": True}, "has no inverse depth"),
        ("inria", "cpu", {}, "draws tensors on cuda only, not on cpu"),
        ("cpu", "cuda", {"antialiasing": True, "inverse_depth": True}, None),
        ("reference", "cpu", {"antialiasing": True}, None),
        ("auto", "cpu", {"antialiasing": True}, None),
    ],
)
def test_why_a_backend_cannot_draw(install, backend, device, wishes, reason):
    install(gsplat="1.5.3", inria=OLDER)
    found = why_not(backend, device, **wishes)
    assert found is None if reason is None else reason in found


def test_planning_needs_no_gpu(install, monkeypatch):
    install(gsplat="1.5.3")
    monkeypatch.setattr(gsplat, "is_available", lambda: False)
    assert why_not("auto", "cuda", antialiasing=True) is None


def test_every_backend_states_what_it_can_do(install):
    install(gsplat="1.6.0", inria=NEWER, triton="3.8.0")
    for name in BACKENDS:
        assert capabilities(name).devices
    assert str(capabilities("gsplat")) == "1.6.0"
    install(inria=OLDER)
    assert str(capabilities("inria")) == "older generation, without antialiasing and inverse depth"
