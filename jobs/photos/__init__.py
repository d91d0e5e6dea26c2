"""Photographs of single objects as source views of a trained network."""
