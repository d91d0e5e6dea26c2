"""Published checkpoints of Splatter Image and of the paper's variants, in and out.

Their files are dictionaries whose `model_state_dict` holds tensors by name (the averaged ones, where averaging was
on); the names, shapes and conventions of their calls are followed here and nowhere else.
"""

from model.official.checkpoint import NetworkShape, read_weights
from model.official.datasets import PUBLISHED, PublishedDataset
from model.official.network import OfficialPredictor, OfficialUNet
from model.official.transfer import (
    load_official,
    official_state_dict,
    predictor_from_official,
    unet_from_official,
)

__all__ = [
    "PUBLISHED",
    "NetworkShape",
    "OfficialPredictor",
    "OfficialUNet",
    "PublishedDataset",
    "load_official",
    "official_state_dict",
    "predictor_from_official",
    "read_weights",
    "unet_from_official",
]
