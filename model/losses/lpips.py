"""LPIPS v0.1, the learned perceptual distance of Zhang et al. 2018, with its real weights."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
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

#: Memory for features of target images on a CPU: 2,000 images of 32 px.  Target features are half of the computation.
_CACHE_BYTES = 2**30


#: Features of targets are computed for multiples of this number: torch changes the order of sums for one or two images,
#: and features must not depend on the cache's contents.
_TOGETHER = 4


class LpipsDistance(nn.Module):
    """One distance per pair of pictures; frozen.

    `variant` is "vgg" or "alex".  The linear layers come with the package `lpips`, the trunk from `store`.
    """

    def __init__(self, variant: str, store: WeightStore) -> None:
        super().__init__()
        import lpips  # takes seconds, with torchvision; planning a sweep does not need it

        with warnings.catch_warnings():
            # torchvision's old-style constructor arguments, used inside the package.
            warnings.simplefilter("ignore", UserWarning)
            self.network = lpips.LPIPS(net=variant, pnet_rand=True, verbose=False)
        trunk = dict(self.network.net.named_parameters())
        tensors = store.load(LPIPS_TRUNKS[variant])
        # The package splits torchvision's `features` into slices and keeps the layers' indices as names.
        by_position = {name.split(".", 1)[1]: parameter for name, parameter in trunk.items()}
        if set(by_position) != set(tensors):
            raise ValueError(f"the weights of {LPIPS_TRUNKS[variant]} do not fit LPIPS ({variant})")
        with torch.no_grad():
            for name, parameter in by_position.items():
                parameter.copy_(tensors[name])
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> LpipsDistance:
        """Does nothing: the network stays in evaluation mode."""
        return super().train(False)

    def features(self, images: Tensor, *, in_bf16: bool = False) -> list[Tensor]:
        """(N, 3, H, W) RGB in [0, 1], not clamped -> unit vectors (N, C, h, w) of each layer compared.

        in_bf16: the trunk computes in bfloat16, everything else in float32.
        """
        scaled = self.network.scaling_layer(2 * images - 1)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=in_bf16):
            layers = self.network.net(scaled)
        return [_unit(layer.to(images.dtype)) for layer in layers]

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

    A pixel whose features are all zero keeps the zero vector, and a gradient of 0, where the package's is NaN.
    """
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)


@cache
def shared_lpips(variant: str, store: WeightStore) -> LpipsDistance:
    """One network, shared by all metrics and losses of this process; building it takes a second or two."""
    return LpipsDistance(variant, store)


class FeatureCache:
    """Cache of features of recurring images, by the images' bytes; keeps the first that fit into its memory."""

    def __init__(self, compute: Callable[[Tensor], list[Tensor]], limit: int) -> None:
        """`compute`: (N, 3, H, W) -> features (N, ...) of several layers; `limit` in bytes."""
        self._compute, self._left = compute, limit
        self._kept: dict[bytes, list[Tensor]] = {}

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Outputs of `compute` for images on the CPU, from the cache where present."""
        images = images.detach().contiguous()
        keys = [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images]
        found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = {key: number for number, key in enumerate(keys) if key not in found}
        if missing:
            numbers = list(missing.values())
            numbers += numbers[-1:] * (-len(numbers) % _TOGETHER)
            for key, *layers in zip(missing, *self._compute(images[numbers]), strict=False):
                found[key] = layers
                self._keep(key, layers)
        return [torch.stack(layer) for layer in zip(*(found[key] for key in keys), strict=True)]

    def _keep(self, key: bytes, layers: Sequence[Tensor]) -> None:
        size = sum(layer.nbytes for layer in layers)
        if size <= self._left:
            self._left -= size
            self._kept[key] = [layer.clone() for layer in layers]


class Lpips(Loss):
    """Mean LPIPS (vgg) over the pictures."""

    weights: ClassVar[tuple[str, ...]] = ("vgg16",)
    needs: ClassVar[frozenset[Need]] = frozenset({"views"})

    def __init__(self, store: WeightStore) -> None:
        super().__init__(store)
        self.distance = shared_lpips("vgg", store)
        self._target_features = FeatureCache(self.distance.features, _CACHE_BYTES)

    def forward(self, rendering: Rendering, target: Rendering, scene: Scene) -> Tensor:
        ours, theirs = pictures(rendering), pictures(target)
        in_bf16 = self.precision == "bf16" and ours.is_cuda
        with torch.no_grad():
            if theirs.device.type == "cpu" and theirs.dtype == torch.float32 and len(theirs) >= _TOGETHER:
                expected = self._target_features(theirs)
            else:
                expected = self.distance.features(theirs, in_bf16=in_bf16)
        return self.distance.between(self.distance.features(ours, in_bf16=in_bf16), expected).mean()
