"""Evaluation, used during training, after training, and for the trivial baselines.

Each object is reconstructed from its source views.  *Conditioned* views are rendered from the sources' own cameras;
*novel* views are all others.  Scores are per view, then averaged per object; a table averages over objects.

An object whose Gaussians are not finite has NaN for all scores on a CPU, which refuses to draw them, and so have the
means; the log names it.  They are left out, as published, on a GPU and with `train.nonfinite: ignore`.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from jobs.config import TrialConfig
from jobs.data.sampling import FrameRange, evaluation_frames
from jobs.data.store import Store
from jobs.metrics import METRICS
from jobs.metrics.base import EvaluatedViews
from jobs.metrics.metric_set import MetricSet
from jobs.pixels import as_bytes
from jobs.stop import ShouldStop, StopRequestedError, never
from model.rasterizers.validation import NonFiniteGaussiansError
from model.scenes import Reconstructor, Scene
from model.types import Context, Rendering, Views
from model.weights import WeightStore
from results.metrics import VIEW_KINDS
from results.records.trial_folder import MEASUREMENTS_FILENAME, SAMPLES_FILENAME

#: source views -> a scene
Predict = Callable[[Views], Scene]
#: source (1, S views), targets (1, V views; cameras relative to the first source) -> whole views (1, V)
Draw = Callable[[Views, Views], Rendering]

SAMPLE_OBJECTS = 6
SAMPLE_VIEWS = 3

#: of the scores by object
_COLUMNS = ["object", "category", "split", "view_kind", "metric", "value"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Results of one evaluation."""

    per_object: pd.DataFrame  # columns `_COLUMNS`
    #: objects (K,), source (K, 3, H, W), target and render (K, M, 3, H, W), pictures as uint8
    samples: dict[str, np.ndarray]
    #: median seconds of an object
    object_s: float

    def means(self) -> dict[str, float]:
        """Mean over objects: {"novel/psnr": ..., "conditioned/lpips": ..., ...}, of unclamped colours.

        A NaN among the objects makes it NaN, as in the tables.
        """
        rows = self.per_object[self.per_object["metric"].isin(METRICS)]
        names = rows["view_kind"] + "/" + rows["metric"]
        return {str(name): float(value) for name, value in rows["value"].groupby(names).mean(skipna=False).items()}

    def write(self, folder: Path) -> None:
        """Writes `per_object.parquet` and `samples.npz` into `folder`."""
        self.per_object.to_parquet(folder / MEASUREMENTS_FILENAME, index=False)
        np.savez_compressed(folder / SAMPLES_FILENAME, **self.samples)  # type: ignore[arg-type]


def no_context(source: Views) -> Context:  # noqa: ARG001 - the signature of a `ContextReader`
    """A context without any source."""
    return Context()


def predicting(reconstructor: Reconstructor, context: Callable[[Views], Context], config: TrialConfig) -> Predict:
    """The prediction function of a network, for evaluation: source views -> a scene."""

    def predict(source: Views) -> Scene:
        reconstructor.eval()
        scene: Scene = reconstructor(source, context(source))
        return scene.without_non_finite() if config.train.nonfinite == "ignore" else scene

    return predict


def drawing(predict: Predict, geometry: bool = False) -> Draw:
    """The rendering function of predictions: source views -> a scene -> its rendering from the targets' cameras.

    geometry: whether renderings include opacity and inverse depth, if the scene has them.
    """

    def draw(source: Views, targets: Views) -> Rendering:
        scene = predict(source)
        rendering = scene.render(targets.cameras, targets.background)
        return scene.with_geometry(rendering, targets.cameras) if geometry else rendering

    return draw


def evaluate_predictions(
    predict: Predict,
    config: TrialConfig,
    store: Store,
    weights: WeightStore,
    device: torch.device,
    split: str | None = None,
    limit: int | None = None,
    *,
    should_stop: ShouldStop = never,
) -> Evaluation:
    """Evaluates predictions as configured; `split` with `limit` (its first objects) overrides the configuration's."""
    metrics = MetricSet(config.metrics, config.eval.lpips, weights).to(device)
    return evaluate(
        drawing(predict, metrics.of_geometry),
        store,
        split=split or config.eval.split,
        resolution=config.data.resolution,
        limit=limit if split else config.eval.objects,
        input_views=config.model.input_views,
        metrics=metrics,
        device=device,
        should_stop=should_stop,
    )


@torch.inference_mode()
def evaluate(
    draw: Draw,
    store: Store,
    *,
    split: str,
    resolution: int,
    limit: int | None,
    metrics: MetricSet,
    device: torch.device,
    input_views: int = 1,
    should_stop: ShouldStop = never,
) -> Evaluation:
    """Evaluates `draw` on the first `limit` objects of a split (None: all of them).

    Raises `StopRequestedError` where a stop is requested between two objects.
    """
    records: list[dict[str, object]] = []
    samples: list[tuple[str, Views, Tensor]] = []
    seconds: list[float] = []
    objects = store.split(split).iloc[:limit]
    for number, row in enumerate(objects.itertuples()):
        if should_stop():
            raise StopRequestedError(f"stopped in its evaluation, after {number} of {len(objects)} objects")
        began = time.perf_counter()
        views = object_views(store, row, resolution, input_views, device)
        masks = store.masks(views.frames.cpu().numpy(), resolution, device) if "mask" in metrics.of_truth else None
        true, kinds = EvaluatedViews.true(views, masks), _kinds(views.images[0], input_views)
        try:
            rendering = draw(views.select(0, input_views), views)
        except NonFiniteGaussiansError as error:
            log.warning("%s of %s cannot be drawn, so its scores and the means are NaN: %s", row.object, split, error)
            images = torch.zeros_like(views.images)
            scores = [score._replace(value=math.nan) for score in metrics(true, true, kinds)]
        else:
            images = rendering.images
            scores = metrics(EvaluatedViews.rendered(rendering, views), true, kinds)
        seconds.append(time.perf_counter() - began)  # scores are numbers: a GPU has finished
        of_object = {"object": str(row.object), "category": str(row.category), "split": split}
        records += [of_object | score._asdict() for score in scores]
        if len(samples) < SAMPLE_OBJECTS:
            samples.append((str(row.object), views, images))
    # A trivial baseline may have no score at all: where only geometry is evaluated, copied pictures have none.
    per_object = pd.DataFrame(records, columns=_COLUMNS).astype({"value": "float64"})
    return Evaluation(per_object, _pack_samples(samples, input_views), statistics.median(seconds))


def object_views(
    store: Store, row: FrameRange, resolution: int, input_views: int = 1, device: torch.device | str = "cpu"
) -> Views:
    """All views (1, V) of an object, its sources first."""
    frames = evaluation_frames(row, store.manifest.evaluation, input_views)[None]
    return store.views(frames, resolution, device)


def _kinds(target: Tensor, input_views: int) -> dict[str, Tensor]:
    """Masks (N,) bool of the views of each kind, for an object's views (N, 3, H, W), sources first."""
    # The published evaluation leaves out images that are entirely black.
    seen = target.flatten(1).any(1)
    novel = torch.arange(len(target), device=target.device) >= input_views
    return dict(zip(VIEW_KINDS, (seen & ~novel, seen & novel), strict=True))


def _pack_samples(samples: list[tuple[str, Views, Tensor]], input_views: int) -> dict[str, np.ndarray]:
    fewest = min(views.images.shape[1] for _, views, _ in samples)
    # Spread over the novel views, which follow the sources.
    spread = np.linspace(input_views, fewest - 1, SAMPLE_VIEWS).round().astype(int)
    chosen = np.unique(spread) if fewest > input_views else [0]
    return {
        "objects": np.array([name for name, _, _ in samples]),
        "source": np.stack([as_bytes(views.images[0, 0]) for _, views, _ in samples]),
        "target": np.stack([as_bytes(views.images[0, chosen]) for _, views, _ in samples]),
        "render": np.stack([as_bytes(render[0, chosen]) for _, _, render in samples]),
    }
