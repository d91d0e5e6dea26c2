"""Chosen objects and views, as several rows of a sweep reconstruct them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.data.sampling import evaluation_frames
from jobs.data.store import Store
from jobs.evaluate import SAMPLE_VIEWS, Draw, drawing, predicting
from jobs.gaussian_sources import find_object
from jobs.metrics.psnr import psnr
from jobs.pixels import as_bytes
from jobs.precision import products
from jobs.trained import open_trained
from model.rasterizers.validation import NonFiniteGaussiansError
from model.types import Views
from results.figures.qualitative import QualitativeFigure, pictures_of
from results.gallery import Gallery
from results.records.plan import RecordedTrial

log = logging.getLogger(__name__)


def draw_rows(
    home: Path,
    rows: Mapping[str, RecordedTrial],
    objects: Mapping[str, str],
    frames: Sequence[int],
    device: torch.device,
) -> QualitativeFigure:
    """The objects as the trial of each row reconstructs them, in the resolution of its evaluation.

    `objects` maps names to the reasons why they are shown, or "".  `frames` are numbers of views among an object's,
    from 0; empty: three views that are novel for all rows, spread evenly.
    An object whose Gaussians are not finite is black with a PSNR of NaN, as in an evaluation; a warning names it.
    Raises ValueError for an object or a view that the dataset does not have, and for rows with other pictures.
    """
    _check_same_pictures(rows)
    opened = {row: open_trained(home, trial.key) for row, trial in rows.items()}
    _, _, first, store = next(iter(opened.values()))
    found = [find_object(store, name, first.eval.split) for name in objects]
    counts = {training.config.model.input_views for training in opened.values()}
    shown = _numbers(store, found, frames, counts)
    given = {count: _views(store, found, shown, count, first.data.resolution, device) for count in counts}
    renders, scores = {}, {}
    for row, training in opened.items():
        config, reconstructor, context = training.load(device, {each.split for each in found})
        sources, draw = config.model.input_views, drawing(predicting(reconstructor, context, config))
        views = given[sources]
        targets = [each.select(sources, each.images.shape[1]) for each in views]
        with torch.inference_mode(), products(config.train.precision):
            drawn = [
                _drawn(draw, each.select(0, sources), target, f"{name} by {row}")
                for name, each, target in zip(objects, views, targets, strict=True)
            ]
        renders[row] = np.stack([as_bytes(images) for images, _ in drawn])
        scores[row] = np.stack([decibels.double().cpu().numpy() for _, decibels in drawn])
    gallery = Gallery(
        objects=tuple(objects),
        source=np.stack([as_bytes(each.images[0, 0]) for each in views]),
        target=np.stack([as_bytes(target.images[0]) for target in targets]),
        renders=renders,
        ranks=tuple(objects.values()) if any(objects.values()) else (),
    )
    known = {row: {"key": trial.key, "seed": trial.seed} for row, trial in rows.items()}
    return QualitativeFigure(gallery, shown, scores, known)


def _drawn(draw: Draw, source: Views, target: Views, what: str) -> tuple[Tensor, Tensor]:
    """Renders (M, 3, H, W) of one object and their PSNR (M,)."""
    truth = target.images[0]
    try:
        images = draw(source, target).images[0]
    except NonFiniteGaussiansError as error:
        log.warning("%s cannot be drawn, so it is black and its PSNR is NaN: %s", what, error)
        return torch.zeros_like(truth), truth.new_full((len(truth),), torch.nan)
    return images, psnr(images, truth)


def _check_same_pictures(rows: Mapping[str, RecordedTrial]) -> None:
    """Raises ValueError where two rows are given other pictures."""
    settings = {row: pictures_of(trial.flat_config) for row, trial in rows.items()}
    first, *others = settings
    for row in others:
        names = settings[first].keys() | settings[row].keys()
        if differing := sorted(name for name in names if settings[first].get(name) != settings[row].get(name)):
            raise ValueError(
                f"rows {first!r} and {row!r} have other pictures ({', '.join(differing)}); choose rows with --row"
            )


def _views(
    store: Store, objects: Sequence[Any], shown: NDArray[np.int64], sources: int, resolution: int, device: torch.device
) -> list[Views]:
    """The source views of each object, and then those with the numbers `shown` (K, M)."""
    found = []
    for each, numbers in zip(objects, shown, strict=True):
        given = evaluation_frames(each, store.manifest.evaluation, sources)[:sources]
        found.append(store.views(np.concatenate([given, each.first_frame + numbers])[None], resolution, device))
    return found


def _numbers(
    store: Store, objects: Sequence[Any], frames: Sequence[int], input_views: Collection[int]
) -> NDArray[np.int64]:
    """The numbers (K, M) of the views to show of K objects, of which rows are given so many source views."""
    for each in objects:
        if wrong := [frame for frame in frames if not 0 <= frame < each.num_frames]:
            raise ValueError(f"--view {wrong[0]}: object {each.object!r} has the views 0 to {each.num_frames - 1}")
    if frames:
        return np.array([frames] * len(objects))
    novel = []
    for each in objects:
        of_rows = [evaluation_frames(each, store.manifest.evaluation, count)[count:] for count in input_views]
        novel.append(sorted(set.intersection(*map(set, of_rows))) or [each.first_frame])
    count = min(SAMPLE_VIEWS, *map(len, novel))
    places = [np.linspace(0, len(numbers) - 1, count).round().astype(int) for numbers in novel]
    return np.array(
        [np.array(n)[p] - each.first_frame for each, n, p in zip(objects, novel, places, strict=True)], np.int64
    )
