"""The only evaluation: used while training, after training, and for the trivial predictors alike.

Each object is seen from its source views.  *Conditioned* are those drawn again from their own cameras; *novel*
are all other views.  Numbers are per view first, then averaged per object; a table averages over objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from jobs.data.sampling import FrameRange, evaluation_frames
from jobs.data.store import Store
from jobs.metrics import METRICS, ImageMetrics
from model.types import Views
from results.records.trial_folder import MEASUREMENTS_FILENAME, SAMPLES_FILENAME

#: source (1, S views), targets (1, V views; cameras relative to the first source) -> pictures (1, V, 3, H, W)
Draw = Callable[[Views, Views], Tensor]

SAMPLE_OBJECTS = 6
SAMPLE_VIEWS = 3
VIEW_KINDS = ("conditioned", "novel")


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found."""

    #: columns object, split, view_kind, metric, value; see `jobs.metrics`
    per_object: pd.DataFrame
    #: objects (K,), source (K, 3, H, W), target and render (K, M, 3, H, W), pictures as uint8
    samples: dict[str, np.ndarray]

    def means(self) -> dict[str, float]:
        """Mean over objects: {"novel/psnr": ..., "conditioned/lpips": ..., ...}, published metrics only."""
        rows = self.per_object[self.per_object["metric"].isin(METRICS)]
        names = rows["view_kind"] + "/" + rows["metric"]
        return {str(name): float(value) for name, value in rows["value"].groupby(names).mean().items()}

    def write(self, folder: Path) -> None:
        """`per_object.parquet` and `samples.npz` into `folder`."""
        self.per_object.to_parquet(folder / MEASUREMENTS_FILENAME, index=False)
        np.savez_compressed(folder / SAMPLES_FILENAME, **self.samples)  # type: ignore[arg-type]


@torch.inference_mode()
def evaluate(
    draw: Draw,
    store: Store,
    *,
    split: str,
    resolution: int,
    limit: int | None,
    metrics: ImageMetrics,
    device: torch.device,
    input_views: int = 1,
) -> Evaluation:
    """Judge `draw` on the first `limit` objects of a split (None: all of them)."""
    records: list[dict[str, object]] = []
    samples: list[tuple[str, Views, Tensor]] = []
    for row in store.split(split).head(limit if limit is not None else len(store.objects)).itertuples():
        views = object_views(store, row, resolution, input_views, device)
        render = draw(views.select(0, input_views), views)
        values = metrics(render[0], views.images[0])
        records += _records(str(row.object), split, values, views.images[0], input_views)
        if len(samples) < SAMPLE_OBJECTS:
            samples.append((str(row.object), views, render))
    return Evaluation(pd.DataFrame(records), _pack_samples(samples, input_views))


def object_views(
    store: Store, row: FrameRange, resolution: int, input_views: int = 1, device: torch.device | str = "cpu"
) -> Views:
    """All views (1, V) of an object, its sources first."""
    frames = evaluation_frames(row, store.manifest.evaluation, input_views)[None]
    return store.views(frames, resolution, device)


def _records(
    name: str, split: str, values: dict[str, Tensor], target: Tensor, input_views: int
) -> list[dict[str, object]]:
    # A picture that is black everywhere shows nothing; the published evaluation leaves it out.
    seen = target.flatten(1).any(1)
    novel = torch.arange(len(target), device=target.device) >= input_views
    chosen = {"conditioned": seen & ~novel, "novel": seen & novel}
    return [
        {
            "object": name,
            "split": split,
            "view_kind": kind,
            "metric": metric,
            "value": value[views].mean().item(),
        }
        for kind, views in chosen.items()
        if views.any()
        for metric, value in values.items()
    ]


def _pack_samples(samples: list[tuple[str, Views, Tensor]], input_views: int) -> dict[str, np.ndarray]:
    def pixels(images: Tensor) -> np.ndarray:
        return (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()

    fewest = min(views.images.shape[1] for _, views, _ in samples)
    # Spread over the novel views, which stand behind the sources.
    spread = np.linspace(input_views, fewest - 1, SAMPLE_VIEWS).round().astype(int)
    chosen = np.unique(spread) if fewest > input_views else [0]
    return {
        "objects": np.array([name for name, _, _ in samples]),
        "source": np.stack([pixels(views.images[0, 0]) for _, views, _ in samples]),
        "target": np.stack([pixels(views.images[0, chosen]) for _, views, _ in samples]),
        "render": np.stack([pixels(render[0, chosen]) for _, _, render in samples]),
    }
