"""Keys: hashes of all that determines a training's weights, or a trial's results.

A training key covers all inputs of training: the configuration except for `eval`, the dataset's fingerprint, the
hashes of the weights that it starts from or uses frozen, and `NUMERICS_VERSION`; with `train.keep: best` also the keys
of `eval` that determine its choice.

A trial key covers a training and its evaluation: the training key, the `eval` section, the dataset's fingerprint, the
hashes of the metrics' weights, and `EVALUATION_VERSION`.

Names, tables, resources and paths are in neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.config import TrialConfig
from jobs.contexts import frozen_class, frozen_options
from jobs.metrics import find_metric
from model.losses import LOSSES
from model.registry import resolve

#: Version of the arithmetic of training.  It is increased when equal configurations would train to weights that differ
#: by more than rounding: a changed formula, a changed default that is not in the identity, a changed order of random
#: draws.  A kernel that only adds the same terms in another order is no reason to increase it, since results on two
#: machines differ by as much.  Every increase retrains all sweeps, so changes are collected.
NUMERICS_VERSION = 5

#: Version of the arithmetic of evaluation, by the same rule.  An increase re-evaluates all trials and trains none.
EVALUATION_VERSION = 1

#: Keys of `eval` that only add curves to the journal during training; they affect neither weights nor results, unless
#: these curves choose the weights that are kept (`train.keep: best`).
WATCHING = ("every", "val_objects")

_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of one configuration."""

    trial: str
    #: None where there is nothing to train
    training: str | None


def keys_of(config: TrialConfig, fingerprint: str, weights: Mapping[str, str]) -> Keys:
    """Both keys of a configuration.

    `fingerprint` is the dataset's; `weights` maps at least the names in `frozen_weights(config)` to their sha256.
    """
    identity = config.identity()
    trained = _training_key(identity, fingerprint, {name: weights[name] for name in training_weights(config)})
    trial = _trial_key(trained, identity, fingerprint, {name: weights[name] for name in evaluation_weights(config)})
    return Keys(trial, trained if config.is_trained else None)


def training_key(config: TrialConfig, fingerprint: str, weights: Mapping[str, str]) -> str:
    """Key of a training: 16 hex digits.  `weights` holds the sha256 of all that training loads."""
    return _training_key(config.identity(), fingerprint, weights)


def _training_key(identity: Mapping[str, Any], fingerprint: str, weights: Mapping[str, str]) -> str:
    return _hashed(
        {
            "config": _read_by_training(identity),
            "data": fingerprint,
            "weights": dict(weights),
            "numerics": NUMERICS_VERSION,
        }
    )


def trial_key(training: str, config: TrialConfig, fingerprint: str, weights: Mapping[str, str]) -> str:
    """Key of a trial: 16 hex digits.  `training` is its training's, `weights` holds the sha256 of the metrics'."""
    return _trial_key(training, config.identity(), fingerprint, weights)


def _trial_key(training: str, identity: Mapping[str, Any], fingerprint: str, weights: Mapping[str, str]) -> str:
    return _hashed(
        {
            "training": training,
            "eval": _decisive_eval(identity),
            "data": fingerprint,
            "weights": dict(weights),
            "evaluation": EVALUATION_VERSION,
        }
    )


def training_identity(config: TrialConfig) -> dict[str, Any]:
    """The part of `TrialConfig.identity()` that training reads."""
    return _read_by_training(config.identity())


def evaluation_identity(config: TrialConfig) -> dict[str, Any]:
    """The part of `TrialConfig.identity()` that determines the evaluation of weights."""
    return _decisive_eval(config.identity())


def keeps_best(identity: Mapping[str, Any]) -> bool:
    """Whether scores on the validation split choose the weights of a configuration with this identity."""
    return identity.get("train", {}).get("keep") == "best"


def _read_by_training(identity: Mapping[str, Any]) -> dict[str, Any]:
    read = {section: values for section, values in identity.items() if section != "eval"}
    if keeps_best(identity):
        metric = identity["train"]["keep_by"]
        names = (*WATCHING, "lpips") if metric == "lpips" else WATCHING
        read["eval"] = {name: identity["eval"][name] for name in names} | {"metrics": [metric]}
    return read


def _decisive_eval(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in identity["eval"].items() if key not in WATCHING}


def training_weights(config: TrialConfig) -> tuple[str, ...]:
    """Names of the weights that training starts from or uses frozen."""
    names: set[str] = set()
    if config.is_trained:
        names.update(config.method.weights(config.model))
        names.update(() if config.train.start is None else (config.train.start,))
        for section in config.sources.values():
            cls = frozen_class(section)
            names.update(() if cls is None else cls.weights(frozen_options(section)))
        for loss in {name for stage in config.train.stages for name in stage.losses}:
            names.update(resolve(LOSSES, loss, "loss").weights)
        if config.train.keep == "best":
            names.update(find_metric(config.train.keep_by).weights(config.eval.lpips))
    return tuple(sorted(names))


def evaluation_weights(config: TrialConfig) -> tuple[str, ...]:
    """Names of the frozen weights that the metrics use."""
    return tuple(sorted({weight for name in config.metrics for weight in find_metric(name).weights(config.eval.lpips)}))


def frozen_weights(config: TrialConfig) -> tuple[str, ...]:
    """Names of the frozen weights that a trial uses, for training and for evaluation."""
    return tuple(sorted({*training_weights(config), *evaluation_weights(config)}))


def _hashed(content: Mapping[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGITS]
