"""Pretrained weights that can be trusted: one table, found or fetched, verified, never random in silence."""

from model.weights.store import MissingWeightsError, WeightStore
from model.weights.table import WEIGHTS, Weight, find_weight

__all__ = ["WEIGHTS", "MissingWeightsError", "Weight", "WeightStore", "find_weight"]
