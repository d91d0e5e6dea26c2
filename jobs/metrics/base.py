"""Interface of metrics: rendered and true views of an object -> one number per view, or one for all.

Dimensions: N views of one object, H x W pixels a view.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from model.types import Rendering, Views, described
from model.weights import WeightStore

#: Minimum coverage or rendered opacity of a pixel that belongs to the object.
COVERED = 0.5


@dataclass(frozen=True, slots=True)
class EvaluatedViews:
    """N views of one object, true or rendered, with the same fields for both."""

    images: Tensor  # (N, 3, H, W) RGB; true ones in [0, 1], rendered ones not clamped
    covered: Tensor | None = None  # (N, 1, H, W) bool: pixels of the object
    depth: Tensor | None = None  # (N, 1, H, W) camera z, scene units; 0 where nothing is known

    def where(self, views: Tensor) -> EvaluatedViews:
        """The views at these indices, or where this (N,) is true."""
        covered, depth = (None if part is None else part[views] for part in (self.covered, self.depth))
        return EvaluatedViews(self.images[views], covered, depth)

    def clamped(self) -> EvaluatedViews:
        """The same views with colours in [0, 1]."""
        return replace(self, images=self.images.clamp(0, 1))

    @classmethod
    def true(cls, views: Views, masks: Tensor | None = None) -> EvaluatedViews:
        """Views (1, N) of a dataset, with their masks (1, N, 1, H, W) if given."""
        covered = None if masks is None else masks[0] >= COVERED
        return cls(views.images[0], covered, None if views.depth is None else views.depth[0])

    @classmethod
    def rendered(cls, rendering: Rendering, views: Views) -> EvaluatedViews:
        """The views of a rendering (1, N) of `views`.

        A pixel's depth is opacity / inverse depth.  Pixels with an opacity below `COVERED` get the far bound of the
        dataset; larger depths are clipped to it.
        """
        covered = None if rendering.opacity is None else rendering.opacity[0] >= COVERED
        if rendering.inverse_depth is None:
            return cls(rendering.images[0], covered)
        far = views.far[:, None] + (0 if views.origin_distance is None else views.origin_distance)  # (1, N)
        far = far.expand(1, views.images.shape[1])[0, :, None, None, None]
        inverse = rendering.inverse_depth[0]
        drawn = torch.ones_like(inverse) if rendering.opacity is None else rendering.opacity[0]
        depth = torch.where(inverse > 0, drawn / inverse, far)
        depth = torch.where(drawn >= COVERED, depth, far).minimum(far)
        return cls(rendering.images[0], covered, depth)


class Metric(nn.Module, ABC):
    """One metric.  `results/metrics.py` has the data it needs, its label and its direction."""

    #: whether it gives a number for each view, or one for all views of a kind that an object has
    per: ClassVar[Literal["view", "set"]] = "view"
    #: whether it compares colours; it is then computed of clamped ones as well
    of_colours: ClassVar[bool] = True

    @classmethod
    def weights(cls, lpips: str) -> tuple[str, ...]:
        """Names, in the table of weights, of the files it loads; `lpips` is `eval.lpips`."""
        return ()

    def __init__(self, store: WeightStore, lpips: str) -> None:
        """`store` provides the weights of metrics that have them."""
        super().__init__()

    def reference(self, target: EvaluatedViews) -> Any:
        """Values computed once from the true views alone: None, a tensor (N, ...), or a list of such."""
        return None

    def defined(self, target: EvaluatedViews) -> Tensor:
        """(N,) bool: views for which the metric is defined.  Others are left out of means."""
        return torch.ones(len(target.images), dtype=torch.bool, device=target.images.device)

    def __call__(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> Tensor:
        """`forward`.  Raises TypeError where its value is of another shape than `per` says."""
        value = super().__call__(render, target, reference)
        expected = (len(render.images),) if self.per == "view" else ()
        if not isinstance(value, Tensor) or value.shape != expected:
            raise TypeError(
                f"{type(self).__name__} returned {described(value)}; with per {self.per!r} it must be a tensor of "
                f"shape {expected}"
            )
        return value

    @abstractmethod
    def forward(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> Tensor:
        """(N,) numbers; () where `per` is "set"."""


class ObjectMetric(Metric):
    """Base class of metrics of the object's pixels, which are defined for views that show the object."""

    def defined(self, target: EvaluatedViews) -> Tensor:
        assert target.covered is not None
        return target.covered.flatten(1).any(1)


class FeatureMetric(Metric):
    """Base class of distances between feature maps; features of the true views are computed once."""

    #: (N, 3, H, W) RGB -> `features`, and `between` two lists of features: distances (N,)
    distance: Any

    def reference(self, target: EvaluatedViews) -> list[Tensor]:
        features: list[Tensor] = self.distance.features(target.images)
        return features

    def forward(self, render: EvaluatedViews, target: EvaluatedViews, reference: Any) -> Tensor:
        distances: Tensor = self.distance.between(self.distance.features(render.images), reference)
        return distances
