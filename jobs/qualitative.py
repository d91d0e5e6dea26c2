"""Chosen objects and views, as several rows of a sweep reconstruct them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.data.sampling import evaluation_frames
from jobs.data.store import Store
from jobs.evaluate import SAMPLE_VIEWS, drawing, predicting
from jobs.gaussian_sources import find_object
from jobs.metrics.psnr import psnr
from jobs.pixels import as_bytes
from jobs.precision import products
from jobs.trained import load_trained
from model.types import Views
from results.figures.qualitative import QualitativeFigure, pictures_of
from results.gallery import Gallery
from results.records.plan import RecordedTrial


def draw_rows(
    home: Path,
    rows: Mapping[str, RecordedTrial],
    objects: Mapping[str, str],
    frames: Sequence[int],
    device: torch.device,
) -> QualitativeFigure:
    """The objects as the trial of each row reconstructs them, in the resolution of its evaluation.

    `objects` maps names to the reasons why they are shown, or "".  `frames` are numbers of views among an object's,
    from 0; empty: three of its novel views, spread evenly.
    Raises ValueError for an object or a view that the dataset does not have, and for rows with other pictures.
    """
    views: list[Views] = []
    renders, scores = {}, {}
    _check_same_pictures(rows)
    for row, trial in rows.items():
        trained = load_trained(home, trial.key, device)
        config, sources = trained.config, trained.config.model.input_views
        if not views:
            store = open_dataset(config.data.name, config.data.options, home)
            views = _views(store, config, list(objects), frames, device)
        draw = drawing(predicting(trained.reconstructor, trained.context, config))
        with torch.inference_mode(), products(config.train.precision):
            images = [draw(each.select(0, sources), _shown(each, sources)).images[0] for each in views]
        targets = [_shown(each, sources).images[0] for each in views]
        renders[row] = np.stack([as_bytes(image) for image in images])
        scores[row] = np.stack(
            [psnr(image, target).double().cpu().numpy() for image, target in zip(images, targets, strict=True)]
        )
    gallery = Gallery(
        objects=tuple(objects),
        source=np.stack([as_bytes(each.images[0, 0]) for each in views]),
        target=np.stack([as_bytes(target) for target in targets]),
        renders=renders,
        ranks=tuple(objects.values()) if any(objects.values()) else (),
    )
    begins = [int(find_object(store, name, config.eval.split).first_frame) for name in objects]
    numbers = [_shown(each, sources).frames[0].cpu().numpy() - begin for each, begin in zip(views, begins, strict=True)]
    known = {row: {"key": trial.key, "seed": trial.seed} for row, trial in rows.items()}
    return QualitativeFigure(gallery, np.stack(numbers), scores, known)


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
    store: Store, config: TrialConfig, objects: Sequence[str], frames: Sequence[int], device: torch.device
) -> list[Views]:
    """The source views of each object, and then those with the numbers `frames`."""
    rows = [find_object(store, name, config.eval.split) for name in objects]
    sources = config.model.input_views
    evaluated = [evaluation_frames(row, store.manifest.evaluation, sources) for row in rows]
    fewest = min(len(numbers) for numbers in evaluated) - sources
    found = []
    for row, numbers in zip(rows, evaluated, strict=True):
        if wrong := [frame for frame in frames if not 0 <= frame < row.num_frames]:
            raise ValueError(f"--view {wrong[0]}: object {row.object!r} has the views 0 to {row.num_frames - 1}")
        if frames:
            shown = row.first_frame + np.array(frames)
        elif fewest:
            shown = numbers[np.linspace(sources, len(numbers) - 1, min(SAMPLE_VIEWS, fewest)).round().astype(int)]
        else:
            shown = numbers[:1]
        both = np.concatenate([numbers[:sources], shown])
        found.append(store.views(both[None], config.data.resolution, device))
    return found


def _shown(views: Views, sources: int) -> Views:
    """The views behind the sources."""
    return views.select(sources, views.images.shape[1])
