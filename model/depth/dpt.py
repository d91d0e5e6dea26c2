"""Dense prediction transformers (Ranftl et al., ICCV 2021): the larger two models of MiDaS v3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from model.depth.network import ReluDepthNetwork
from model.hub import hub_network, load_hub_network
from model.preprocess import HALF, Triple

_TASK = "DPTForDepthEstimation"

#: Unused part of the decoder, also in other depth models: its coarsest fusion has no second input, so this is never
#: called, and some published files lack it.
UNUSED = ("neck.fusion_stage.layers.0.residual_layer1.",)


class DptLarge(ReluDepthNetwork):
    """Intel/dpt-large: a ViT-L/16 read at four depths, 343 M parameters."""

    name: ClassVar[str] = "dpt_large"
    side: ClassVar[int] = 384
    stride: ClassVar[int] = 32
    normalisation: ClassVar[tuple[Triple, Triple]] = HALF
    #: settings of the hub's config.json that differ from the library's defaults
    config: ClassVar[dict[str, Any]] = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "backbone_out_indices": [5, 11, 17, 23],
        "neck_hidden_sizes": [256, 512, 1024, 1024],
    }

    @classmethod
    def architecture(cls) -> nn.Module:
        return _any_size(hub_network(_TASK, cls.config, name=cls.name))

    @classmethod
    def loaded(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
        return _any_size(load_hub_network(_TASK, config or cls.config, tensors, name=cls.name, unused=UNUSED))

    @classmethod
    def last_convolution(cls, network: nn.Module) -> nn.Conv2d:
        layer = network.get_submodule("head.head.4")
        assert isinstance(layer, nn.Conv2d)
        return layer

    def inverse_depth(self, prepared: Tensor) -> Tensor:
        maps: Tensor = self.network(prepared).predicted_depth
        return maps.unsqueeze(1)


class DptHybrid(DptLarge):
    """Intel/dpt-hybrid-midas: a ViT-B on top of the first stages of a ResNet-50, 122 M parameters."""

    name: ClassVar[str] = "dpt_hybrid"
    config: ClassVar[dict[str, Any]] = {
        "is_hybrid": True,
        "neck_hidden_sizes": [256, 512, 768, 768],
        "reassemble_factors": [1, 1, 1, 0.5],
    }


def _any_size(network: nn.Module) -> nn.Module:
    """Make the hybrid accept images of any size, like DPT-Large; the library does not pass on the switch for it."""
    embeddings = network.get_submodule("dpt.embeddings")
    if hasattr(embeddings, "backbone"):
        embeddings.register_forward_pre_hook(
            lambda _, args, kwargs: (args, kwargs | {"interpolate_pos_encoding": True}), with_kwargs=True
        )
    return network
