"""Published parameter names, so that the reference's weights can be loaded into our modules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

_MEMBERS = {
    "attention.norm": "norm2",
    "attention.qkv": "qkv",
    "attention.proj": "proj",
    "fusers.0.query_norm": "{block}.q_norm",
    "fusers.0.query": "{block}.q_proj",
    "fusers.0.context_norm": "{block}.kv_norm",
    "fusers.0.key_value": "{block}.kv_proj",
    "fusers.0.out": "{block}.out_proj",
}


def _module_names(resolution: int, num_blocks: int, levels: int) -> dict[str, str]:
    names = {"stem": f"enc.{resolution}x{resolution}_conv"}
    encoder = []
    for level in range(levels):
        side = resolution >> level
        encoder += [f"enc.{side}x{side}_down"] if level else []
        encoder += [f"enc.{side}x{side}_block{block}" for block in range(num_blocks)]
    names |= {f"encoder.{index}": name for index, name in enumerate(encoder)}
    for position, level in enumerate(reversed(range(levels))):
        side = resolution >> level
        entries = ["in0", "in1"] if level == levels - 1 else ["up"]
        for index, entry in enumerate(entries):
            names[f"decoder_entries.{position}.{index}"] = f"dec.{side}x{side}_{entry}"
        for block in range(num_blocks + 1):
            names[f"decoder_blocks.{position}.{block}"] = f"dec.{side}x{side}_block{block}"
    names["tail_norm"] = f"dec.{resolution}x{resolution}_aux_norm"
    names["tail_conv"] = f"dec.{resolution}x{resolution}_aux_conv"
    names["bottleneck_fusers.0.projector"] = "dino_projector"
    names["bottleneck_fusers.0.reducer"] = "channel_reducer"
    return names


def _published(key: str, modules: dict[str, str], block: str) -> str:
    module = max((name for name in modules if key.startswith(name + ".")), key=len)
    member = key.removeprefix(module + ".")
    for ours, theirs in _MEMBERS.items():
        if member.startswith(ours + "."):
            member = theirs.format(block=block) + member.removeprefix(ours)
            break
    return f"{modules[module]}.{member}"


@pytest.fixture
def load_published() -> Callable[..., nn.Module]:
    """(unet, state dict, resolution, block name of the cross-attention, prefix) -> the unet with those weights."""

    def load(unet: nn.Module, state: dict, resolution: int, block: str = "", prefix: str = "") -> nn.Module:
        modules = _module_names(resolution, num_blocks=1, levels=4)
        names = {key: prefix + _published(key, modules, block) for key in unet.state_dict()}
        unet.load_state_dict({key: state[name] for key, name in names.items()})
        theirs = {name for name in state if name.startswith(prefix) and "resample_filter" not in name}
        assert theirs == set(names.values())
        return unet.eval()

    return load
