"""Checks that the sections of a configuration fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.contexts import ContextConfig, frozen_class, fusion_classes
from model.context import find_source
from model.fusion.base import context_type_for
from model.losses import LOSSES, LPIPS_OF_LOSS
from model.methods.base import NEEDS, Need
from model.options import MisfitError
from model.registry import resolve
from results.metrics import METRICS

if TYPE_CHECKING:
    from jobs.config import LossTerm, TrialConfig

#: Minimum side of images, in pixels, for the poolings of each LPIPS trunk.
SMALLEST_LPIPS = {"vgg": 16, "alex": 32}

#: Requirement of a loss -> how a method lacks it, for messages.
_LACKS: dict[Need, tuple[str, str]] = {
    "views": ("whole views", "is trained on single pixels"),
    "gaussians": ("a scene of Gaussians", "makes none"),
}


def check_fit(config: TrialConfig) -> None:
    """Raise `MisfitError` where sections of a configuration do not fit each other, or the method."""
    config.method.check(config.model, config.data.resolution)
    _check_metrics(config)
    if not config.is_trained:
        return
    for source, section in config.sources.items():
        if section.choice != "none":
            _check_context(config, source, section)
    if config.is_given:
        _check_given(config)
    else:
        _check_training(config)


def _check_given(config: TrialConfig) -> None:
    """Checks that there is a network to evaluate where nothing is trained, and no choice among its weights."""
    if config.train.start is None:
        reason = "train.stages is empty, so there is no network to evaluate: add a stage, or set train.start"
        raise MisfitError("train.stages", reason)
    if config.train.keep != "last":
        reason = f"train.keep {config.train.keep} chooses among weights of a training, and train.stages is empty"
        raise MisfitError("train.keep", reason, ["last"])


def _check_training(config: TrialConfig) -> None:
    """Checks that batches, the choice of weights, and losses fit the method."""
    config.method.check_batch(config.model, config.data.resolution, config.train.batch_size)
    offered, drawn = config.method.offers(config.model), config.train.views_per_object
    if "views" in offered and config.model.input_views > drawn:
        reason = f"model.input_views {config.model.input_views} is more than train.views_per_object {drawn}"
        raise MisfitError("model.input_views", f"{reason}, which they are among")
    if config.train.keep == "best":
        _check_kept(config)
    for index, stage in enumerate(config.train.stages):
        for name, term in stage.losses.items():
            _check_start(term, stage.iterations, f"train.stages.{index}", name)
            _check_loss(config, name, term, f"train.stages.{index}.losses.{name}", offered)


def _check_metrics(config: TrialConfig) -> None:
    """Checks that views are large enough for LPIPS, and that renderings have the data of metrics.

    Renderings of trivial baselines may lack it: those metrics are left out.
    """
    smallest, side = SMALLEST_LPIPS[config.eval.lpips], config.data.resolution
    if "lpips" in config.eval.metrics and side < smallest:
        raise MisfitError(
            "eval.lpips", f"eval.lpips {config.eval.lpips} needs data.resolution {smallest} or more, got {side}"
        )
    offered = config.method.geometry(config.model)
    for name in config.eval.metrics if config.is_trained else ():
        if lacking := sorted(METRICS[name].of_rendering - offered):
            fitting = [other for other, facts in METRICS.items() if facts.of_rendering <= offered]
            reason = (
                f"eval.metrics {name} needs {' and '.join(lacking)}, which model.name {config.model.name} renders not"
            )
            raise MisfitError("eval.metrics", reason, fitting)


def _check_kept(config: TrialConfig) -> None:
    """Checks that training measures the score by which the best weights are chosen."""
    if config.eval.every is None:
        reason = "train.keep best compares scores on the validation split, and there are none: set eval.every"
        raise MisfitError("train.keep", reason, ["last"])
    if config.train.keep_by not in config.metrics:
        reason = f"train.keep_by {config.train.keep_by} is not among eval.metrics"
        raise MisfitError("train.keep_by", reason, config.metrics)


def _check_context(config: TrialConfig, source: str, section: ContextConfig) -> None:
    """Checks that context enters at a place that the network has, with these options."""
    places = config.method.places(config.model)
    if not places:
        key = f"{source}.{find_source(source).switch}"
        reason = f"{key} {section.choice} is context, which model.name {config.model.name} does not take"
        raise MisfitError(key, reason, ["none"])
    ways, model = fusion_classes(), frozen_class(section)
    assert model is not None
    way = ways[section.fusion]
    if way.place not in places:
        fitting = [
            n for n, w in ways.items() if w.place in places and context_type_for(w, source) in model.output_types
        ]
        variant = "backbone" if "backbone" in type(config.model).model_fields else "name"
        network = f"model.{variant} {getattr(config.model, variant)}"
        reason = (
            f"{source}.fusion {section.fusion} enters at the {way.place}, which the network ({network}) does not have"
        )
        raise MisfitError(f"{source}.fusion", reason, sorted(fitting))
    config.method.check_place(config.model, config.data.resolution, way, f"{source}.fusion {section.fusion}")


def _check_start(term: LossTerm, iterations: int, stage: str, name: str) -> None:
    """Checks that a loss starts before the end of its stage."""
    if term.start >= iterations:
        key = f"{stage}.losses.{name}.start"
        reason = f"{key} {term.start} is not below {stage}.iterations {iterations}, so the loss would never act"
        raise MisfitError(key, reason)


def _check_loss(config: TrialConfig, name: str, term: LossTerm, key: str, offered: frozenset[Need]) -> None:
    """Checks that a training step provides the data that a loss needs."""
    method = f"model.name {config.model.name}"
    if term.views is not None and "views" not in offered:
        needed, instead = _LACKS["views"]
        raise MisfitError(f"{key}.views", f"{key}.views {term.views} needs {needed}, and {method} {instead}", ["null"])
    if term.views is not None and term.views > config.train.views_per_object:
        reason = f"{key}.views {term.views} is more than train.views_per_object {config.train.views_per_object}"
        raise MisfitError(f"{key}.views", reason)
    smallest, side = SMALLEST_LPIPS[LPIPS_OF_LOSS], config.data.resolution
    if name == "lpips" and "views" in offered and side < smallest:
        reason = f"{key} ({LPIPS_OF_LOSS}) needs data.resolution {smallest} or more, got {side}"
        raise MisfitError(key, reason, sorted(set(LOSSES) - {name}))
    if offered == NEEDS:  # the classes of losses import torch
        return
    needs: dict[str, frozenset[Need]] = {loss: resolve(LOSSES, loss, "loss").needs for loss in LOSSES}
    for lacking in sorted(needs[name] - offered):
        needed, instead = _LACKS[lacking]
        fitting = sorted(loss for loss, wanted in needs.items() if wanted <= offered)
        raise MisfitError(key, f"{key} needs {needed}, and {method} {instead}", fitting)
