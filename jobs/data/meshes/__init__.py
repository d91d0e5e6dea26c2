"""Mesh files, materials and ray tracing for the importers."""
