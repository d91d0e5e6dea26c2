"""Base class of depth networks: preprocessing of images and resizing of maps, with trained or random weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.frozen import FrozenModel
from model.fusion import ContextType
from model.preprocess import Interpolation, Triple, next_multiple, prepare, resize
from model.types import Views
from model.weights import WeightStore

#: On noise, an untrained network's map has this mean and standard deviation.
_UNTRAINED_MEAN, _UNTRAINED_STD = 1.0, 0.25


class DepthNetwork(FrozenModel):
    """A depth network with its preprocessing.

    Preprocessing `correct` is that of the network's training: its own side, or the configured one, and its
    mean and standard deviation.  `published` is that of the paper: the raw image in [0, 1] at its own size,
    not normalised; it is resized only where a side is no multiple of the network's stride, up to the next one
    (never for 128 px and a stride of 16 or 32; to 140 px for one of 14).  Maps are resized to the image's size
    by bicubic interpolation, and clamped at 0.

    Images are resized to squares.  Subclasses define the architecture.
    """

    output_types: ClassVar[tuple[ContextType, ...]] = ("map",)
    preprocessings: ClassVar[tuple[str, ...]] = ("published", "correct")

    #: name in the table of weights
    name: ClassVar[str]
    #: side of the square that it was trained on, pixels
    side: ClassVar[int]
    #: number of pixels that image sides have to be multiples of
    stride: ClassVar[int]
    #: mean and standard deviation of the channels that it was trained with
    normalisation: ClassVar[tuple[Triple, Triple]]
    interpolation: ClassVar[Interpolation] = "bicubic"

    def __init__(
        self, store: WeightStore, *, resolution: int | None = None, network: nn.Module | None = None, **settings: Any
    ) -> None:
        """`network` replaces the trained one, and `store` is then unused; `settings` are those of `FrozenModel`.

        Raises ValueError for a resolution that is no multiple of the network's stride, and the store's errors
        where the weights are missing or do not fit.
        """
        super().__init__(store, resolution=resolution, **settings)
        self.check_resolution(resolution, self.options)
        self.resolution = resolution
        self.network = network if network is not None else self.trained(store)
        self.requires_grad_(False).eval()

    @classmethod
    def check_resolution(cls, resolution: int | None, options: Any) -> None:
        if resolution is not None and resolution % cls.stride:
            raise ValueError(f"resolution {resolution} for {cls.name}; allowed: multiples of {cls.stride}")

    @classmethod
    def weights(cls, options: Any) -> tuple[str, ...]:
        return (cls.name,)

    @classmethod
    def trained(cls, store: WeightStore) -> nn.Module:
        """The network with its published weights."""
        return cls.loaded(store.config(cls.name), store.load(cls.name))

    @classmethod
    @abstractmethod
    def loaded(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        """The architecture that `config` (or else the shapes) describes, with published tensors.

        Raises ValueError where names or shapes do not fit.
        """

    @property
    def width(self) -> int:
        return 1

    def forward(self, views: Views) -> Tensor:
        maps = self.infer(views.images.flatten(0, 1))
        return maps.clamp(min=0).unflatten(0, views.images.shape[:2])

    def infer(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> inverse depth (N, 1, H, W)."""
        inverse = self.inverse_depth(self.prepared(images))
        return resize(inverse, (images.shape[-2], images.shape[-1]), interpolation="bicubic")

    def prepared(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the network's input, (N, 3, side, side)."""
        if self.preprocess == "correct":
            side, (mean, std) = self.resolution or self.side, self.normalisation
            return prepare(images, (side, side), mean, std, interpolation=self.interpolation)
        side = self.resolution or next_multiple(max(images.shape[-2:]), self.stride)
        return prepare(images, (side, side), None, None, interpolation=self.interpolation)

    def inverse_depth(self, prepared: Tensor) -> Tensor:
        """(N, 3, side, side) as prepared -> inverse depth (N, 1, h, w)."""
        maps: Tensor = self.network(prepared)
        return maps


class ReluDepthNetwork(DepthNetwork):
    """A network that ends in a convolution to one channel and a ReLU, which also works untrained, as a control."""

    @classmethod
    def untrained(cls, seed: int) -> nn.Module:
        """The published architecture with the random weights that its library starts training from.

        Such a network's output hardly varies between pixels, and its last ReLU may zero all of it.  So the last
        convolution is scaled to a fixed mean and deviation over images of smooth noise.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = cls.architecture().eval()
            side = 4 * cls.stride
            noise = F.interpolate(torch.rand(4, 3, 8, 8), (side, side), mode="bilinear")
        _calibrate(network, cls.last_convolution(network), noise)
        return network

    @classmethod
    @abstractmethod
    def architecture(cls) -> nn.Module:
        """The published architecture at full size, initialised at random from torch's generator."""

    @classmethod
    @abstractmethod
    def last_convolution(cls, network: nn.Module) -> nn.Conv2d:
        """The convolution before the last ReLU."""


@torch.no_grad()
def _calibrate(network: nn.Module, last: nn.Conv2d, pictures: Tensor) -> None:
    """Scale and shift the last layer so that its output on `pictures` has the untrained mean and deviation."""
    seen: list[Tensor] = []
    hook = last.register_forward_hook(lambda _layer, _inputs, output: seen.append(output))
    network(pictures)
    hook.remove()
    output = torch.cat([values.flatten() for values in seen]).double()
    factor = (_UNTRAINED_STD / output.std()).item()
    assert last.bias is not None
    last.weight.mul_(factor)
    last.bias.copy_((last.bias - output.mean()) * factor + _UNTRAINED_MEAN)
