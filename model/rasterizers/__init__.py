"""Gaussians and cameras -> images.  One file per backend, one line here."""

BACKENDS: dict[str, str] = {
    "cpu": "model.rasterizers.cpu:CpuRasterizer",
    "reference": "model.rasterizers.reference:ReferenceRasterizer",
}
