"""Builds the reconstructor of a trial's method from its configuration."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.config import TrialConfig
from jobs.start import start_from
from model.fusion.base import make_fusion
from model.methods.base import Setting
from model.scenes import Reconstructor
from model.weights import WeightStore


def build_reconstructor(
    config: TrialConfig, widths: Mapping[str, int], weights: WeightStore, *, initial: bool = True
) -> Reconstructor:
    """A new reconstructor on the CPU, identical for equal configurations.

    `widths` names the active sources of context: length of the semantic vector or of each token, channels of the
    depth map.  `initial=False` leaves out the weights that training starts from, pretrained ones and those of
    `train.start`, for networks whose tensors are all loaded afterwards.
    Raises ValueError where those of `train.start` do not fit.
    """
    setting = Setting(
        resolution=config.data.resolution,
        seed=config.seed,
        weights=weights,
        backend=config.render.backend,
        antialiasing=config.render.antialiasing,
        initial=initial,
    )
    contexts = [
        make_fusion(section.fusion, source, widths[source])
        for source, section in config.sources.items()
        if source in widths
    ]
    reconstructor = config.method.build(config.model, setting, contexts)
    if initial and config.train.start is not None:
        start_from(config.train.start, reconstructor, config, setting)
    return reconstructor
