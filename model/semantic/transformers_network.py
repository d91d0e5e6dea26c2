"""Any vision encoder of the transformers library."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import pydantic
import torch
from torch import Tensor, nn

from model.hub import load_hub_network
from model.options import options
from model.preprocess import Triple
from model.registry import UnknownChoiceError
from model.semantic.encoder import Encoder
from model.weights import WeightStore, find_weight

#: Settings of preprocessors that scale otherwise than by a factor, a mean and a deviation, where they are true.
_UNUSUAL = ("rescale_offset", "include_top")


def _repository(name: str) -> str:
    try:
        find_weight(f"hub:{name}")
    except UnknownChoiceError as error:
        raise ValueError(f"{name!r} is not a repository's name, as facebook/dino-vits16 is") from error
    return name


@options
class TransformersOptions:
    """The model's repository."""

    #: repository on the Hugging Face hub, e.g. `facebook/dino-vits16`
    name: Annotated[str, pydantic.AfterValidator(_repository)]


class TransformersEncoder(Encoder):
    """A vision encoder by its repository's name; of models for pictures and text, the part for pictures.

    The vector is the model's own pooled output; where it or its file has none, the class token, and where there is
    none either, the mean of the patches.  Tokens are the patches among its last states.  Side, mean and deviation
    are those of the repository's preprocessor.
    """

    Options: ClassVar[type] = TransformersOptions

    @classmethod
    def weights(cls, options: TransformersOptions) -> tuple[str, ...]:
        return (f"hub:{options.name}",)

    def trained(self, store: WeightStore) -> nn.Module:
        (name,) = self.weights(self.options)
        self._input = store.preprocessor(name)
        if self._is_normalised and not {"image_mean", "image_std"} <= set(self._input):
            raise ValueError(
                f"{self.options.name} has no preprocessor_config.json with image_mean and image_std, which define how "
                "its input is scaled"
            )
        if unusual := [key for key in _UNUSUAL if self._input.get(key)]:
            raise ValueError(
                f"{self.options.name} scales its input otherwise than by a factor, a mean and a deviation "
                f"({', '.join(unusual)})"
            )
        return super().trained(store)

    @property
    def _is_normalised(self) -> bool:
        return self._input.get("do_normalize") is not False

    def loaded(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        if not config:
            raise ValueError(f"{self.options.name} is a single file; the architecture needs a folder with config.json")
        pictures = {**config, **config.get("vision_config", {})}
        network: Any = load_hub_network(
            _task(pictures), pictures, tensors, name=self.options.name, unused=("pooler.", "vision_model.pooler.")
        )
        if not any("pooler." in name for name in tensors) and _is_learnt(getattr(network, "pooler", None)):
            network.pooler = None  # many files lack it, and a randomly initialised one must not be used
        loaded: nn.Module = network
        return loaded

    @property
    def side(self) -> int:
        crops = self._input.get("do_center_crop") is not False  # files state a default crop that is off, too
        size = (crops and self._input.get("crop_size")) or self._input.get("size")
        if isinstance(size, Mapping):  # other edges are limits
            size = size.get("height") or size.get("shortest_edge")
        size = size or getattr(self._config, "image_size", None)
        if not isinstance(size, int):
            raise ValueError(f"{self.options.name} does not state the side of its input; set semantic.resolution")
        return size

    @property
    def trained_side(self) -> object:
        return getattr(self._config, "image_size", None)

    @property
    def stride(self) -> int:
        patch = getattr(self._config, "patch_size", 1)
        return int(patch if isinstance(patch, int) else patch[0])

    @property
    def normalisation(self) -> tuple[Triple, Triple]:
        is_rescaled = self._input.get("do_rescale") is not False
        factor = (self._input.get("rescale_factor") or 1 / 255) if is_rescaled else 1
        scale = 255 * float(factor)  # the library multiplies whole numbers up to 255, and ours end at 1
        mean, std = (self._input["image_mean"], self._input["image_std"]) if self._is_normalised else ([0] * 3, [1] * 3)
        return tuple(m / scale for m in mean), tuple(s / scale for s in std)  # type: ignore[return-value]  # three each

    @property
    def width(self) -> int:
        # Found by a pass over an empty picture, since configurations have it under many names.
        parameter = next(self.parameters())
        empty = parameter.new_zeros(1, 3, self.resolution, self.resolution)
        with torch.no_grad():
            return int((self.vector(empty) if self.output_type == "vector" else self.tokens(empty)).shape[-1])

    def vector(self, images: Tensor) -> Tensor:
        output = self._look(images)
        pooled: Tensor | None = output.get("pooler_output")
        if pooled is not None:
            return pooled.flatten(1)
        states = output.last_hidden_state
        patches = self._patches(states)
        return states[:, 0] if states.dim() == 3 and states.shape[1] > patches.shape[1] else patches.mean(dim=1)

    def tokens(self, images: Tensor) -> Tensor:
        return self._patches(self._look(images).last_hidden_state)

    def _patches(self, states: Tensor) -> Tensor:
        """(N, T, D) of states (N, T + others, D), or of a map (N, D, h, w) or (N, h, w, D)."""
        if states.dim() == 4:
            return states.flatten(1, 2) if states.shape[1] == states.shape[2] else states.flatten(2).mT
        # Class token and registers come first; a pyramid has fewer patches than its input, which form a square too.
        count = min(self.resolution // self.stride, math.isqrt(states.shape[1])) ** 2
        return states[:, -count:]

    def _look(self, images: Tensor) -> Any:
        fixed = isinstance(getattr(self._config, "image_size", None), int)
        if fixed and self.resolution != self._config.image_size and _interpolates(self.network):
            return self.network(images, interpolate_pos_encoding=True)
        return self.network(images)

    @property
    def _config(self) -> Any:
        return self.network.config


def _is_learnt(pooler: Any) -> bool:
    return isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters())


def _task(config: Mapping[str, Any]) -> str:
    """Name of the library's class for this configuration.  Raises ValueError where there is none."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING
    from transformers.backbone_utils import BackboneMixin

    model_type = str(config.get("model_type"))
    if model_type == "vit_mae":
        raise ValueError("its masked autoencoder hides most of a picture at random; timm has its encoder, as .mae")
    encoder: Any = MODEL_MAPPING.get(CONFIG_MAPPING[model_type], None) if model_type in CONFIG_MAPPING else None
    if not isinstance(encoder, type):
        raise ValueError(f"the transformers library has no single encoder of model_type {model_type!r}")
    if (needed := _needs(encoder)) != ["pixel_values"]:
        raise ValueError(f"{encoder.__name__} does not serve: its input is {', '.join(needed)}, not a picture alone")
    if issubclass(encoder, BackboneMixin):
        raise ValueError(f"{encoder.__name__} does not serve: it has several maps of features and no last state")
    return encoder.__name__


def _needs(encoder: Any) -> list[str]:
    """The inputs that a model of the library must have."""
    parameters = inspect.signature(encoder.forward).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [each.name for each in parameters if each.default is each.empty and each.kind not in variadic]
    return list(dict.fromkeys([encoder.main_input_name, *(name for name in required if name != "self")]))


def _interpolates(network: nn.Module) -> bool:
    return "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
