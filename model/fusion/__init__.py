"""Where and how context enters the U-Net.  One file per way, one line here."""

from typing import Literal

Kind = Literal["vector", "map"]
Source = Literal["semantic", "depth"]

#: What each source of context looks like: one vector (B, V, D), or one map (B, V, 1, H, W).
KINDS: dict[Source, Kind] = {"semantic": "vector", "depth": "map"}

FUSION: dict[str, str] = {
    "input": "model.fusion.input:InputChannel",
    "concat": "model.fusion.concat:Concat",
    "xattn": "model.fusion.xattn:CrossAttention",
}
