"""Splatter Image (Szymanowicz et al. 2024): one Gaussian a source pixel."""
