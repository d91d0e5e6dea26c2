"""One object as Gaussians, seen from a ring of cameras: what a trained network predicts, or what a dataset measured."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from jobs.checkpoint import CheckpointFolder
from jobs.config import TrialConfig
from jobs.data.cameras import look_at_origin
from jobs.data.inspect import nearest_point
from jobs.data.prepare import open_dataset
from jobs.data.sampling import evaluation_frames
from jobs.data.store import Store
from jobs.features import ContextReader
from jobs.nonfinite import without_non_finite
from jobs.trial import weights_folder
from model.build import build_predictor
from model.geometry import invert_rigid, pixel_rays
from model.predictor import GaussianPredictor
from model.rasterizers import render
from model.registry import nearest
from model.types import Cameras, Gaussians, Views
from model.weights import WeightStore

PICTURE_SUFFIXES = (".png", ".gif")
_COLUMNS = 6
_GIF_MILLISECONDS = 120
_SH_DC = 0.28209479177387814  # the constant spherical harmonic
#: Standard deviations in spacings of the pixels on the surface: neighbours meet where each has 3/5 of its height.
_SPREAD = 0.5
#: Depth gained per spacing beyond which it is taken for an edge; a surface seen at more than 76 degrees.
_STEEPEST = 4.0


@dataclass(frozen=True)
class Subject:
    """An object and how it was pictured, both in the axes of its first camera."""

    name: str
    gaussians: Gaussians  # one scene
    views: Views  # (1, V, ...)
    #: how it is drawn
    backend: str = "auto"
    antialiasing: bool = False


def predicted(folder: Path, home: Path, name: str | None = None) -> Subject:
    """What the network of the trial in `folder` makes of an object's source views.

    The object is by default the first that the trial is judged on; the checkpoint is the last, so the trial need not
    be finished.  Raises ValueError for a folder that is no trial's, a trial without a network or checkpoint, and an
    object that its dataset does not have.
    """
    config = _read_config(folder)
    checkpoint = CheckpointFolder(folder / "checkpoints").latest()
    if checkpoint is None:
        raise ValueError(f"trial {folder.name} has no checkpoint to load a network from")
    store = open_dataset(config.data.name, config.data.options, home)
    context = ContextReader(config, store, WeightStore(weights_folder(home)), home / "cache")
    network = build_predictor(config, context.widths)
    # Where training kept a moving average of the weights, that is what is judged.
    averaged = any(tensor.startswith("average.") for tensor in checkpoint.tensors)
    judged: GaussianPredictor = copy.deepcopy(network) if averaged else network
    checkpoint.restore(network, average=judged)

    row = _object(store, name, config.eval.split)
    views = _views(store, row, config.data.resolution, config.model.input_views)
    source = views.select(0, config.model.input_views)
    with torch.inference_mode():
        gaussians = judged.eval()(source, context(source))
    if config.train.nonfinite == "ignore":
        gaussians = without_non_finite(gaussians)
    return Subject(str(row.object), gaussians, views, config.render.backend, config.render.antialiasing)


def measured(store: Store, name: str | None = None) -> Subject:
    """An object's surface, one Gaussian for each pixel of each view, by default of the first test object.

    Raises ValueError for a dataset without depth, and an object that it does not have.
    """
    if store.depth is None:
        raise ValueError(f"{store.path.name} holds no depth, from which Gaussians could be placed")
    row = _object(store, name, "test")
    views = _views(store, row, store.resolution, 1)
    return Subject(str(row.object), gaussians_on_surface(views), views)


def gaussians_on_surface(views: Views) -> Gaussians:
    """Views (1, V) with depth -> one scene: a round, opaque Gaussian at the surface behind each pixel.

    Pixels at an edge are left out, where depth and colour are means over two surfaces.
    """
    assert views.depth is not None
    depth, cameras = views.depth[0], views.cameras
    spacing = depth / cameras.focal[0].mean(dim=-1)[:, None, None, None]  # (V, 1, H, W) of pixels, across the view
    relief = F.max_pool2d(depth, 3, stride=1, padding=1) + F.max_pool2d(-depth, 3, stride=1, padding=1)
    kept = ((depth > 0) & (relief < 2 * _STEEPEST * spacing)).flatten()
    points = pixel_rays(cameras.height, cameras.width, cameras.focal[0], cameras.principal[0]) * depth  # (V, 3, H, W)
    camera_to_world = invert_rigid(cameras.world_to_camera[0])
    means = torch.einsum("vij,vjhw->vhwi", camera_to_world[:, :3, :3], points) + camera_to_world[:, None, None, :3, 3]
    colours = views.images[0].permute(0, 2, 3, 1)
    count = int(kept.sum())
    return Gaussians(
        means=means.reshape(-1, 3)[kept][None],
        scales=(_SPREAD * spacing).reshape(-1, 1)[kept].expand(-1, 3)[None],
        rotations=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(1, count, 4),
        opacities=torch.ones(1, count, 1),
        sh=((colours.reshape(-1, 3)[kept] - 0.5) / _SH_DC)[None, :, None],
    )


def photograph(subject: Subject, count: int, size: int) -> Tensor:
    """Pictures (count, 3, size, size) from once around the object."""
    cameras = ring(subject.views.cameras, count, size)
    with torch.inference_mode():
        images = render(subject.gaussians, cameras, subject.views.background, subject.backend, subject.antialiasing)
    return images[0].clamp(0, 1)


def ring(cameras: Cameras, count: int, size: int) -> Cameras:
    """`count` cameras in even steps around what the given ones (1, V) look at, the first on the first one's side.

    Their distance and height are the mean of the given ones', upwards is where those have their heads on average, and
    the field of view is the first one's, in pictures of size x size pixels.  Raises ValueError for a single camera,
    which does not say how far away its object is.
    """
    given = cameras.world_to_camera[0].double().cpu().numpy()
    if len(given) < 2:
        raise ValueError("a ring of cameras needs an object with at least 2 views")
    if count < 1:
        raise ValueError(f"a ring needs at least 1 camera, got {count}")
    middle = nearest_point(given, np.zeros((len(given), 2)))
    outward = -np.einsum("vji,vj->vi", given[:, :3, :3], given[:, :3, 3]) - middle
    distances = np.linalg.norm(outward, axis=1)
    axes = _upright_axes(-given[:, 1, :3].mean(axis=0), outward[0])
    elevation = np.arcsin(np.clip(outward @ axes[2] / distances, -1, 1)).mean()

    upright = np.eye(4)
    upright[:3, :3], upright[:3, 3] = axes, -axes @ middle
    azimuths = 2 * np.pi * np.arange(count) / count
    around = look_at_origin(azimuths, np.full(count, elevation), distances.mean()) @ upright
    focal = cameras.focal[:, :1] * (size / cameras.width)
    return replace(
        cameras,
        world_to_camera=torch.from_numpy(around).float()[None],
        focal=focal.expand(1, count, 2),
        principal=torch.full((1, count, 2), size / 2),
        height=size,
        width=size,
    )


def _upright_axes(up: np.ndarray, front: np.ndarray) -> np.ndarray:
    """The rows x, y, z (3, 3) of a frame with z along `up` and `front` in the half-plane of x and z."""
    z = up / np.linalg.norm(up)
    x = front - (front @ z) * z
    if np.linalg.norm(x) < 1e-6 * np.linalg.norm(front):  # seen from right above
        x = np.cross(z, np.eye(3)[np.abs(z).argmin()])
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def save_pictures(images: Tensor, path: Path) -> None:
    """Pictures (V, 3, H, W) in [0, 1]: side by side in a .png, one after another in a .gif."""
    check_picture_path(path)
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    if path.suffix == ".gif":
        first, *others = [Image.fromarray(picture) for picture in pixels]
        first.save(path, save_all=True, append_images=others, duration=_GIF_MILLISECONDS, loop=0)
        return
    count, height, width, _ = pixels.shape
    columns = min(count, _COLUMNS)
    sheet = np.full((math.ceil(count / columns) * height, columns * width, 3), 255, np.uint8)
    for index, picture in enumerate(pixels):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = picture
    Image.fromarray(sheet).save(path)


def check_picture_path(path: Path) -> None:
    """Raises ValueError for a name that ends otherwise than pictures do here."""
    if path.suffix not in PICTURE_SUFFIXES:
        raise ValueError(f"{path}: a picture's name must end in {' or '.join(PICTURE_SUFFIXES)}")


def find_trial(text: str, home: Path) -> Path:
    """The folder of a trial given by its folder, its key, or the beginning of its key.

    Raises ValueError where there is none, or more than one.
    """
    if (Path(text) / "config.json").is_file():
        return Path(text).absolute()
    keys = sorted(path.parent.name for path in home.glob("trials/*/config.json"))
    matches = [key for key in keys if key.startswith(text)]
    if len(matches) != 1:
        found = f"{len(matches)} trials begin with {text!r}" if matches else f"no trial {text!r}"
        raise ValueError(f"{found} under {home / 'trials'}; there are: {', '.join(keys) or 'none'}")
    return home / "trials" / matches[0]


def _read_config(folder: Path) -> TrialConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a trial's folder: it has no config.json")
    config = TrialConfig.model_validate(json.loads(path.read_text()))
    if not config.is_trained:
        raise ValueError(f"trial {folder.name} copies or draws nothing ({config.model.name}); it predicts no Gaussians")
    return config


def _object(store: Store, name: str | None, split: str) -> Any:
    """The row of an object, by default the first of a split."""
    if name is None:
        return next(store.split(split).itertuples())
    rows = store.objects[store.objects["object"] == name]
    if rows.empty:
        close = nearest(name, store.objects["object"])
        hint = f"; did you mean {close!r}?" if close else ""
        raise ValueError(f"{store.path.name} has no object {name!r}{hint}")
    return next(rows.itertuples())


def _views(store: Store, row: Any, resolution: int, input_views: int) -> Views:
    """All views (1, V) of an object, its sources first."""
    return store.views(evaluation_frames(row, store.manifest.evaluation, input_views)[None], resolution)
