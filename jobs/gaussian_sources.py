"""Gaussians of objects for viewing: reconstructed by a trained method, or from a dataset's depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from jobs.data.store import Store
from jobs.evaluate import object_views, predicting
from jobs.trained import open_trained
from jobs.turntable import GaussianObject
from model.geometry import invert_rigid, pixel_rays
from model.registry import nearest
from model.scenes import GaussianScene
from model.types import SH_DC, Gaussians, Views

#: Standard deviation in units of the pixel spacing on the surface: neighbours meet at 3/5 of their peak.
_SPREAD = 0.5
#: Change of depth per pixel spacing beyond which it counts as an edge: a surface seen at more than 76 degrees.
_STEEPEST = 4.0


def predicted(folder: Path, name: str | None = None) -> GaussianObject:
    """The scene that the network of the trial in `folder` predicts from an object's source views.

    By default the object is the first that the trial is evaluated on.  An unfinished trial's last checkpoint is used.
    Raises ValueError for a folder that is no trial's, a trial without a network or checkpoint, and an object that its
    dataset does not have.
    """
    opened = open_trained(folder.parent.parent, folder.name)
    row = find_object(opened.store, name, opened.config.eval.split)
    config, network, context = opened.load(splits={row.split})
    views = object_views(opened.store, row, config.data.resolution, config.model.input_views)
    with torch.inference_mode():
        scene = predicting(network, context, config)(views.select(0, config.model.input_views))
    return GaussianObject(str(row.object), scene, views)


def measured(store: Store, name: str | None = None) -> GaussianObject:
    """An object's surface, one Gaussian for each pixel of each view, by default of the first test object.

    Raises ValueError for a dataset without depth, and an object that it does not have.
    """
    if store.depth is None:
        raise ValueError(f"{store.path.name} holds no depth, from which Gaussians could be placed")
    row = find_object(store, name, "test")
    views = object_views(store, row, store.resolution)
    return GaussianObject(str(row.object), GaussianScene(gaussians_on_surface(views)), views)


def gaussians_on_surface(views: Views) -> Gaussians:
    """Views (1, V) with depth -> one scene: an isotropic, opaque Gaussian on the surface at each pixel.

    Pixels at an edge, where depth and colour are means over two surfaces, are left out.
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
        sh=((colours.reshape(-1, 3)[kept] - 0.5) / SH_DC)[None, :, None],
    )


def find_object(store: Store, name: str | None, split: str) -> Any:
    """The row of an object, by default the first of a split.  Raises ValueError for an unknown one."""
    if name is None:
        return next(store.split(split).itertuples())
    rows = store.objects[store.objects["object"] == name]
    if rows.empty:
        close = nearest(name, store.objects["object"])
        hint = f"; did you mean {close!r}?" if close else ""
        raise ValueError(f"{store.path.name} has no object {name!r}{hint}")
    return next(rows.itertuples())
