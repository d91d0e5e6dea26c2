"""The configuration of one trial, as frozen types that reject unknown keys.

`jobs.keys` hashes `TrialConfig.identity()`.  A key that is added to a section later is marked `ADDED_LATER`
and defaults to the former behaviour, so that existing identities do not change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    GetPydanticSchema,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_plain_validator_function

from jobs.contexts import ContextConfig, context_section, frozen_class, frozen_options
from jobs.data import DATASETS
from jobs.fit import check_fit
from model.context import SOURCES, find_source
from model.fusion import Source
from model.losses import LOSSES
from model.methods import METHODS, find_method
from model.methods.base import Method, MethodOptions
from model.networks import GIVEN_NETWORK, NETWORKS, is_network
from model.options import (
    ADDED_LATER,
    Count,
    Finite,
    MisfitError,
    Positive,
    Section,
    as_tuple,
    in_one_line,
    known_values,
    omitted_defaults,
    one_of,
)
from model.rasterizers import BACKENDS
from model.registry import UnknownChoiceError, is_choice
from results.metrics import METRICS, PUBLISHED
from results.records.damage import DamagedFileError, read_object
from results.records.flat import flatten

#: Sections of a configuration without training.
_OF_CONTROLS = ("data", "model", "eval")

#: Keys of `train` that matter where nothing is trained.
_OF_GIVEN = ("start", "stages", "precision")

#: Default method of a configuration.
DEFAULT_METHOD = "splatter_image"


class DataConfig(Section):
    """The dataset of a trial."""

    name: Annotated[str, one_of("dataset", DATASETS)] = "chairs"
    resolution: Annotated[int, Field(gt=0, multiple_of=8)] = 32
    #: options of the dataset's importer; see `splatsweep data list NAME`
    options: dict[str, Any] = Field(default={})


class LossTerm(Section):
    """Weight and schedule of a loss.  A plain number in a sweep file is a constant weight."""

    weight: Annotated[Finite, Field(ge=0)]
    #: iterations of the stage during which its weight is 0, fewer than all
    start: Annotated[int, Field(ge=0)] = 0
    #: iterations from there on over which the weight grows linearly to its full value
    ramp: Annotated[int, Field(ge=0)] = 0
    #: rendered views of each object that it uses, drawn anew each step, with the same expectation; null: all
    views: Count | None = None

    def weight_at(self, iteration: int) -> float:
        """The weight in the stage's `iteration`, counted from 0."""
        if iteration < self.start:
            return 0.0
        return self.weight * min(1.0, (iteration - self.start + 1) / (self.ramp + 1))

    @model_serializer(mode="wrap")
    def _as_written(self, plain: SerializerFunctionWrapHandler) -> Any:
        return self.weight if self == LossTerm(weight=self.weight) else plain(self)


def _as_term(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {"weight": value}
    if not isinstance(value, (dict, LossTerm)):
        raise PydanticCustomError("not_a_term", "must be a weight, or a mapping with weight, start, ramp and views")
    return value


def _without_zeros(losses: dict[str, LossTerm]) -> dict[str, LossTerm]:
    """Losses with a weight other than 0, as 0 equals absence; all of them, which a stage refuses, where none has."""
    return {name: term for name, term in losses.items() if term.weight != 0} or losses


LossName = Annotated[str, one_of("loss", LOSSES)]


class Stage(Section):
    """A stage of training with one learning rate and one weighted sum of losses; Adam's state is reset in each."""

    iterations: Count
    lr: Positive
    losses: Annotated[
        dict[LossName, Annotated[LossTerm, BeforeValidator(_as_term)]],
        Field(min_length=1),
        AfterValidator(_without_zeros),
    ]

    @model_validator(mode="after")
    def _starts_with_a_loss(self) -> Stage:
        if all(term.weight == 0 for term in self.losses.values()):
            raise PydanticCustomError("no_loss", "one of the losses must have a weight, or nothing is trained")
        if all(term.start > 0 for term in self.losses.values()):
            raise PydanticCustomError("no_loss", "one of the losses must start at 0, or there is nothing to learn from")
        return self


class EmaConfig(Section):
    """A moving average of the weights, which is evaluated.

    The defaults are those of Splatter Image's published training, which uses the package ema-pytorch.
    """

    #: iterations between updates
    every: Count = 10
    #: iterations of a stage before averaging starts; until then the average equals the network
    start: Annotated[int, Field(ge=0)] = 100
    max_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999


def _trained_network(name: str | None) -> str | None:
    if name is not None and not is_network(name):
        error = UnknownChoiceError("trained network", name, [*NETWORKS, GIVEN_NETWORK])
        raise PydanticCustomError("unknown_choice", "{reason}", {"reason": str(error), "allowed": error.allowed})
    return name


class TrainConfig(Section):
    """Settings of training."""

    batch_size: Count = 8
    #: target frames drawn for each object.  The first `model.input_views` of them are also the sources, except for
    #: methods that compare single pixels: these draw their sources separately.
    views_per_object: Annotated[int, Field(ge=1)] = 4
    #: none where the network that it starts from is evaluated as it is
    stages: Annotated[tuple[Stage, ...], as_tuple] = (
        Stage(iterations=25_000, lr=5e-5, losses={"l2": LossTerm(weight=1.0)}),
        Stage(iterations=5_000, lr=5e-6, losses={"l2": LossTerm(weight=0.99), "lpips": LossTerm(weight=0.01)}),
    )
    #: weights of a trained network from which training starts: published ones, or `network:NAME`, a file that
    #: `splatsweep weights fetch network:NAME --from FILE` stored.  Layers of further context are new.  null: all are
    start: Annotated[str | None, AfterValidator(_trained_network), ADDED_LATER] = None
    #: null: the network itself is evaluated
    ema: EmaConfig | None = None
    #: precision of matrix products on a GPU: TF32 as published, or bfloat16 activations; CPUs always use float32
    precision: Literal["float32", "tf32", "bf16"] = "tf32"
    #: a loss or gradient that is not finite stops the trial, skips that step, or is ignored, as published.  On a CPU
    #: the same holds for Gaussians that are not finite; on a GPU, and with `ignore`, they are not drawn
    nonfinite: Literal["stop", "skip", "ignore"] = "stop"
    #: the weights to evaluate: those after the last iteration, or those with the best score on the validation split
    keep: Annotated[Literal["last", "best"], ADDED_LATER] = "last"
    #: the score that `keep: best` compares on novel views, every `eval.every` iterations and at the end of each stage;
    #: one of `eval.metrics`
    keep_by: Annotated[str, one_of("metric", METRICS)] = "psnr"

    @property
    def iterations(self) -> int:
        """Steps over all stages."""
        return sum(stage.iterations for stage in self.stages)


def _in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """Each metric once, in the registry's order, so that equal sets of metrics are equal values."""
    return tuple(name for name in METRICS if name in names)


class EvalConfig(Section):
    """Data and metrics of the evaluation of a trained network."""

    split: Literal["val", "test"] = "test"
    #: number of objects to evaluate, the first of the split; null means all
    objects: Count | None = None
    lpips: Literal["vgg", "alex"] = "vgg"
    #: the metrics to compute; see `splatsweep choices`
    metrics: Annotated[
        tuple[Annotated[str, one_of("metric", METRICS)], ...],
        as_tuple,
        Field(min_length=1),
        AfterValidator(_in_order),
        ADDED_LATER,
    ] = PUBLISHED
    #: iterations between evaluations on the validation split while training, which also take place at the end of every
    #: stage; null means none
    every: Count | None = None
    #: objects of the validation split that these evaluations use
    val_objects: Count = 8


class RenderConfig(Section):
    """Settings of the rasterisation of Gaussians."""

    backend: Annotated[str, one_of("rasterizer backend", ("auto", *BACKENDS))] = "auto"
    antialiasing: bool = False


def _options_of_the_method(value: Any) -> MethodOptions:
    """Parses the section `model` as the options of the method that its `name` chooses."""
    if isinstance(value, MethodOptions):
        return value
    name = value.get("name", DEFAULT_METHOD) if isinstance(value, Mapping) else DEFAULT_METHOD
    if not is_choice(name, METHODS):
        unknown = UnknownChoiceError("method", name, METHODS)
        problem = PydanticCustomError(
            "unknown_choice", "{reason}", {"reason": str(unknown), "allowed": unknown.allowed}
        )
        raise ValidationError.from_exception_data("model", [{"type": problem, "loc": ("name",), "input": name}])
    try:
        options = find_method(name).options_for(value)
    except MisfitError as error:
        problem = PydanticCustomError("unknown_choice", "{reason}", {"reason": str(error)})
        loc = tuple(error.key.split(".")[1:])
        raise ValidationError.from_exception_data("model", [{"type": problem, "loc": loc, "input": None}]) from None
    return options.model_validate(value)


def _schema_of_all_methods(_: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
    """One JSON Schema with the keys of all methods, as a single section may not name its method."""
    keys: dict[str, list[Any]] = {}
    for options in (options for name in METHODS for options in find_method(name).all_options()):
        schema = handler.resolve_ref_schema(handler(options.__pydantic_core_schema__))
        for key, value in schema["properties"].items():
            if value not in keys.setdefault(key, []):
                keys[key].append(value)
    properties = {key: values[0] if len(values) == 1 else {"anyOf": values} for key, values in keys.items()}
    properties["name"] = {"type": "string", "enum": sorted(METHODS), "default": DEFAULT_METHOD}
    return {"type": "object", "properties": properties, "additionalProperties": False}


#: The section `model`: a method by name, and that method's own keys.
ModelConfig = Annotated[
    SerializeAsAny[MethodOptions],
    GetPydanticSchema(
        lambda source, handler: no_info_plain_validator_function(
            _options_of_the_method, serialization=handler(source)["serialization"]
        ),
        _schema_of_all_methods,
    ),
]


class _DataAndMethod(Section):
    data: DataConfig = DataConfig()
    model: ModelConfig = find_method(DEFAULT_METHOD).Options()  # type: ignore[call-arg]


if TYPE_CHECKING:
    _WithContexts = _DataAndMethod
else:
    _sections = {name: context_section(name) for name in SOURCES}
    globals().update({section.__name__: section for section in _sections.values()})  # pickle looks them up here
    _WithContexts = create_model(
        "_WithContexts", __base__=_DataAndMethod, **{name: (section, section()) for name, section in _sections.items()}
    )


class TrialConfig(_WithContexts):
    """All settings that determine a trial's results; every source of context is a section under its name."""

    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    render: RenderConfig = RenderConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> TrialConfig:
        try:
            check_fit(self)
        except MisfitError as error:
            raise PydanticCustomError("misfit", "{reason}", {"path": error.key, "reason": str(error)}) from None
        return self

    @classmethod
    def read(cls, path: Path) -> TrialConfig:
        """The configuration in the file of a trial or a training.

        Raises OSError where there is none, and `DamagedFileError` where this version does not read it.
        """
        return cls.recorded(read_object(path), path)

    @classmethod
    def recorded(cls, values: Any, path: Path) -> TrialConfig:
        """Validates plain values read from `path`.  Raises `DamagedFileError` where they are no configuration."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise DamagedFileError(path, f"no configuration of this version: {in_one_line(error)}") from None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The chosen metrics that renderings of the method allow."""
        offered = self.method.geometry(self.model)
        return tuple(name for name in self.eval.metrics if METRICS[name].of_rendering <= offered)

    @property
    def sources(self) -> dict[Source, ContextConfig]:
        """The sections on frozen models, by source of context."""
        return {name: getattr(self, name) for name in SOURCES}

    @property
    def method(self) -> type[Method]:
        """The reconstruction method that `model` names."""
        return find_method(self.model.name)

    @property
    def is_trained(self) -> bool:
        """Whether there is a trained network; trivial baselines have none."""
        return self.method.trained

    @property
    def iterations(self) -> int:
        """Iterations of training; 0 where nothing is trained."""
        return self.train.iterations if self.is_trained else 0

    @property
    def is_given(self) -> bool:
        """Whether the network is evaluated as it is given (`train.start`), without any training here."""
        return self.is_trained and not self.train.stages

    def identity(self) -> dict[str, Any]:
        """The configuration as plain JSON values, without the keys of inactive axes and those that came later."""
        values = known_values(self, self.model_dump(mode="json"))
        if "lpips" not in self.eval.metrics:
            del values["eval"]["lpips"]
        if not self.is_trained:
            return {key: values[key] for key in _OF_CONTROLS}
        if self.is_given:
            del values["seed"]
            values["train"] = {key: values["train"][key] for key in _OF_GIVEN}
        elif self.train.keep == "last":
            del values["train"]["keep_by"]
        for source, section in self.sources.items():
            if frozen_class(section) is None:
                facts = find_source(source)
                if facts.always_in_keys:
                    values[source] = {facts.switch: "none"}
                else:
                    del values[source]
                continue
            options = frozen_options(section)
            values[source]["options"] = known_values(options, dataclasses.asdict(options))
            if not values[source]["options"]:
                del values[source]["options"]
        return values

    def omitted_defaults(self) -> dict[str, Any]:
        """The keys of active axes that `identity` omits because they came later, under dotted names, with defaults."""
        sections = [name for name in type(self).model_fields if name not in self.sources]
        found: dict[str, Any] = {}
        for name in sections if self.is_trained else _OF_CONTROLS:
            found |= omitted_defaults(getattr(self, name), f"{name}.")
        for source, section in self.sources.items() if self.is_trained else ():
            if frozen_class(section) is not None:
                found |= omitted_defaults(section, f"{source}.")
                found |= omitted_defaults(frozen_options(section), f"{source}.options.")
            elif not (facts := find_source(source)).always_in_keys:
                found[f"{source}.{facts.switch}"] = "none"
        return found

    def settings(self) -> dict[str, Any]:
        """All settings of active axes under dotted keys: those of `identity` and those that it omits."""
        return flatten(self.identity()) | self.omitted_defaults()
