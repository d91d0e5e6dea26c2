"""The configuration of one trial, as frozen types that refuse what they do not know.

A trial's key is a hash of everything that decides its numbers: `TrialConfig.identity()`, the dataset's
fingerprint, the hashes of the frozen weights, and `NUMERICS_VERSION`.  Names, tables, resources and paths
are not in it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from jobs.data import DATASETS
from model.depth import DEPTH
from model.fusion import FUSION, KINDS
from model.losses import LOSSES
from model.rasterizers import BACKENDS
from model.registry import UnknownChoiceError, resolve
from model.semantic import SEMANTIC

#: Raised whenever the arithmetic of training or evaluation changes, so that old results are not taken for new.
NUMERICS_VERSION = 1

#: How predictions are made.  The last two need no training: they show what a score is worth.
PREDICTORS = ("splatter_image", "blank", "copy_input")

#: The smallest pictures, in pixels, of which the poolings of each LPIPS trunk leave anything.
SMALLEST_LPIPS = {"vgg": 16, "alex": 32}


def _choice(axis: str, allowed: Collection[str]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in allowed:
            error = UnknownChoiceError(axis, value, allowed)
            context = {"reason": str(error), "allowed": error.allowed}
            raise PydanticCustomError("unknown_choice", "{reason}", context)
        return value

    return AfterValidator(check)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise PydanticCustomError("not_finite", "must be a finite number")
    return value


# YAML has lists where we keep tuples, so that a configuration cannot change after it was hashed.
_as_tuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
Count = Annotated[int, Field(gt=0)]
Finite = Annotated[float, AfterValidator(_finite)]
Positive = Annotated[float, Field(gt=0), AfterValidator(_finite)]
Counts = Annotated[tuple[Count, ...], _as_tuple]
Preprocess = Literal["published", "correct"]


class Section(BaseModel):
    """A part of a configuration: immutable, strict about types, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataConfig(Section):
    """Which pictures a trial learns from."""

    name: Annotated[str, _choice("dataset", DATASETS)] = "chairs"
    resolution: Annotated[int, Field(gt=0, multiple_of=8)] = 32
    #: options of the dataset's importer; see `splatsweep data list`
    options: dict[str, Any] = {}


class HeadConfig(Section):
    """Initial size and offset of each group of raw Gaussian parameters (network facts, section 1)."""

    depth_scale: Finite = 1.0
    depth_bias: Finite = 0.0
    offset_scale: Finite = 0.1
    offset_bias: Finite = 0.0
    opacity_scale: Finite = 1.0
    opacity_bias: Finite = -2.0
    scale_scale: Finite = 0.003
    scale_bias: Positive = 0.02


class ModelConfig(Section):
    """The Splatter Image network."""

    name: Annotated[str, _choice("predictor", PREDICTORS)] = "splatter_image"
    base_dim: Annotated[int, Field(gt=0, multiple_of=4)] = 16
    num_blocks: Count = 1
    channel_mult: Annotated[Counts, Field(min_length=1)] = (1, 2, 2, 2)
    #: side lengths, in pixels, of the feature maps whose encoder blocks attend to themselves
    attention_resolutions: Counts = (8,)
    sh_degree: Literal[0, 1] = 1
    head: HeadConfig = HeadConfig()


class SemanticConfig(Section):
    """A frozen encoder of the source view, and how its vector enters the network."""

    encoder: Annotated[str, _choice("encoder", ("none", *SEMANTIC))] = "none"
    fusion: Annotated[str, _choice("fusion", FUSION)] = "concat"
    preprocess: Preprocess = "correct"
    #: side in pixels that images are resized to for the encoder; null is its own
    resolution: Count | None = None


class DepthConfig(Section):
    """A frozen depth model of the source view, and how its map enters the network."""

    model: Annotated[str, _choice("depth model", ("none", *DEPTH))] = "none"
    fusion: Annotated[str, _choice("fusion", FUSION)] = "input"
    preprocess: Preprocess = "correct"
    #: side in pixels that images are resized to for the depth model; null is its own
    resolution: Count | None = None


class Stage(Section):
    """A stretch of training with one learning rate and one weighted sum of losses; Adam starts afresh in each."""

    iterations: Count
    lr: Positive
    losses: Annotated[dict[Annotated[str, _choice("loss", LOSSES)], Finite], Field(min_length=1)]


class TrainConfig(Section):
    """How the network is trained."""

    batch_size: Count = 8
    #: frames drawn per object; the first is the source, all of them are targets
    views_per_object: Annotated[int, Field(ge=1)] = 4
    stages: Annotated[tuple[Stage, ...], _as_tuple, Field(min_length=1)] = (
        Stage(iterations=25_000, lr=5e-5, losses={"l2": 1.0}),
        Stage(iterations=5_000, lr=5e-6, losses={"l2": 0.99, "lpips": 0.01}),
    )
    #: a loss or gradient that is not finite stops the trial, or skips that step
    non_finite: Literal["stop", "skip"] = "stop"

    @property
    def iterations(self) -> int:
        """Steps over all stages."""
        return sum(stage.iterations for stage in self.stages)


class EvalConfig(Section):
    """What a trained network is judged on."""

    split: Literal["val", "test"] = "test"
    #: the first so many objects of the split; null means all
    objects: Count | None = None
    lpips: Literal["vgg", "alex"] = "vgg"
    #: iterations between evaluations on the validation split while training; null means none
    every: Count | None = None
    #: objects of the validation split that those use
    val_objects: Count = 8


class RenderConfig(Section):
    """How Gaussians become pixels."""

    backend: Annotated[str, _choice("rasterizer backend", ("auto", *BACKENDS))] = "auto"
    antialiasing: bool = False


def _check_source(source: Literal["semantic", "depth"], model: Any, fusion: str, preprocess: str) -> None:
    """Refuse a fusion that cannot take this source's shape, and a preprocessing that its model does not know."""
    kind = KINDS[source]
    ways = sorted(name for name in FUSION if kind in resolve(FUSION, name, "fusion").accepts)
    if fusion not in ways:
        reason = "{source}.fusion {value} cannot take a {kind}; allowed: {ways}"
        context = {"path": f"{source}.fusion", "source": source, "value": fusion, "kind": kind}
        context["ways"] = ", ".join(ways)
        raise PydanticCustomError("misfit", reason, context)
    if preprocess not in model.preprocessings:
        reason = "{source}.preprocess {value} is not known to this model; allowed: {ways}"
        context = {"path": f"{source}.preprocess", "source": source, "value": preprocess}
        context["ways"] = ", ".join(model.preprocessings)
        raise PydanticCustomError("misfit", reason, context)


class TrialConfig(Section):
    """Everything that decides the numbers of one trial."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    semantic: SemanticConfig = SemanticConfig()
    depth: DepthConfig = DepthConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    render: RenderConfig = RenderConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> TrialConfig:
        halvings = len(self.model.channel_mult) - 1
        if self.data.resolution % (1 << halvings):
            raise PydanticCustomError(
                "misfit",
                "data.resolution {resolution} cannot be halved {times} times, as model.channel_mult asks",
                {"path": "data.resolution", "resolution": self.data.resolution, "times": halvings},
            )
        if self.data.resolution < SMALLEST_LPIPS[self.eval.lpips]:
            raise PydanticCustomError(
                "misfit",
                "eval.lpips {variant} needs data.resolution {smallest} or more, got {resolution}",
                {
                    "path": "eval.lpips",
                    "variant": self.eval.lpips,
                    "smallest": SMALLEST_LPIPS[self.eval.lpips],
                    "resolution": self.data.resolution,
                },
            )
        if self.semantic.encoder != "none":
            encoder = resolve(SEMANTIC, self.semantic.encoder, "encoder")
            _check_source("semantic", encoder, self.semantic.fusion, self.semantic.preprocess)
        if self.depth.model != "none":
            depth = resolve(DEPTH, self.depth.model, "depth model")
            _check_source("depth", depth, self.depth.fusion, self.depth.preprocess)
        return self

    @property
    def is_trained(self) -> bool:
        """Whether there is a network to train; the trivial predictors have none."""
        return self.model.name == "splatter_image"

    def identity(self) -> dict[str, Any]:
        """The configuration as plain JSON values, without the keys of inactive axes."""
        values = self.model_dump(mode="json")
        if not self.is_trained:
            return {"data": values["data"], "model": {"name": self.model.name}, "eval": values["eval"]}
        if self.semantic.encoder == "none":
            values["semantic"] = {"encoder": "none"}
        if self.depth.model == "none":
            values["depth"] = {"model": "none"}
        return values


def frozen_weights(config: TrialConfig) -> dict[str, str]:
    """The frozen weights that a trial uses, for training and for judging: name -> sha256."""
    from model.weights import required  # brings torch, which checking a configuration does without

    losses = {name for stage in config.train.stages for name in stage.losses}
    return required(
        semantic=config.semantic.encoder if config.is_trained else "none",
        depth=config.depth.model if config.is_trained else "none",
        losses=losses if config.is_trained else (),
        lpips=config.eval.lpips,
    )


def trial_key(config: TrialConfig, fingerprint: str, weights: Mapping[str, str]) -> str:
    """The first 16 hex digits of a sha256 over all that decides a trial's numbers.

    `fingerprint` is the dataset's, `weights` maps the names of the frozen weights in use to their sha256.
    """
    content = {
        "config": config.identity(),
        "data": fingerprint,
        "weights": dict(weights),
        "numerics": NUMERICS_VERSION,
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
