"""Frozen encoders: images -> one vector per view.  One file per encoder, one line here."""

SEMANTIC: dict[str, str] = {
    "none": "model.semantic.none:NoEncoder",
    "efficientnet_lite0": "model.semantic.efficientnet_lite0:EfficientNetLite0",
    "random": "model.semantic.random:RandomEncoder",
}
