"""Reads and writes published checkpoints of Splatter Image, of the paper's variants and of PixelNeRF.

Their files are dictionaries whose `model_state_dict` holds tensors by name (the averaged ones, where averaging was
on), or such dictionaries themselves; only this package knows the names, shapes and conventions of their
calls.
"""

from model.official.checkpoint import NetworkShape, read_weights
from model.official.datasets import PUBLISHED, PublishedDataset
from model.official.files import PublishedFile, recognise
from model.official.names import listed, misfits
from model.official.network import OfficialPredictor, OfficialUNet
from model.official.pixelnerf import load_pixelnerf, pixelnerf_state_dict
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
    "PublishedFile",
    "listed",
    "load_official",
    "load_pixelnerf",
    "misfits",
    "official_state_dict",
    "pixelnerf_state_dict",
    "predictor_from_official",
    "read_weights",
    "recognise",
    "unet_from_official",
]
