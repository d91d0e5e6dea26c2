"""LPIPS v0.1, the learned perceptual distance of Zhang et al. 2018, with its real weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from model.losses import LPIPS_TRUNKS
from model.losses.base import Loss, pictures
from model.methods.base import Need
from model.scenes import Scene
from model.types import Rendering
from model.weights import WeightStore


class LpipsDistance(nn.Module):
    """One distance per pair of pictures; frozen.

    `variant` is "vgg" or "alex".  The linear layers come with the package `lpips`, the trunk from `store`.
    """

    def __init__(self, variant: str, store: WeightStore) -> None:
        super().__init__()
        import lpips  # seconds, with torchvision and what that loads; planning a sweep needs none of it

        with warnings.catch_warnings():
            # torchvision's old-style constructor arguments, used inside the package.
            warnings.simplefilter("ignore", UserWarning)
            self.network = lpips.LPIPS(net=variant, pnet_rand=True, verbose=False)
        trunk = dict(self.network.net.named_parameters())
        tensors = store.load(LPIPS_TRUNKS[variant])
        # The package cuts torchvision's `features` into slices and keeps the layers' positions as names.
        by_position = {name.split(".", 1)[1]: parameter for name, parameter in trunk.items()}
        if set(by_position) != set(tensors):
            raise ValueError(f"the weights of {LPIPS_TRUNKS[variant]} do not fit LPIPS ({variant})")
        with torch.no_grad():
            for name, parameter in by_position.items():
                parameter.copy_(tensors[name])
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> LpipsDistance:
        """Stays in evaluation mode."""
        return super().train(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) RGB in [0, 1], not clamped -> unit vectors (N, C, h, w) of each layer compared."""
        return [_unit(layer) for layer in self.network.net(self.network.scaling_layer(2 * images - 1))]

    def between(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
        """The distances (N,) of pictures with these features."""
        layers = zip(self.network.lins, ours, theirs, strict=True)
        return torch.stack([weigh((a - b).square()).mean((1, 2, 3)) for weigh, a, b in layers]).sum(0)

    def forward(self, render: Tensor, target: Tensor) -> Tensor:
        """(N, 3, H, W) RGB in [0, 1], not clamped -> (N,).  No gradient reaches the target."""
        with torch.no_grad():
            theirs = self.features(target)
        return self.between(self.features(render), theirs)


def _unit(features: Tensor) -> Tensor:
    """(N, C, h, w) scaled to length 1 along C.

    A pixel that no feature responds to keeps the zero vector, and a gradient of 0, where the package's is NaN.
    """
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)


@cache
def shared_lpips(variant: str, store: WeightStore) -> LpipsDistance:
    """One network for all who measure or train with it in this process; building it takes a second or two."""
    return LpipsDistance(variant, store)


class Lpips(Loss):
    """Mean LPIPS (vgg) over the pictures."""

    weights: ClassVar[tuple[str, ...]] = ("vgg16",)
    needs: ClassVar[frozenset[Need]] = frozenset({"views"})

    def __init__(self, store: WeightStore) -> None:
        super().__init__(store)
        self.distance = shared_lpips("vgg", store)

    def forward(self, rendering: Rendering, target: Rendering, scene: Scene) -> Tensor:
        return self.distance(pictures(rendering), pictures(target)).mean()
