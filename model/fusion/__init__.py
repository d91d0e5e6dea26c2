"""Where and how context enters the U-Net.  One file per way, one line here."""

FUSION: dict[str, str] = {
    "input": "model.fusion.input:InputChannel",
    "concat": "model.fusion.concat:Concat",
    "xattn": "model.fusion.xattn:CrossAttention",
}
