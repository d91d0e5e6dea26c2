"""Pretrained weights: one table of sources, found or downloaded, verified, never silently random."""

from model.weights.store import MissingWeightsError, WeightStore
from model.weights.table import WEIGHTS, Weight, fetch_command, find_weight

__all__ = ["WEIGHTS", "MissingWeightsError", "Weight", "WeightStore", "fetch_command", "find_weight"]
