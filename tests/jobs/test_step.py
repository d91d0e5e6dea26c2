"""A step on a GPU that is not there: every tensor lies on one device, and nothing is read back to the host.

Fake tensors have a shape, a type and a device, but no values.  An operation whose value the host needs raises an error.
Kernels of Triton and other packages are replaced by functions that check the device.  Backward is not run, since
autograd needs a GPU for it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jobs import step as steps
from jobs.adam import FlatAdam
from jobs.batch import draw_batch
from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.data.prepare import prepare as prepare_dataset
from jobs.flat import flatten_parameters
from jobs.nonfinite import NonFiniteGuard
from jobs.reconstructor import build_reconstructor
from jobs.step import Step, StepInputs, step_inputs
from jobs.training import Averages
from model import constants
from model.fusion import FUSION, positional
from model.fusion.base import context_type_for
from model.group_norm import fuse
from model.losses import LOSSES, ssim
from model.methods.splatter_image.backbones import BACKBONES
from model.native.tracing import rebuild, tensors_of
from model.rasterizers import gsplat, packages
from model.registry import resolve
from model.scenes import Reconstructor
from model.types import Context
from model.weights import WeightStore

pytest.importorskip("triton", reason="torch brings Triton on Linux alone")
GPU = torch.device("cuda:0")
SIZE = 16
OBJECTS = {"train": 2, "val": 1, "test": 1, "views": 4, "image_size": SIZE}
#: The shape of the context of one view, by the source whose fusions take it.
CONTEXTS = {"semantic": {"vector": (12,), "tokens": (4, 12)}, "depth": {"map": (1, SIZE, SIZE)}}


def on_gpu(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    """The tensor's twin on a GPU, in the layout of `jobs.device.prepare`."""
    layout = torch.channels_last if tensor.dim() == 4 else torch.preserve_format
    fake = mode.from_tensor(tensor.detach())
    with mode:
        return fake.to(GPU, memory_format=layout)


def move(module: nn.Module, mode: FakeTensorMode) -> None:
    """`module.to(GPU)`, which torch refuses for fake tensors."""
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            part._parameters[name] = nn.Parameter(on_gpu(parameter, mode), parameter.requires_grad)
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = on_gpu(buffer, mode)


def configuration(sections: dict[str, Any]) -> TrialConfig:
    data = {"name": "chairs", "resolution": SIZE, "options": OBJECTS}
    small: dict[str, Any] = {"base_dim": 8, "num_blocks": 1, "channel_mult": [1], "attention_resolutions": [SIZE]}
    model = {**({} if {"name", "backbone"} & sections.get("model", {}).keys() else small), **sections.get("model", {})}
    train = {"batch_size": 2, "views_per_object": 2, **sections.get("train", {})}
    return TrialConfig.model_validate({**sections, "data": data, "model": model, "train": train})


class OneDevice(TorchDispatchMode):
    """Checks that operations have all arguments and results on the GPU.

    Torch accepts numbers and indices on the host; a CUDA graph would repeat their first values for ever.
    """

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        devices = {each.device for each in tree_leaves((args, kwargs, result)) if isinstance(each, Tensor)}
        assert devices <= {GPU}, f"{operation} on {devices}"
        return result


class Kernel:
    """Takes the place of a kernel of Triton: all its tensors lie on the GPU."""

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self

    def __call__(self, *arguments: Any, **constants: Any) -> None:
        assert all(tensor.device == GPU for tensor in arguments if isinstance(tensor, Tensor))


def rasterization(*, colors: Tensor, viewmats: Tensor, width: int, height: int, **others: Any) -> tuple[Tensor, ...]:
    """Takes the place of gsplat's function."""
    tensors = [colors, viewmats, *(value for value in others.values() if isinstance(value, Tensor))]
    assert all(tensor.device == GPU for tensor in tensors)
    views, channels = viewmats.shape[:2], colors.shape[-1]
    return colors.sum() + colors.new_zeros((*views, height, width, channels)), colors, colors


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Makes fake tensors; constants that are cached meanwhile are forgotten."""
    from triton.runtime import KernelInterface

    with monkeypatch.context() as importing:
        if not torch.cuda.is_available():
            importing.setenv("TRITON_INTERPRET", "1")  # their first import decides for all tests
        from model import group_norm_kernels
        from model.rasterizers import triton_kernels

    for kernels in (triton_kernels, group_norm_kernels):
        for name, value in vars(kernels).items():
            if isinstance(value, KernelInterface):
                monkeypatch.setattr(kernels, name, Kernel())
    package = SimpleNamespace(__version__="1.5.3", rasterization=rasterization)
    monkeypatch.setattr(packages, "load", lambda *_: package)
    monkeypatch.setattr(gsplat, "_has_kernels", lambda: True)
    monkeypatch.setattr(steps, "backward", lambda *_: None)
    caches = (constants._constant, positional.position_code, ssim._window)
    for cached in caches:
        cached.cache_clear()
    yield FakeTensorMode()
    for cached in caches:
        cached.cache_clear()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    prepare_dataset("chairs", OBJECTS, folder, workers=1)
    return folder


def inputs_of(config: TrialConfig, context: Context, home: Path, losses: Iterable[str]) -> StepInputs:
    """Inputs of the first step, with a weight of each loss."""
    store = open_dataset(config.data.name, config.data.options, home)
    batch = draw_batch(store, store.split("train"), config, 0)
    inputs = step_inputs(batch, context, config.train.stages[0], 0, 0, config.seed)
    return replace(inputs, weights={name: torch.ones(()) for name in losses})


def fusions() -> list[tuple[dict[str, Any], dict[str, tuple[int, ...]]]]:
    """Sections of a configuration, and the shape of each source's context for one view, for every fusion."""
    found = []
    for source, kinds in CONTEXTS.items():
        for name in FUSION:
            kind = context_type_for(resolve(FUSION, name, "fusion"), source)
            if kind is not None:
                switch = {"semantic": {"encoder": "dinov2_small"}, "depth": {"model": "oracle"}}[source]
                found.append(({source: {**switch, "fusion": name}}, {source: kinds[kind]}))
    return found


ONE_LOSS = {"stages": [{"iterations": 1, "lr": 1e-3, "losses": {"l2": 1.0}}]}


@pytest.mark.parametrize(
    ("sections", "shapes"),
    [
        ({}, {}),
        *fusions(),
        *(({"model": {"backbone": name}}, {}) for name in BACKBONES),
        ({"model": {"input_views": 2, "camera_embedding": True}}, {}),
        ({"model": {"sh_degree": 0}, "train": {"nonfinite": "ignore"}}, {}),
        ({"render": {"backend": "gsplat", "antialiasing": True}}, {}),
        ({"model": {"name": "pixelnerf"}, "train": ONE_LOSS}, {}),
    ],
    ids=lambda value: re.sub("[{}']", "", str(value)),
)
def test_every_tensor_lies_on_the_gpu(
    sections: dict[str, Any],
    shapes: dict[str, tuple[int, ...]],
    mode: FakeTensorMode,
    weights: WeightStore,
    home: Path,
) -> None:
    config = configuration({"render": {"backend": "triton"}, **sections})
    names = config.train.stages[0].losses if sections else LOSSES
    views = config.model.input_views
    context = Context(**{source: torch.zeros(2, views, *shape) for source, shape in shapes.items()})
    inputs = inputs_of(config, context, home, names)
    widths = {source: shape[0 if len(shape) == 3 else -1] for source, shape in shapes.items()}
    network: Reconstructor = build_reconstructor(config, widths, weights, initial=False).train()
    losses = {name: copy.deepcopy(resolve(LOSSES, name, "loss")(weights)) for name in names}  # LPIPS shares its network
    for module in (network, *losses.values()):
        move(module, mode)
    fuse(network)
    inputs = rebuild(inputs, (on_gpu(tensor, mode) for tensor in tensors_of(inputs)))
    with mode:
        optimizer = FlatAdam(flatten_parameters(network), 1e-3, config.method.adam_eps)
        guard = NonFiniteGuard(config.train.nonfinite, GPU)
        step, averages = Step(network, losses, optimizer, guard, config.train.nonfinite == "ignore"), Averages()
        for checks in (nullcontext(), OneDevice()):  # constants are made in the first step, once
            with checks:
                done = step(inputs)
                averages.add(done.losses, done.counts, 0.1)
