"""Objects as several rows of a sweep reconstruct them, arranged side by side for an interactive viewer.

The exhibition's frame has z up; a viewer in front of it looks along -x and sees columns along y.  Each row of the sweep
is a column, each object a line of them, upright and with its input view to the front.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from jobs.data.inspect import nearest_point
from jobs.data.store import Store
from jobs.evaluate import object_views, predicting
from jobs.gaussian_sources import find_object, gaussians_on_surface
from jobs.pixels import as_pictures
from jobs.trained import open_trained
from jobs.turntable import upright_axes
from model.scenes import GaussianScene, Scene
from model.types import SH_DC, Cameras, Gaussians, Views
from results.records.plan import RecordedTrial

Floats = NDArray[np.float32]

#: columns before those of the rows
INPUT, TRUTH = "input", "ground truth"
#: Gaussians with a lower opacity are left out: they are invisible, and most of a network's Gaussians are among them
LEAST_OPACITY = 0.02
#: most views whose depth maps make the ground truth, and the side of these maps in pixels: training's may be too coarse
TRUTH_VIEWS, TRUTH_SIDE = 8, 128
#: distance between columns, in units of the radius that the input view shows
SPACING = 2.2
#: share of a wide window (16:10) that the viewer's panel covers, and the width of what is seen in that window from a
#: distance of 1
PANEL_SHARE, WIDTH_AT_ONE = 0.24, 2.35


@dataclass(frozen=True)
class Splats:
    """N Gaussians in the exhibition's frame; colours are those of the constant harmonic."""

    centers: Floats  # (N, 3)
    covariances: Floats  # (N, 3, 3)
    colours: Floats  # (N, 3) in [0, 1]
    opacities: Floats  # (N, 1)


@dataclass(frozen=True)
class Picture:
    """An upright picture that faces the viewer."""

    pixels: NDArray[np.uint8]  # (H, W, 3)
    center: tuple[float, float, float]
    width: float
    height: float


@dataclass(frozen=True)
class Exhibit:
    """One object as one column shows it."""

    column: str
    object: str
    content: Splats | Picture


@dataclass(frozen=True)
class Label:
    """A name in the exhibition's frame: of a column, above it, or of an object, beside its line."""

    text: str
    position: tuple[float, float, float]


@dataclass(frozen=True)
class Exhibition:
    """All exhibits with the names of their columns and lines, and a viewer's first place."""

    exhibits: tuple[Exhibit, ...]
    labels: tuple[Label, ...]
    camera: tuple[float, float, float]
    look_at: tuple[float, float, float]


@dataclass(frozen=True)
class _Stand:
    """Place and scale of one object: scene points -> the exhibition's frame."""

    axes: Floats  # (3, 3), rows are the exhibition's axes in the scene
    middle: Floats  # (3,) of the object
    radius: float  # half of what the input view shows there
    column: int
    line: int

    @property
    def origin(self) -> Floats:
        return np.array([0, self.column * SPACING, -self.line * SPACING], np.float32)

    def splats(self, gaussians: Gaussians) -> Splats:
        """One scene of Gaussians, (1, N, ...), here."""
        means, scales, rotations, opacities, sh = (
            getattr(gaussians, name)[0].float().cpu() for name in ("means", "scales", "rotations", "opacities", "sh")
        )
        seen = (opacities[:, 0] > LEAST_OPACITY).numpy()
        local = Rotation.from_quat(rotations.numpy(), scalar_first=True).as_matrix()  # (N, 3, 3), local axes -> scene
        frame = self.axes @ local * scales[:, None, :].numpy() / self.radius
        colours = (0.5 + SH_DC * sh[:, 0]).clamp(0, 1).numpy()
        centers = (means.numpy() - self.middle) @ self.axes.T / self.radius + self.origin
        covariances = frame @ frame.transpose(0, 2, 1)
        found = (centers, covariances, colours, opacities.numpy())
        return Splats(*(np.ascontiguousarray(part[seen], np.float32) for part in found))

    def picture(self, image: torch.Tensor) -> Picture:
        """An image (3, H, W) here."""
        pixels = as_pictures(image)
        x, y, z = map(float, self.origin)
        return Picture(pixels, (x, y, z), 2.0, 2.0 * pixels.shape[0] / pixels.shape[1])


def exhibition(
    home: Path, trials: Sequence[RecordedTrial], objects: int | Sequence[str], device: torch.device
) -> Exhibition:
    """Objects as each of `trials` reconstructs them, the input and the truth first.

    `objects` are names, or the number of the first evaluated objects.
    A line is one object of one dataset and split, so trials that are evaluated on others have lines of their own.
    The truth is the surface that depth maps give, or without depth a picture.  A scene that is not made of Gaussians is
    shown as its rendering of the input view.  Gaussians that are not finite are left out.  Raises ValueError for a
    trial without weights, and an object that its dataset does not have.
    """
    exhibits: list[Exhibit] = []
    lines: dict[tuple[str, str, str], int] = {}
    for place, trial in enumerate(trials):
        opened = open_trained(home, trial.key)
        config, store = opened.config, opened.store
        chosen = _chosen(store, config.eval.split, objects)
        trained = opened.load(device, {row.split for row in chosen})
        predict = predicting(trained.reconstructor, trained.context, config)
        column = f"{trial.name} (row)" if trial.name in (INPUT, TRUTH) else trial.name
        for row in chosen:
            views = object_views(store, row, config.data.resolution, config.model.input_views, device)
            name = str(row.object)
            shown = (store.fingerprint, row.split, name)
            if is_new := shown not in lines:
                lines[shown] = len(lines)
            line = lines[shown]
            if is_new:
                side = max(config.data.resolution, min(store.resolution, TRUTH_SIDE))
                finer = object_views(store, row, side, config.model.input_views)
                exhibits += _given(finer, store, name, line)
            with torch.inference_mode():
                scene = predict(views.select(0, config.model.input_views))
                exhibits.append(_shown(scene, views, column, name, stand(views.cameras, place + 2, line)))
    columns = tuple(dict.fromkeys(exhibit.column for exhibit in exhibits))
    labels = [Label(name, (0.0, SPACING * (place - 0.3), 1.4)) for place, name in enumerate(columns)]
    labels += [Label(name, (0.0, -0.9 * SPACING, -SPACING * place)) for (_, _, name), place in lines.items()]
    # The viewer's panel covers a quarter of a wide window, on the right; the names of the lines are on the left.
    seen = (len(columns) + 0.8) / (1 - PANEL_SHARE)
    middle = (0.0, SPACING * (seen / 2 - 1.2), -SPACING * (len(lines) - 1) / 2)
    distance = SPACING * max(seen / WIDTH_AT_ONE, len(lines) / 1.2, 1.5)
    return Exhibition(tuple(exhibits), tuple(labels), (distance, middle[1], middle[2] + 0.2 * distance), middle)


def _chosen(store: Store, split: str, objects: int | Sequence[str]) -> list[Any]:
    """The rows of named objects, or of the first of a split."""
    if isinstance(objects, int):
        return list(store.split(split).head(objects).itertuples())
    return [find_object(store, name, split) for name in objects]


def _given(views: Views, store: Store, name: str, line: int) -> Iterator[Exhibit]:
    """The input view, and the ground truth."""
    place = stand(views.cameras, 0, line)
    yield Exhibit(INPUT, name, place.picture(views.images[0, 0]))
    place = stand(views.cameras, 1, line)
    if store.depth is None or views.depth is None:
        yield Exhibit(TRUTH, name, place.picture(views.images[0, -1]))
        return
    truth = gaussians_on_surface(views.select(0, TRUTH_VIEWS))
    yield Exhibit(TRUTH, name, place.splats(truth))


def _shown(scene: Scene, views: Views, column: str, name: str, place: _Stand) -> Exhibit:
    if isinstance(scene, GaussianScene):
        return Exhibit(column, name, place.splats(scene.without_non_finite().gaussians))
    first = views.select(0, 1)
    image = scene.render(first.cameras, first.background).images[0, 0]
    return Exhibit(f"{column} (picture)", name, place.picture(image))


def stand(cameras: Cameras, column: int, line: int) -> _Stand:
    """The place of an object that cameras (1, V) look at, with V > 1: one alone does not determine its distance.

    Its upward axis is the cameras' mean one, its front that of the first camera.
    """
    given = cameras.world_to_camera[0].double().cpu().numpy()
    if len(given) < 2:
        raise ValueError("the place of an object needs at least 2 views of it")
    middle = nearest_point(given, np.zeros((len(given), 2)))
    outward = -given[0, :3, :3].T @ given[0, :3, 3] - middle
    axes = upright_axes(-given[:, 1, :3].mean(axis=0), outward)
    radius = float(np.linalg.norm(outward) * cameras.width / 2 / float(cameras.focal[0, 0, 0]))
    return _Stand(axes.astype(np.float32), middle.astype(np.float32), radius, column, line)
