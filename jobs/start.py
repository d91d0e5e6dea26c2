"""Weights of a trained network, as those from which another training starts (`train.start`).

The network takes all tensors.  Context that the trained network did not have is added: its layers are new, and the
first convolution ignores further input channels until training changes their weights, which start at 0.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from jobs.config import TrialConfig
from model.fusion.base import make_fusion
from model.fusion.fuser import Fuser
from model.methods.base import Setting
from model.official import listed, misfits, recognise
from model.scenes import Reconstructor

log = logging.getLogger(__name__)


def start_from(name: str, network: Reconstructor, config: TrialConfig, setting: Setting) -> None:
    """Give `network` the weights of a trained one, which the store has under this name.

    Raises ValueError where they do not fit, or where nothing is trained and layers are new.
    """
    tensors, settings = setting.weights.load(name), setting.weights.config(name)
    try:
        if settings:
            settings = TrialConfig.model_validate(settings).model_dump(mode="json")
        else:
            file = recognise(tensors)
            settings = file.settings(config.data.name)
            contexts = [make_fusion(way, source, width) for source, (way, width) in file.contexts.items()]
            alone = config.method.build(config.model, replace(setting, initial=False), contexts)
            tensors = file.load(alone).state_dict()
        new = _transfer(tensors, network)
    except ValueError as error:
        why = "; ".join(_differing(settings, config)) or error
        raise ValueError(f"{name} does not fit the network of this trial: {why}") from error
    if new and config.is_given:
        layers = sorted({key.rpartition(".")[0] for key in new})
        raise ValueError(f"{name} has no weights of {listed(layers)}, and nothing trains them: train.stages is empty")
    log.info("training starts from %s%s", name, f"; {len(new)} tensors of further context are new" if new else "")


@torch.no_grad()
def _transfer(tensors: Mapping[str, Tensor], network: Reconstructor) -> list[str]:
    """Copy tensors of a trained network into `network`; returns the names of those that stay new, even in part.

    Raises ValueError where tensors are left over, missing or of another shape.
    """
    own = network.state_dict()
    fusers = tuple(f"{path}." for path, module in network.named_modules() if isinstance(module, Fuser))
    is_conditioned = any(key.startswith(fusers) for key in tensors)  # its context is the trial's, then
    absent = [key for key in own if key not in tensors]
    widened = [key for key in own if key in tensors and _has_more_inputs(own[key], tensors[key])][:1]
    added = {key for key in absent if key.startswith(fusers) and not is_conditioned}
    expected = {key: (tensors if key in widened else own)[key].shape for key in own if key not in added}
    if found := misfits(expected, (), tensors):
        raise ValueError(found)
    for key in widened:
        own[key].zero_()
    for key, tensor in tensors.items():
        own[key][tuple(map(slice, tensor.shape))] = tensor
    return [*widened, *absent]


def _has_more_inputs(own: Tensor, given: Tensor) -> bool:
    """Whether these are the weights (C', C, k, k) of one convolution, the first with more input channels C."""
    return own.dim() == given.dim() == 4 and own.shape[1] > given.shape[1] and own[:, :1].shape == given[:, :1].shape


def _differing(theirs: Mapping[str, Any], config: TrialConfig) -> Iterator[str]:
    """Sizes of a trained network, with their keys in a configuration, that this trial has otherwise."""
    own = config.model_dump(mode="json")
    for section, keys in (("data", ("resolution",)), ("model", theirs.get("model", {}))):
        for key in keys:
            there, here = theirs[section][key], own[section].get(key)
            if key in own[section] and there != here and not isinstance(there, Mapping):
                yield f"it has {section}.{key} {there}, and the trial {here}"
