"""Base class of encoders: preprocessing of images, trained or random weights, and the interface."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from model.frozen import FrozenModel
from model.fusion import ContextType
from model.preprocess import Triple, prepare
from model.types import Views
from model.weights import WeightStore


class Encoder(FrozenModel):
    """A vision encoder that returns for each view one vector, or one token per patch, row by row.

    Both preprocessings resize images in [0, 1] to squares of the network's own side, or of
    the configured one; then they subtract its mean and divide by its standard deviation.  `published` resizes as the
    paper's code did, bilinearly between the nearest four pixels; `correct` as in the networks' training, bicubically
    and antialiased.  Nothing is cropped: the object may reach the border.
    """

    output_types: ClassVar[tuple[ContextType, ...]] = ("vector", "tokens")
    preprocessings: ClassVar[tuple[str, ...]] = ("published", "correct")

    #: a module of a library, typed by its attributes only
    network: Any

    def __init__(
        self, store: WeightStore, *, resolution: int | None = None, network: nn.Module | None = None, **settings: Any
    ) -> None:
        """`network` replaces the trained one, and `store` is then unused; `settings` are those of `FrozenModel`.

        Raises ValueError for a resolution that is neither the network's own nor a multiple of the patch size, and the
        store's errors where the weights are missing or do not fit.
        """
        super().__init__(store, resolution=resolution, **settings)
        self.network = network if network is not None else self.trained(store)
        self.resolution = resolution or self.side
        if self.resolution % self.stride and self.resolution != self.trained_side:
            raise ValueError(
                f"resolution {self.resolution} of {type(self).__name__}; allowed: multiples of {self.stride}"
            )
        self.requires_grad_(False).eval()

    @property
    @abstractmethod
    def side(self) -> int:
        """Default side of its square input, pixels."""

    @property
    def trained_side(self) -> object:
        """The side that it takes even if its patches do not divide it, such as SigLIP's 384 with patches of 14."""
        return self.side

    @property
    @abstractmethod
    def normalisation(self) -> tuple[Triple, Triple]:
        """Mean and standard deviation of the channels in its training."""

    @property
    def stride(self) -> int:
        """Number of pixels that image sides other than its own have to be multiples of."""
        return 1

    def trained(self, store: WeightStore) -> nn.Module:
        """The network with its published weights."""
        (name,) = self.weights(self.options)
        return self.loaded(store.config(name), store.load(name))

    @abstractmethod
    def loaded(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        """The architecture that `config` (or else the shapes) describes, with published tensors.

        Raises ValueError where names or shapes do not fit.
        """

    @abstractmethod
    def vector(self, images: Tensor) -> Tensor:
        """(N, 3, side, side) as prepared -> (N, D)."""

    @abstractmethod
    def tokens(self, images: Tensor) -> Tensor:
        """(N, 3, side, side) as prepared -> (N, T, D), patches row by row."""

    def forward(self, views: Views) -> Tensor:
        images = self.prepared(views.images.flatten(0, 1))
        values = self.vector(images) if self.output_type == "vector" else self.tokens(images)
        return values.unflatten(0, views.images.shape[:2])

    def prepared(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the network's input, (N, 3, side, side)."""
        size, (mean, std) = (self.resolution, self.resolution), self.normalisation
        if self.preprocess == "published":
            return prepare(images, size, mean, std, interpolation="bilinear", antialias=False)
        return prepare(images, size, mean, std, interpolation="bicubic")


class PublishedEncoder(Encoder):
    """An encoder with its own entry in the table of weights."""

    name: ClassVar[str]
    #: side of its patches as it is published, pixels
    patch: ClassVar[int] = 1

    @classmethod
    def check_resolution(cls, resolution: int | None, options: Any) -> None:
        if resolution is not None and resolution % cls.patch:
            raise ValueError(f"resolution {resolution} for {cls.name}; allowed: multiples of {cls.patch}")

    @classmethod
    def weights(cls, options: Any) -> tuple[str, ...]:
        return (cls.name,)

    @classmethod
    def untrained(cls, seed: int) -> nn.Module:
        """The published architecture with the initial weights of its library."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls.architecture()

    @classmethod
    @abstractmethod
    def architecture(cls) -> nn.Module:
        """The published architecture at full size, initialised at random from torch's generator."""
