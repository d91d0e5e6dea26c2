"""Reconstruction methods: one folder each."""
