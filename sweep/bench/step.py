"""Benchmark of a training step: our network against the same in stock torch, and the parts of a step.

One network has four variants: stock torch in its default layout, stock torch in channels last, `torch.compile`, ours.

Torch's counter counts FLOP on the stock network, 2 per multiply-add, forward and backward.  The convolution peak is the
performance of the machine's library, forward and backward, on the fastest of the shapes of `PEAK_SHAPES`; its
convolution runs in turn with the cases, so that other load affects both equally.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from jobs.adam import FlatAdam
from jobs.batch import draw_batch
from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.data.prepare import prepare as prepare_dataset
from jobs.data.store import Store
from jobs.device import prepare
from jobs.features import ContextReader
from jobs.flat import backward, flatten_parameters
from jobs.memory import keep_freed_memory
from jobs.reconstructor import build_reconstructor
from model.methods.splatter_image import SplatterImage
from model.methods.splatter_image.backbones.unet import UNet
from model.native.accelerate import accelerate
from model.types import Context
from model.weights import WeightStore
from results.records.home import cache_folder
from sweep.bench.measure import BenchResult, Convolution, fastest_convolution, interleaved, machine, torch_threads
from sweep.bench.step_gpu import gpu_step_rows


@dataclass(frozen=True)
class Size:
    """The size of a network, in terms of a configuration."""

    resolution: int
    base_dim: int
    num_blocks: int
    attention: int
    batch: int = 8

    @property
    def name(self) -> str:
        """The size as text: resolution, base width, blocks per level, batch."""
        return f"{self.resolution}/{self.base_dim}/{self.num_blocks}/{self.batch}"

    @property
    def model(self) -> dict[str, Any]:
        """The section `model` of a configuration."""
        return {
            "base_dim": self.base_dim,
            "num_blocks": self.num_blocks,
            "attention_resolutions": [self.attention],
        }

    def unet(self) -> UNet:
        return UNet(
            resolution=self.resolution,
            base_dim=self.base_dim,
            num_blocks=self.num_blocks,
            attention_resolutions=(self.attention,),
        )


#: The network of the preset `laptop`, and one with four times its pixels and its FLOP per pixel.
SIZES = (Size(32, 16, 1, 8), Size(64, 32, 2, 16))
QUICK_SIZES = (Size(16, 8, 1, 8, batch=2),)

#: As in the preset `laptop`; random weights cost as much per step as trained ones.
CONDITIONED = {"model": "random", "resolution": 128, "options": {"of": "dpt_large"}}
QUICK_CONDITIONED = CONDITIONED | {"options": {"of": "midas_small"}}
#: The published fusions.
FUSIONS = ("input", "xattn")


def run(quick: bool) -> BenchResult:
    """Measures all sizes; with `quick`, a tiny one with a smaller depth network.

    On a machine with a GPU it measures the GPU instead, and the laptop's step on two CPU cores; `quick` leaves out
    `torch.compile`.
    """
    keep_freed_memory()
    if torch.cuda.is_available():
        return _on_gpu(quick)
    rounds = 3 if quick else 15
    rows = []
    with torch_threads(1):
        peak = fastest_convolution(batch=2 if quick else 8, rounds=2 if quick else 5)
        for size in QUICK_SIZES if quick else SIZES:
            rows += _network_rows(size, peak, rounds, compiled=not quick)
            rows += _step_rows(size, QUICK_CONDITIONED if quick else CONDITIONED, rounds)
    notes = [
        "one thread, as a trial has by default",
        f"peak: a 3x3 convolution of {peak.channels} channels, {peak.side}x{peak.side} pixels, batch {peak.batch}",
        "network: forward, backward and Adam.  stock: the network in torch's own operators and default layout; "
        "compiled: torch.compile in channels last, its first call not counted; ours: model.native.accelerate",
        "step: batch, network, rendering, loss, backward, Adam; its parts and the conditioned ones as a share of it",
    ]
    return BenchResult("step", machine(), rows, notes)


def _on_gpu(quick: bool) -> BenchResult:
    rows = list(gpu_step_rows(rounds=10 if quick else 20, compiled=not quick))
    columns = dict.fromkeys(name for row in rows for name in row)
    rows.append(dict.fromkeys(columns) | row_of_two_cpu_cores())
    notes = [
        "step: batch, network, 32 renders, squared error, backward, Adam",
        "published style: the network as written, default layout, TF32, a rasteriser call a render",
        "busy: of the time from the first kernel to the last; launches, synchronisations of host and device, and peak "
        "memory of one step, beside weights and Adam's state; the cpu row has two threads; what has no figures did not "
        "fit into the GPU's memory, or says what it lacks or how it fails",
    ]
    return BenchResult("step", machine(), rows, notes)


def row_of_two_cpu_cores() -> dict[str, Any]:
    """The laptop's step on two CPU cores, as a row beside those of a GPU."""
    with torch_threads(2):
        ms = _step_rows(SIZES[0], None, rounds=10)[0]["ms"]
    case = {"size": "laptop", "case": "ours", "backend": "cpu", "execution": "eager", "precision": "float32"}
    return case | {"device": "cpu", "ms": ms}


def _network_rows(size: Size, peak: Convolution, rounds: int, *, compiled: bool) -> list[dict[str, Any]]:
    """Measures the variants in turn; `compiled` includes `torch.compile`, which takes a minute."""
    torch.manual_seed(0)
    stock = size.unet()
    sides: dict[str, nn.Module] = {
        "network, stock": copy.deepcopy(stock),
        "network, channels last": copy.deepcopy(stock).to(memory_format=torch.channels_last),
        "network, ours": accelerate(copy.deepcopy(stock).to(memory_format=torch.channels_last)),
    }
    if compiled:
        network = copy.deepcopy(stock).to(memory_format=torch.channels_last)
        network.compile(dynamic=False)
        sides["network, compiled"] = network
    images = torch.rand(size.batch, 3, size.resolution, size.resolution)
    in_channels_last = images.contiguous(memory_format=torch.channels_last)
    cases = {
        name: _network_step(network, images if name == "network, stock" else in_channels_last)
        for name, network in sides.items()
    }
    with FlopCounterMode(display=False) as counter:
        cases["network, stock"]()
    gflop = counter.get_total_flops() / 1e9
    times = {name: median(ms) for name, ms in interleaved(cases | {"peak": peak.case()}, rounds).items()}
    peak_rate = 1e3 * peak.gflop / times["peak"]
    return [
        _row(
            size,
            name,
            times[name],
            of_stock=times[name] / times["network, stock"],
            gflop=gflop,
            gflop_per_s=1e3 * gflop / times[name],
            peak_gflop_per_s=peak_rate,
        )
        for name in cases
    ]


def _network_step(network: nn.Module, images: Tensor) -> Callable[[], None]:
    network.train()
    optimizer = FlatAdam(flatten_parameters(network), lr=5e-5, eps=SplatterImage.adam_eps)

    def step() -> None:
        backward(network(images, Context()).sum(), network, optimizer.weights)
        optimizer.step()

    return step


def _step_rows(size: Size, depth: dict[str, Any] | None, rounds: int) -> list[dict[str, Any]]:
    """Measures a whole step, its part for batches, and one conditioned on `depth`, on chairs in a temporary home."""
    data = {"name": "chairs", "resolution": size.resolution}
    data["options"] = {"train": size.batch, "val": 1, "test": 1, "views": 4, "image_size": 2 * size.resolution}
    train = {"batch_size": size.batch}
    plain = TrialConfig.model_validate({"data": data, "model": size.model, "train": train})
    conditioned = {
        f"step with {section['options']['of']}, {fusion}": TrialConfig.model_validate(
            {"data": data, "model": size.model, "train": train, "depth": section | {"fusion": fusion}}
        )
        for section in ([] if depth is None else [depth])
        for fusion in FUSIONS
    }
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        prepare_dataset(plain.data.name, plain.data.options, home)
        store = open_dataset(plain.data.name, plain.data.options, home)
        objects, counter = store.split("train"), itertools.count()
        cases = {
            "step": _training_step(plain, store, home),
            "batch": lambda: draw_batch(store, objects, plain, next(counter)),
        }
        for name, config in conditioned.items():
            cases[name] = _training_step(config, store, home)
        times = {name: median(ms) for name, ms in interleaved(cases, rounds).items()}
    return [_row(size, name, ms, of_step=ms / times["step"]) for name, ms in times.items()]


def _training_step(config: TrialConfig, store: Store, home: Path) -> Callable[[], None]:
    """One iteration of `jobs.training`, with the sources' features already cached."""
    weights = WeightStore(home / "weights")
    context = ContextReader(config, store, weights, cache_folder(home))
    predictor = prepare(build_reconstructor(config, context.widths, weights), torch.device("cpu")).train()
    optimizer = FlatAdam(flatten_parameters(predictor), lr=5e-5, eps=SplatterImage.adam_eps)
    objects, counter = store.split("train"), itertools.count()

    def step() -> None:
        batch = draw_batch(store, objects, config, next(counter))
        source, views = batch.source, batch.seen
        images = predictor(source, context(source)).render(views.cameras, views.background).images
        backward((images - views.images).square().mean(), predictor, optimizer.weights)
        optimizer.step()

    return step


def _row(size: Size, case: str, milliseconds: float, **figures: float) -> dict[str, Any]:
    row: dict[str, Any] = {"size": size.name, "case": case, "ms": milliseconds}
    for name in ("of_stock", "gflop", "gflop_per_s", "peak_gflop_per_s", "of_step"):
        row[name] = figures.get(name)
    rate, peak = row["gflop_per_s"], row["peak_gflop_per_s"]
    row["of_peak"] = rate / peak if rate and peak else None
    return row
