"""Frozen depth models: source views -> one map each.  One file per family, one line here; "none" is no depth.

All maps are relative inverse depth, 0 or more, larger where the surface is nearer; scale and shift are the model's.
"""

from model.context import ContextSource

#: Networks whose architecture `random` can use.
ARCHITECTURES: dict[str, str] = {
    "midas_small": "model.depth.midas:MidasSmall",
    "dpt_hybrid": "model.depth.dpt:DptHybrid",
    "dpt_large": "model.depth.dpt:DptLarge",
    "depth_anything_v2_small": "model.depth.depth_anything:DepthAnythingV2Small",
    "depth_anything_v2_base": "model.depth.depth_anything:DepthAnythingV2Base",
    "depth_anything_v2_large": "model.depth.depth_anything:DepthAnythingV2Large",
}

DEPTH: dict[str, str] = {
    **ARCHITECTURES,
    "zoedepth": "model.depth.zoe:ZoeDepth",  # untrained, its bins give the same depth everywhere
    "oracle": "model.depth.oracle:OracleDepth",
    "oracle_noisy": "model.depth.oracle_noisy:NoisyOracleDepth",
    "constant": "model.depth.constant:ConstantDepth",
    "random": "model.depth.random:RandomDepth",
}

SOURCE = ContextSource(
    switch="model",
    noun="depth model",
    models=DEPTH,
    context_types=("map",),
    fusion="input",
    description="A frozen depth model of the source views, and how its map enters the network.",
    always_in_keys=True,
)
