"""Published files of all methods: recognition by their tensors, and the settings that they determine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from model.fusion import Source
from model.methods.pixelnerf.reconstructor import PixelNerfReconstructor
from model.methods.splatter_image.predictor import GaussianPredictor
from model.official.checkpoint import NetworkShape
from model.official.datasets import published_pixelnerf
from model.official.pixelnerf import PixelNerfShape, load_pixelnerf
from model.official.transfer import load_official
from model.scenes import Reconstructor


@dataclass(frozen=True)
class PublishedFile(ABC):
    """The tensors of a file in float32, under their published names."""

    weights: Mapping[str, Tensor]

    @property
    @abstractmethod
    def contexts(self) -> dict[Source, tuple[str, int]]:
        """Contexts that condition the network: fusion and width, by source."""

    @abstractmethod
    def settings(self, dataset: str) -> dict[str, Any]:
        """Settings of a trial's configuration that the file determines, for evaluation on one of our datasets."""

    @abstractmethod
    def load(self, network: Reconstructor) -> Reconstructor:
        """Give `network` copies of the tensors; returns it.  Raises ValueError where they do not fit."""


@dataclass(frozen=True)
class SplatterImageFile(PublishedFile):
    """Splatter Image, and the paper's variants of it."""

    shape: NetworkShape

    @property
    def contexts(self) -> dict[Source, tuple[str, int]]:
        return self.shape.contexts

    def settings(self, dataset: str) -> dict[str, Any]:
        """Settings of the file; a network with camera embedding is assumed to have two views."""
        shape, has_camera = self.shape, self.shape.camera_channels > 0
        return {
            "data": {"name": dataset, "resolution": shape.resolution},
            "model": {
                "base_dim": shape.base_dim,
                "num_blocks": shape.num_blocks,
                "channel_mult": list(shape.channel_mult),
                "attention_resolutions": list(shape.attention_resolutions),
                "sh_degree": shape.sh_degree,
                "camera_embedding": has_camera,
                "input_views": 2 if has_camera else 1,
            },
            **{source: {"fusion": way} for source, (way, _) in shape.contexts.items()},
        }

    def load(self, network: Reconstructor) -> Reconstructor:
        if not isinstance(network, GaussianPredictor):
            raise ValueError("these are the weights of a Splatter Image network; set model.name to splatter_image")
        return load_official(network, self.weights)


@dataclass(frozen=True)
class PixelNerfFile(PublishedFile):
    """PixelNeRF.  The file does not record its conventions; they are the published ones."""

    shape: PixelNerfShape

    @property
    def contexts(self) -> dict[Source, tuple[str, int]]:
        return {}

    def settings(self, dataset: str) -> dict[str, Any]:
        shape, facts = self.shape, published_pixelnerf(dataset)
        return {
            "data": {"name": dataset, "resolution": facts.resolution},
            "model": {
                "name": "pixelnerf",
                "pretrained": False,
                "encoder_width": shape.encoder_width,
                "first_pool": facts.first_pool,
                "hidden": shape.hidden,
                "blocks": shape.blocks,
                "view_blocks": shape.view_blocks,
                "feature_alignment": "corners",
                "pixel_point": "corner",
                "bounds": "distance",
                "detach_depth_samples": False,
            },
            # It is not trained here, but a configuration with another method's losses would be invalid.
            "train": {"stages": [{"iterations": 400_000, "lr": 1e-4, "losses": {"l2": 1.0}}]},
        }

    def load(self, network: Reconstructor) -> Reconstructor:
        if not isinstance(network, PixelNerfReconstructor):
            raise ValueError("these are the weights of a PixelNeRF; set model.name to pixelnerf")
        return load_pixelnerf(network, self.weights)


def recognise(weights: Mapping[str, Tensor]) -> PublishedFile:
    """The kind of file with these tensors.  Raises ValueError where they match no published network."""
    try:
        if PixelNerfShape.recognises(weights):
            return PixelNerfFile(weights, PixelNerfShape.of(weights))
        return SplatterImageFile(weights, NetworkShape.of(weights))
    except (IndexError, ZeroDivisionError) as error:  # sizes are read from tensors of fewer dimensions, or empty ones
        raise ValueError("its tensors have the names of a published network, and other shapes") from error
