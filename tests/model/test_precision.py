"""Full precision of products on a GPU, as settings of this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from model.precision import full_precision, tf32
from model.rasterizers import render
from model.types import Cameras, Gaussians

CUDA = torch.device("cuda")


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture
def autocasts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Replaces autocast, which warns where a GPU is absent."""
    seen: list[tuple[str, bool]] = []

    class Autocast:
        def __init__(self, device: str, enabled: bool) -> None:
            seen.append((device, enabled))

        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(torch, "autocast", Autocast)
    return seen


def test_full_precision_is_neither_tf32_nor_autocast(autocasts):
    with tf32(True):
        with full_precision(CUDA):
            assert allowed() == (False, False)
        assert allowed() == (True, True)
    assert autocasts == [("cuda", False)]


@pytest.mark.usefixtures("autocasts")
def test_settings_return_after_an_error():
    with tf32(True):
        with pytest.raises(ValueError, match="wrong"), full_precision(CUDA):
            raise ValueError("wrong")
        assert allowed() == (True, True)


def test_a_rasteriser_runs_in_full_precision(monkeypatch):
    happened: list[str] = []

    @contextmanager
    def watched(device: torch.device) -> Iterator[None]:
        happened.append(f"enter {device}")
        yield
        happened.append("leave")

    def draw(gaussians: Gaussians, *_: object) -> tuple[torch.Tensor, None]:
        happened.append("draw")
        return gaussians.means, None

    monkeypatch.setattr("model.precision.full_precision", watched)
    monkeypatch.setattr("model.rasterizers.reference.render", draw)
    parts = {"means": 3, "scales": 3, "rotations": 4, "opacities": 1}
    gaussians = Gaussians(**{name: torch.rand(1, 2, n) for name, n in parts.items()}, sh=torch.rand(1, 2, 1, 3))
    cameras = Cameras(torch.eye(4).expand(1, 1, 4, 4), torch.ones(1, 1, 2), torch.ones(1, 1, 2), height=8, width=8)
    render(gaussians, cameras, torch.ones(3), "reference")
    assert happened == ["enter cpu", "draw", "leave"]
