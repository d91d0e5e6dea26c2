"""Frozen encoders: source views -> what they show.  One file per family, one line per choice; "none" is no encoder."""

from model.context import ContextSource

SEMANTIC: dict[str, str] = {
    "clip_vit_b32": "model.semantic.clip:ClipVitB32",
    "clip_vit_l14": "model.semantic.clip:ClipVitL14",
    "dinov2_small": "model.semantic.dinov2:Dinov2Small",
    "dinov2_base": "model.semantic.dinov2:Dinov2Base",
    "dinov2_large": "model.semantic.dinov2:Dinov2Large",
    "dinov2_small_reg": "model.semantic.dinov2:Dinov2SmallRegisters",
    "dinov2_base_reg": "model.semantic.dinov2:Dinov2BaseRegisters",
    "dinov2_large_reg": "model.semantic.dinov2:Dinov2LargeRegisters",
    "dinov2_vitl14_reg_lc": "model.semantic.dinov2_classifier:Dinov2VitL14RegistersClassifier",
    "efficientnet_lite0": "model.semantic.timm_network:EfficientNetLite0",
    "timm": "model.semantic.timm_network:TimmEncoder",
    "transformers": "model.semantic.transformers_network:TransformersEncoder",
    "random": "model.semantic.random:RandomEncoder",
}

SOURCE = ContextSource(
    switch="encoder",
    noun="encoder",
    models=SEMANTIC,
    context_types=("vector", "tokens"),
    fusion="concat",
    description="A frozen encoder of the source views, and the fusion of its output with the network.",
    always_in_keys=True,
)
