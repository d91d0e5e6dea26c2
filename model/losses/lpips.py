"""LPIPS v0.1, the learned perceptual distance of Zhang et al. 2018, with its real weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.losses import LPIPS_OF_LOSS, LPIPS_TRUNKS
from model.losses.base import Loss, pictures
from model.methods.base import Need
from model.scenes import Scene
from model.types import Rendering
from model.weights import WeightStore

#: Memory for features of target images on a CPU: 3,200 images of 32 px, which is more than the preset `laptop` has.
#: Target features are a third of the computation.
_CACHE_BYTES = 3 * 2**29

#: Features of targets are computed for multiples of this number of images, or of the number in a step where it is
#: smaller: torch changes the order of sums for one or two images, and features must not depend on the cache's contents.
_TOGETHER = 4

#: Layers of torchvision's `features` by position: channels of a convolution and its ReLU, or 0 for a pooling.
_VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
#: Positions of the ReLUs whose outputs are compared.
_COMPARED: Mapping[str, tuple[int, ...]] = {"vgg": (3, 8, 15, 22, 29), "alex": (1, 4, 7, 9, 11)}
#: Mean and deviation of the pictures, in [-1, 1], that the trunks expect.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LpipsDistance(nn.Module):
    """One distance per pair of pictures; frozen.

    `variant` is "vgg" or "alex".  The linear layers are those in the package `lpips`; the trunk comes from `store`.
    The package's own network is not built, since its imports and its random weights take five seconds.
    """

    shift: Tensor  # (1, 3, 1, 1)
    scale: Tensor

    def __init__(self, variant: str, store: WeightStore) -> None:
        super().__init__()
        self._compared = _COMPARED[variant]
        with torch.device("meta"):
            self.trunk = _vgg16() if variant == "vgg" else _alexnet()
        try:
            self.trunk.load_state_dict(dict(store.load(LPIPS_TRUNKS[variant])), assign=True)
        except RuntimeError as error:
            raise ValueError(f"the weights of {LPIPS_TRUNKS[variant]} do not fit LPIPS ({variant}): {error}") from error
        for layer, weight in enumerate(_linear_layers(variant)):
            self.register_buffer(f"linear_{layer}", weight)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> LpipsDistance:
        """Does nothing: the network stays in evaluation mode."""
        return super().train(False)

    def features(self, images: Tensor, *, in_bf16: bool = False) -> list[Tensor]:
        """(N, 3, H, W) RGB in [0, 1], not clamped -> unit vectors (N, C, h, w) of each layer compared.

        in_bf16: the trunk computes in bfloat16, everything else in float32.
        """
        x, found = (2 * images - 1 - self.shift) / self.scale, []
        with torch.autocast(images.device.type, torch.bfloat16, enabled=in_bf16):
            for position, layer in enumerate(self.trunk):
                x = layer(x)
                if position in self._compared:
                    found.append(x)
        return [_unit(layer.to(images.dtype)) for layer in found]

    def between(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
        """The distances (N,) of pictures with these features."""
        weights = [self.get_buffer(f"linear_{layer}") for layer in range(len(self._compared))]
        layers = zip(weights, ours, theirs, strict=True)
        return torch.stack([F.conv2d((a - b).square(), weight).mean((1, 2, 3)) for weight, a, b in layers]).sum(0)

    def forward(self, render: Tensor, target: Tensor) -> Tensor:
        """(N, 3, H, W) RGB in [0, 1], not clamped -> (N,).  No gradient reaches the target."""
        with torch.no_grad():
            theirs = self.features(target)
        return self.between(self.features(render), theirs)


def _vgg16() -> nn.Sequential:
    """`features` of torchvision's VGG16 up to the last ReLU."""
    layers: list[nn.Module] = []
    channels = 3
    for width in _VGG16:
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def _alexnet() -> nn.Sequential:
    """`features` of torchvision's AlexNet up to the last ReLU."""
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True)),
    )


def _linear_layers(variant: str) -> list[Tensor]:
    """Weights (1, C, 1, 1) for each compared layer, version 0.1, from the files of the package `lpips`."""
    package = find_spec("lpips")  # found without an import
    if package is None or package.origin is None:
        raise ModuleNotFoundError("No module named 'lpips'", name="lpips")
    path = Path(package.origin).parent / "weights" / "v0.1" / f"{variant}.pth"
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    return [tensors[f"lin{layer}.model.1.weight"] for layer in range(len(_COMPARED[variant]))]


def _unit(features: Tensor) -> Tensor:
    """(N, C, h, w) scaled to length 1 along C.

    A pixel whose features are all zero keeps the zero vector, and a gradient of 0, where the package's is NaN.
    """
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)


@cache
def shared_lpips(variant: str, store: WeightStore) -> LpipsDistance:
    """One network, shared by all metrics and losses of this process."""
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
        together = min(len(images), _TOGETHER)
        salt = bytes([together])
        keys = [hashlib.blake2b(image.numpy().tobytes(), digest_size=16, salt=salt).digest() for image in images]
        found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = {key: number for number, key in enumerate(keys) if key not in found}
        if missing:
            numbers = list(missing.values())
            numbers += numbers[-1:] * (-len(numbers) % together)
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

    weights: ClassVar[tuple[str, ...]] = (LPIPS_TRUNKS[LPIPS_OF_LOSS],)
    needs: ClassVar[frozenset[Need]] = frozenset({"views"})

    def __init__(self, store: WeightStore) -> None:
        super().__init__(store)
        self.distance = shared_lpips(LPIPS_OF_LOSS, store)
        self._target_features = FeatureCache(self.distance.features, _CACHE_BYTES)

    def forward(self, rendering: Rendering, target: Rendering, scene: Scene) -> Tensor:
        ours, theirs = pictures(rendering), pictures(target)
        in_bf16 = self.precision == "bf16" and ours.is_cuda
        with torch.no_grad():
            if theirs.device.type == "cpu" and theirs.dtype == torch.float32:
                expected = self._target_features(theirs)
            else:
                expected = self.distance.features(theirs, in_bf16=in_bf16)
        return self.distance.between(self.distance.features(ours, in_bf16=in_bf16), expected).mean()
