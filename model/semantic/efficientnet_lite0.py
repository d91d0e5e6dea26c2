"""EfficientNet-Lite0 trained on ImageNet: a small real encoder that the Python index can deliver."""

from __future__ import annotations

from typing import ClassVar, cast

import timm
import torch
from timm.models import EfficientNet
from torch import Tensor
from torch.nn import functional as F

from model.frozen import FrozenModel
from model.types import Views
from model.weights import WeightStore

_NATIVE_RESOLUTION = 224


class EfficientNetLite0(FrozenModel):
    """The pooled embedding of 1280 numbers; input in [-1, 1] (mean and deviation 0.5), resized bilinearly."""

    weights: ClassVar[tuple[str, ...]] = ("efficientnet_lite0",)

    def __init__(self, store: WeightStore, *, preprocess: str = "correct", resolution: int | None = None) -> None:
        super().__init__(store, preprocess=preprocess, resolution=resolution)
        self.resolution = resolution or _NATIVE_RESOLUTION
        network = cast(EfficientNet, timm.create_model("tf_efficientnet_lite0", pretrained=False))
        # The published file has the same tensors in the same order under older names.
        published = store.load("efficientnet_lite0")
        names = list(network.state_dict())
        network.load_state_dict(dict(zip(names, published.values(), strict=True)))
        network.reset_classifier(0)
        self.network = network.to(memory_format=torch.channels_last)
        self.requires_grad_(False).eval()

    @property
    def width(self) -> int:
        return int(self.network.num_features)

    def forward(self, views: Views) -> Tensor:
        batch = views.images.shape[:2]
        size = (self.resolution, self.resolution)
        images = F.interpolate(views.images.flatten(0, 1), size, mode="bilinear", align_corners=False)
        images = (2 * images - 1).contiguous(memory_format=torch.channels_last)
        return self.network(images).unflatten(0, batch)
