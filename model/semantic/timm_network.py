"""Image classifiers of the timm library, without their classifiers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pydantic
import torch
from torch import Tensor, nn

from model.options import options
from model.preprocess import Triple
from model.registry import nearest
from model.semantic.encoder import Encoder, PublishedEncoder

#: A name without glob characters.
_PLAIN_NAME = re.compile(r"\w+")


class TimmNetwork(Encoder):
    """The vector is the input of timm's classifier; tokens are the last features before pooling.

    Transformers' tokens come without class token and registers.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises ValueError as `Encoder` does, and for a resolution that the network does not take."""
        super().__init__(*args, **kwargs)
        if self.resolution != self.side:
            self._change_side()
            self.requires_grad_(False)

    def _change_side(self) -> None:
        """Adapts the network to another side than its own; an empty picture shows whether it takes that."""
        empty = next(self.parameters()).new_zeros(1, 3, self.resolution, self.resolution)
        try:
            if hasattr(self.network, "set_input_size"):
                self.network.set_input_size(img_size=self.resolution)  # resamples learnt positions
            with torch.no_grad():
                self.network.forward_features(empty)
        except (AssertionError, RuntimeError) as error:
            reason = f"{type(self.network).__name__}, whose own is {self.side}, does not take it ({error})"
            raise ValueError(f"resolution {self.resolution}: {reason}") from error

    @property
    def side(self) -> int:
        return int(self._trained_with["input_size"][-1])

    @property
    def stride(self) -> int:
        size = getattr(getattr(self.network, "patch_embed", None), "patch_size", 1)
        return int(size if isinstance(size, int) else size[0])

    @property
    def normalisation(self) -> tuple[Triple, Triple]:
        mean, std = (tuple(map(float, self._trained_with[key])) for key in ("mean", "std"))
        return mean, std  # type: ignore[return-value]  # three of each

    @property
    def width(self) -> int:
        network = self.network
        return int(network.head_hidden_size if self.output_type == "vector" else network.num_features)

    def vector(self, images: Tensor) -> Tensor:
        network = self.network
        pooled: Tensor = network.forward_head(network.forward_features(images), pre_logits=True)
        return pooled

    def tokens(self, images: Tensor) -> Tensor:
        network = self.network
        features: Tensor | Sequence[Tensor] = network.forward_features(images)
        if not isinstance(features, Tensor):
            raise ValueError(f"{type(network).__name__} has several maps of features, so no tokens; it has a vector")
        if features.dim() == 3:
            side = math.isqrt(features.shape[1])  # some have a class token, and do not say how many tokens precede
            return features[:, getattr(network, "num_prefix_tokens", features.shape[1] - side**2) :]
        if features.shape[1] != network.num_features:  # channels last, such as Swin
            return features.flatten(1, 2)
        return features.flatten(2).mT

    @property
    def _trained_with(self) -> Mapping[str, Any]:
        facts: Mapping[str, Any] = self.network.pretrained_cfg
        return facts


def _known_name(name: str) -> str:
    """A name with its tag, from timm's offline list.  Raises ValueError for an unknown name."""
    import timm  # takes seconds, so only who picks such a model waits for it

    architecture, dot, _ = name.partition(".")
    if not dot:
        raise ValueError(f"{name!r} names no weights; timm's names end in a tag, as vit_tiny_patch16_224.augreg_in21k")
    tagged = timm.list_models(f"{architecture}.*", pretrained=True) if _PLAIN_NAME.fullmatch(architecture) else []
    if name not in tagged:
        known = tagged or timm.list_models(pretrained=True)
        hint = nearest(name, known)
        listed = f"; allowed: {', '.join(tagged)}" if tagged else "; `timm.list_models(pretrained=True)` lists them"
        raise ValueError(f"{name!r} is not a name of timm's{listed}" + (f"; did you mean {hint!r}?" if hint else ""))
    return name


@options
class TimmOptions:
    """The model's name."""

    #: architecture and tag, as `vit_tiny_patch16_224.augreg_in21k`; `timm.list_pretrained()` lists them
    name: Annotated[str, pydantic.AfterValidator(_known_name)]


class TimmEncoder(TimmNetwork):
    """Any model of timm's by name, as the hub keeps it."""

    Options: ClassVar[type] = TimmOptions

    @classmethod
    def weights(cls, options: TimmOptions) -> tuple[str, ...]:
        return (f"timm:{options.name}",)

    def loaded(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        import timm  # takes seconds, so only who picks such a model waits for it

        if config and "architecture" not in config:
            raise ValueError(f"the config.json of {self.options.name} is not one of timm's: it names no architecture")
        # The name determines the architecture: models that differ in no tensor share a folder, as CLIPs with QuickGELU.
        try:
            # The library itself loads them, because it maps the names of earlier publications.
            network: Any = timm.create_model(
                self.options.name,
                pretrained_cfg=config.get("pretrained_cfg", config) or None,
                **config.get("model_args", {}),
                pretrained=True,
                pretrained_cfg_overlay={"state_dict": dict(tensors)},
            )
        except RuntimeError as error:
            raise ValueError(f"these are not the weights of {self.options.name}: {error}") from error
        network.pretrained_cfg.pop("state_dict", None)
        network.reset_classifier(0)
        loaded: nn.Module = network
        return loaded


class EfficientNetLite0(TimmNetwork, PublishedEncoder):
    """EfficientNet-Lite0 trained on ImageNet, at 224 px: a vector of 1280, or 49 tokens of 1280.

    A small real encoder that the Python index can deliver.
    """

    name: ClassVar[str] = "efficientnet_lite0"

    @classmethod
    def architecture(cls) -> nn.Module:
        return cls._classifying(num_classes=0)

    def loaded(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        network: Any = self._classifying(num_classes=1000)
        names = list(network.state_dict())
        if len(tensors) != len(names):
            reason = f"{len(tensors)} tensors instead of {len(names)}"
            raise ValueError(f"these are not the weights of {self.name}: {reason}")
        try:
            # The published file has the same tensors in the same order under older names.
            network.load_state_dict(dict(zip(names, tensors.values(), strict=True)))
        except RuntimeError as error:
            raise ValueError(f"these are not the weights of {self.name}: {error}") from error
        network.reset_classifier(0)
        return network

    @staticmethod
    def _classifying(num_classes: int) -> Any:
        import timm

        return timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=num_classes)
