"""Frozen encoders: source views -> one vector each.  One file per encoder, one line here; "none" is no encoder."""

SEMANTIC: dict[str, str] = {
    "efficientnet_lite0": "model.semantic.efficientnet_lite0:EfficientNetLite0",
}
