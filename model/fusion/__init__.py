"""Fusions: where and how context enters a network.  One file each, one line here."""

from typing import Literal

#: Type of the context of one view: a vector (D), tokens (T, D), or a map (C, H, W).
ContextType = Literal["vector", "tokens", "map"]
#: A name in `model.context.SOURCES`.
Source = str
#: Where a fusion enters a network: beside the image, inside blocks, or behind the encoder.
Place = Literal["input", "block", "bottleneck"]

FUSION: dict[str, str] = {
    # as published
    "input": "model.fusion.input:InputChannel",
    "concat": "model.fusion.concat:Concat",
    "xattn": "model.fusion.xattn:CrossAttention",
    # corrected
    "input_normalised": "model.fusion.input_normalised:NormalisedInputChannel",
    "xattn_positional": "model.fusion.xattn_positional:PositionalCrossAttention",
    "xattn_tokens": "model.fusion.xattn_tokens:TokenCrossAttention",
    "film": "model.fusion.film:Film",
}
